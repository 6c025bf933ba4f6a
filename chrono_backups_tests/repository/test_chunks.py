"""Writing chunks: deduplication, order, and threads that end whatever happens."""

from __future__ import annotations

import threading
import time
from mmap import mmap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.errors import StorageDenied, StorageError
from chrono_backups.pipeline.chunking import MAX_CHUNK
from chrono_backups.pipeline.packing import PACK_TARGET
from chrono_backups.repository import writer as writer_module
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import ChunkWriter, PipelineOptions
from chrono_backups.storage.faulty import Fail, FailFrom, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.crashing import ending, no_thread_left
from chrono_backups_tests.backup.taking import new_repository, noise, opened, packs
from chrono_backups_tests.repository.storing import CONTENTS, NARROW, WIDE, store, stored


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return new_repository(storage)


@pytest.mark.parametrize("options", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("size", [1000, 300_000, MAX_CHUNK])
def test_what_is_written_is_read(repository: Repository, options: PipelineOptions, size: int) -> None:
    contents = [noise(n, size - n) for n in range(20)] + [bytes(size), b"text " * (size // 5)]
    ids = stored(repository, contents, options)
    assert [repository.keys.chunk_id(content) for content in contents] == ids
    assert [bytes(repository.reader.read(chunk_id)) for chunk_id in ids] == contents
    assert [bytes(content) for content in repository.reader.stream(ids)] == contents  # type: ignore[arg-type]


def test_a_chunk_is_stored_once_however_many_hand_it_in(repository: Repository, storage: MemoryStorage) -> None:
    contents = [CONTENTS[n % 50] for n in range(2000)]
    with repository.writer(WIDE) as writer:
        store(writer, contents)
        assert writer.added.chunks <= 50
        store(writer, contents)
        writer.flush()
        assert writer.added.chunks == 50
        assert writer.added.content == sum(map(len, CONTENTS[:50]))
    size = sum(map(len, packs(storage).values()))
    with opened(storage).writer(WIDE) as writer:
        store(writer, contents)
        writer.flush()
        assert writer.added.chunks == 0
    assert sum(map(len, packs(storage).values())) == size
    assert len(repository.index) == 50


def test_listings_have_packs_of_their_own(repository: Repository, storage: MemoryStorage) -> None:
    with repository.writer(NARROW) as writer:
        listing = writer.wait(writer.store_listing(b"listing" * 1000))[0]
        content = store(writer, CONTENTS[:1])[0]
        writer.flush()
    places = [repository.index.find(listing), repository.index.find(content)]
    assert len({place.pack.digest for place in places if place}) == 2
    assert len(packs(storage)) == 2


def test_a_chunk_that_is_too_large_is_refused_at_once(repository: Repository) -> None:
    with repository.writer(NARROW) as writer:
        with pytest.raises(ValueError, match="at most"):
            writer.store_listing(bytes(MAX_CHUNK + 1))
        writer.wait(writer.store_listing(noise(1, MAX_CHUNK)))
        writer.flush()


def test_the_index_is_written_as_the_run_goes_on(
    repository: Repository, storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_INDEX_EVERY", 10)
    monkeypatch.setitem(writer_module._TARGETS, False, 200_000)
    with repository.writer(NARROW) as writer:
        for number in range(60):
            store(writer, [noise(1000 + number, 50_000)])
            time.sleep(0.001)
        before = [key for key in storage.objects if key.startswith("index/")]
        assert len(before) >= 2
        assert len(writer._new) < 40
        writer.flush()
        assert writer.added.chunks == 60
        store(writer, [noise(1000 + number, 50_000) for number in range(60)])
        writer.flush()
        assert writer.added.chunks == 60
    assert len(opened(storage).index) == 60


def test_what_is_flushed_is_durable_and_indexed(repository: Repository, storage: MemoryStorage) -> None:
    with repository.writer(NARROW) as writer:
        for turn in range(3):
            ids = store(writer, CONTENTS[turn * 10 : turn * 10 + 10])
            writer.flush()
            other = opened(storage)
            assert [bytes(other.reader.read(one)) for one in ids] == CONTENTS[turn * 10 : turn * 10 + 10]
            other.close()


def test_packs_are_told_of_from_the_thread_that_fills_slots(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(writer_module._TARGETS, False, 200_000)
    threads = []
    with repository.writer(WIDE, on_pack=lambda: threads.append(threading.current_thread())) as writer:
        for number in range(20):
            store(writer, [noise(number, 250_000)])
            time.sleep(0.002)
        writer.flush()
    assert len(threads) > 1
    assert set(threads) == {threading.current_thread()}


def test_a_fault_of_on_pack_ends_the_run(repository: Repository) -> None:
    def lost() -> None:
        raise StorageError("the lease is lost")

    def run() -> None:
        with repository.writer(WIDE, on_pack=lost) as writer:
            store(writer, [noise(n, 3_000_000) for n in range(30)])
            writer.flush()

    with pytest.raises(StorageError, match="the lease is lost"):
        ending(run)


@pytest.mark.parametrize("options", [NARROW, WIDE, PipelineOptions(workers=4, uploads=1, slots=3)])
@pytest.mark.parametrize("fault", [Fail, FailFrom])
@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_a_put_that_fails_is_raised_and_every_thread_ends(
    storage: MemoryStorage, options: PipelineOptions, fault: type[Fail] | type[FailFrom], call: int
) -> None:
    new_repository(storage)
    repository = opened(FaultyStorage(storage, fault(call, "put", StorageDenied)))

    def run() -> None:
        with repository.writer(options) as writer:
            store(writer, [noise(n, 1_500_000) for n in range(40)])
            writer.flush()

    with no_thread_left(), pytest.raises(StorageDenied):
        ending(run)
    assert not [key for key in storage.objects if key.startswith("index/")] or call == 3


class _Slow(MemoryStorage):
    """Every pack takes its time, so that queues fill up."""

    seconds = 0.02

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        if key.startswith("packs/"):
            time.sleep(self.seconds)
        super().put(key, data)


@pytest.mark.parametrize("options", [NARROW, WIDE, PipelineOptions(workers=4, uploads=1, slots=3)])
@pytest.mark.parametrize("after", [0, 1, 5, 11, 17])
def test_an_interruption_ends_every_thread(options: PipelineOptions, after: int) -> None:
    storage = _Slow()
    repository = new_repository(storage)

    def run() -> None:
        with repository.writer(options) as writer:
            for number in range(18):
                if number == after:
                    raise KeyboardInterrupt
                store_one(writer, number)

    def store_one(writer: ChunkWriter, number: int) -> None:
        slot = writer.slot()
        slot[: 2 * 4_000_000] = noise(number, 8_000_000)
        writer.store(slot, [(0, 4_000_000), (4_000_000, 8_000_000)])

    with no_thread_left(), pytest.raises(KeyboardInterrupt):
        ending(run)


def test_a_writer_that_is_left_without_a_flush_leaves_the_repository_whole(
    repository: Repository, storage: MemoryStorage
) -> None:
    before = dict(storage.objects)
    with repository.writer(NARROW) as writer:
        store(writer, CONTENTS[:10])
    assert storage.objects == before
    assert stored(repository, CONTENTS[:10])


@settings(max_examples=60)
@given(
    workers=st.integers(1, 8),
    uploads=st.integers(1, 4),
    slots=st.integers(3, 12),
    memory=st.integers(0, 400 * 2**20),
)
def test_options_fit_into_memory_as_far_as_they_can(workers: int, uploads: int, slots: int, memory: int) -> None:
    options = PipelineOptions("gzip", 3, workers, uploads, slots)
    fitted = options.within(memory)
    least = PipelineOptions(workers=1, uploads=1, slots=3)
    assert fitted.memory <= max(memory, least.memory)
    assert (fitted.compression, fitted.level) == ("gzip", 3)
    assert fitted.workers <= workers
    assert fitted.uploads <= uploads
    assert fitted.slots <= slots
    assert min(fitted.workers, fitted.uploads) >= 1
    assert fitted.slots >= 3
    if options.memory <= memory:
        assert fitted == options


def test_buffers_keep_to_what_was_promised(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = writer_module.bytearray if hasattr(writer_module, "bytearray") else bytearray

    def counting(size: Any = 0) -> bytearray:
        if isinstance(size, int) and size >= MAX_CHUNK:
            made.append(size)
        return original(size)

    class Map(mmap):
        def __new__(cls, handle: int, size: int) -> Any:
            made.append(size)
            return super().__new__(cls, handle, size)

    monkeypatch.setattr(writer_module, "bytearray", counting, raising=False)
    monkeypatch.setattr(writer_module, "mmap", Map)
    stored(repository, [noise(n, 2_000_000) for n in range(40)], WIDE)
    assert sum(made) > PACK_TARGET
    assert sum(made) <= WIDE.memory + WIDE.workers + 64 * 1024
