"""Writing and reading chunks: deduplication, order, damage, adoption, and threads that end whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from mmap import mmap
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.errors import Damaged, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.pipeline.chunking import MAX_CHUNK
from chrono_backups.pipeline.packing import PACK_TARGET
from chrono_backups.repository import writer as writer_module
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import SLOT_SIZE, ChunkWriter, PipelineOptions
from chrono_backups.storage.faulty import Fail, FailFrom, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import Heard, new_repository, noise, opened, packs

T = TypeVar("T")
WIDE = PipelineOptions(workers=4, uploads=2, slots=6)
NARROW = PipelineOptions(workers=1, uploads=1, slots=3)


def within(seconds: float, function: Callable[[], T]) -> T:
    """As in the crash tests: a deadlock is a failure."""
    from chrono_backups_tests.backup.test_crashes import within as guarded

    return guarded(seconds, function)


def store(writer: ChunkWriter, contents: list[bytes]) -> list[bytes]:
    """Hand in contents, slot by slot; their ids."""
    tickets = []
    cuts: list[tuple[int, int]] = []
    at, slot = 0, writer.slot()
    for content in contents:
        if at + len(content) > SLOT_SIZE:
            tickets.append(writer.store(slot, cuts))
            at, cuts, slot = 0, [], writer.slot()
        slot[at : at + len(content)] = content
        cuts.append((at, at + len(content)))
        at += len(content)
    tickets.append(writer.store(slot, cuts))
    return [chunk_id for ticket in tickets for chunk_id in writer.wait(ticket)]


def stored(repository: Repository, contents: list[bytes], options: PipelineOptions = NARROW) -> list[bytes]:
    with repository.writer(options) as writer:
        ids = store(writer, contents)
        writer.flush()
    return ids


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return new_repository(storage)


CONTENTS = [noise(n, 1000 + 37 * n) for n in range(200)]


# Writing.


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
    monkeypatch.setattr(writer_module, "PACK_TARGET", 200_000)
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
    monkeypatch.setattr(writer_module, "PACK_TARGET", 200_000)
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
        within(30, run)


@pytest.mark.parametrize("options", [NARROW, WIDE, PipelineOptions(workers=4, uploads=1, slots=3)])
@pytest.mark.parametrize("fault", [Fail, FailFrom])
@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_a_put_that_fails_is_raised_and_every_thread_ends(
    storage: MemoryStorage, options: PipelineOptions, fault: type[Fail] | type[FailFrom], call: int
) -> None:
    new_repository(storage)
    before = threading.active_count()
    repository = opened(FaultyStorage(storage, fault(call, "put", StorageDenied)))

    def run() -> None:
        with repository.writer(options) as writer:
            store(writer, [noise(n, 1_500_000) for n in range(40)])
            writer.flush()

    with pytest.raises(StorageDenied):
        within(60, run)
    assert threading.active_count() == before
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
    before = threading.active_count()

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

    with pytest.raises(KeyboardInterrupt):
        within(30, run)
    assert threading.active_count() == before


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


# Reading.


class _Counting(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[tuple[str, int, int | None]] = []

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        self.gets.append((key, offset, length))
        return super().get(key, offset, length)


def test_a_stream_keeps_its_order_and_repeats(repository: Repository) -> None:
    ids = stored(repository, CONTENTS)
    by_id = dict(zip(ids, CONTENTS, strict=True))
    wanted = [ids[(n * 7919) % len(ids)] for n in range(1500)] + ids[:3] * 50
    found = [bytes(content) for content in repository.reader.stream(wanted)]  # type: ignore[arg-type]
    assert found == [by_id[chunk_id] for chunk_id in wanted]


def test_a_stream_fetches_neighbours_together_and_nothing_twice() -> None:
    storage = _Counting()
    repository = new_repository(storage)
    ids = stored(repository, CONTENTS)
    assert len(repository.index) == len(CONTENTS)
    storage.gets.clear()
    assert len(list(repository.reader.stream(ids * 2))) == 2 * len(ids)
    assert len(storage.gets) == 1


def test_a_stream_is_read_ahead_by_no_more_than_it_should(repository: Repository) -> None:
    ids = stored(repository, [noise(n, 1_000_000) for n in range(80)])
    asked = 0

    def wanted() -> Iterator[bytes]:
        nonlocal asked
        for chunk_id in ids:
            asked += 1
            yield chunk_id

    stream = cast("Generator[object]", repository.reader.stream(wanted()))
    next(stream)
    assert asked < 30
    for _ in range(10):
        next(stream)
    assert asked < 40
    stream.close()


def test_a_stream_of_nothing(repository: Repository) -> None:
    assert list(repository.reader.stream([])) == []


def damaged(storage: MemoryStorage, repository: Repository, chunk_id: bytes) -> str:
    place = repository.index.find(chunk_id)
    assert place is not None
    key = f"packs/{place.pack.name}"
    data = bytearray(storage.objects[key])
    data[place.offset + place.sealed_size // 2] ^= 1
    storage.objects[key] = bytes(data)
    return key


def test_a_damaged_chunk_costs_itself_alone(repository: Repository, storage: MemoryStorage) -> None:
    ids = stored(repository, CONTENTS)
    key = damaged(storage, repository, ids[100])
    found = list(opened(storage).reader.stream(ids))
    error = found[100]
    assert isinstance(error, Damaged)
    assert error.key == key
    assert "at byte" in str(error)
    assert [bytes(one) for n, one in enumerate(found) if n != 100] == CONTENTS[:100] + CONTENTS[101:]  # type: ignore[arg-type]
    with pytest.raises(Damaged, match=key):
        opened(storage).reader.read(ids[100])


def test_an_unknown_chunk_costs_itself_alone(repository: Repository) -> None:
    ids = stored(repository, CONTENTS[:3])
    found = list(repository.reader.stream([ids[0], bytes(32), ids[1], bytes(32), ids[2]]))
    assert [bytes(one) for one in found if not isinstance(one, Damaged)] == CONTENTS[:3]
    assert [n for n, one in enumerate(found) if isinstance(one, Damaged)] == [1, 3]
    with pytest.raises(Damaged, match="in no pack"):
        repository.reader.read(bytes(32))


def test_a_missing_pack_costs_what_lay_in_it(repository: Repository, storage: MemoryStorage) -> None:
    first = stored(repository, CONTENTS[:10])
    second = stored(repository, CONTENTS[10:20])
    place = repository.index.find(first[0])
    assert place is not None
    del storage.objects[f"packs/{place.pack.name}"]
    found = list(opened(storage).reader.stream([one for pair in zip(first, second, strict=True) for one in pair]))
    assert all(isinstance(one, Damaged) and "is missing" in str(one) for one in found[::2])
    assert [bytes(one) for one in found[1::2]] == CONTENTS[10:20]  # type: ignore[arg-type]


def test_a_cut_pack_costs_what_lay_behind_the_cut(repository: Repository, storage: MemoryStorage) -> None:
    ids = stored(repository, CONTENTS[:20])
    place = repository.index.find(ids[12])
    assert place is not None
    key = f"packs/{place.pack.name}"
    storage.objects[key] = storage.objects[key][: place.offset + 5]
    found = list(opened(storage).reader.stream(ids))
    assert [bytes(one) for one in found[:12]] == CONTENTS[:12]  # type: ignore[arg-type]
    assert all(isinstance(one, Damaged) and one.key == key for one in found[12:])


def test_a_copy_in_another_pack_serves_where_one_is_damaged(repository: Repository, storage: MemoryStorage) -> None:
    ids = stored(repository, CONTENTS[:20])
    (key,) = packs(storage)
    good = storage.objects.pop(key)
    assert stored(opened(storage), CONTENTS[:20]) == ids  # anew, the pack being gone
    other = next(one for one in packs(storage))
    for first in (None, bytes(len(good)), good[:50]):
        if first is not None:
            storage.objects[key] = first
        assert [bytes(one) for one in opened(storage).reader.stream(ids)] == CONTENTS[:20]  # type: ignore[arg-type]
        assert bytes(opened(storage).reader.read(ids[5])) == CONTENTS[5]
    # And the other way round: the old one is back, the new one damaged.
    storage.objects[key] = good
    del storage.objects[other]
    assert [bytes(one) for one in opened(storage).reader.stream(ids)] == CONTENTS[:20]  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [StorageUnavailable, StorageDenied])
def test_a_storage_that_does_not_answer_is_no_damage(
    repository: Repository, storage: MemoryStorage, error: type[StorageError]
) -> None:
    ids = stored(repository, CONTENTS[:3])
    faulty = FaultyStorage(storage)
    reading = opened(faulty)
    assert len(reading.index) == 3
    failing = FaultyStorage(storage, FailFrom(0, "get", error))
    reading.reader._storage = failing
    with pytest.raises(error):
        list(reading.reader.stream(ids))
    with pytest.raises(error):
        reading.reader.read(ids[0])


def test_a_stream_that_is_given_up_lets_its_threads_be(repository: Repository) -> None:
    ids = stored(repository, CONTENTS)
    before = threading.active_count()
    for _ in range(5):
        stream = cast("Generator[object]", repository.reader.stream(ids))
        next(stream)
        stream.close()
    repository.reader.close()
    assert threading.active_count() <= before


# Adoption.


def without_index(storage: MemoryStorage) -> None:
    for key in [key for key in storage.objects if key.startswith("index/")]:
        del storage.objects[key]


def test_packs_that_no_index_names_are_adopted(repository: Repository, storage: MemoryStorage) -> None:
    ids = stored(repository, CONTENTS)
    without_index(storage)
    heard = Heard()
    with opened(storage).writer(NARROW, listener=heard) as writer:
        assert store(writer, CONTENTS) == ids
        writer.flush()
        assert writer.added.chunks == 0
    assert heard.findings == []
    assert [bytes(opened(storage).reader.read(one)) for one in ids[:5]] == CONTENTS[:5]


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-1], lambda data: data[:60], lambda data: b"", lambda data: bytes(len(data)),
     lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], lambda data: b"x" + data[1:]],
    ids=["cut by one", "cut short", "empty", "zeros", "directory", "header"],
)  # fmt: skip
def test_a_pack_that_does_not_open_is_not_adopted(
    repository: Repository, storage: MemoryStorage, spoil: Callable[[bytes], bytes]
) -> None:
    stored(repository, CONTENTS[:10])
    without_index(storage)
    (key,) = packs(storage)
    storage.objects[key] = spoil(storage.objects[key])
    heard = Heard()
    fresh = opened(storage)
    with fresh.writer(NARROW, listener=heard) as writer:
        ids = store(writer, CONTENTS[:10])
        writer.flush()
        assert writer.added.chunks == 10
    assert heard.codes == ["pack-not-adopted"]
    assert heard.findings[0].subject == key
    assert [bytes(one) for one in fresh.reader.stream(ids)] == CONTENTS[:10]  # type: ignore[arg-type]


def test_chunks_of_condemned_packs_are_stored_anew_without_a_word(
    repository: Repository, storage: MemoryStorage
) -> None:
    ids = stored(repository, CONTENTS[:10])
    repository.condemn(repository.index.packs())
    heard = Heard()
    with opened(storage).writer(NARROW, listener=heard) as writer:
        assert store(writer, CONTENTS[:10]) == ids
        writer.flush()
        assert writer.added.chunks == 10
    assert heard.findings == []
    assert len(packs(storage)) == 2


def test_a_condemned_pack_is_not_adopted(repository: Repository, storage: MemoryStorage) -> None:
    stored(repository, CONTENTS[:10])
    repository.condemn(repository.index.packs())
    without_index(storage)
    with opened(storage).writer(NARROW):
        pass
    assert not [key for key in storage.objects if key.startswith("index/")]


def test_two_writers_may_store_the_same_chunk(storage: MemoryStorage) -> None:
    new_repository(storage)
    first, second = opened(storage), opened(storage)
    with first.writer(NARROW) as one, second.writer(NARROW) as other:
        ids = store(one, CONTENTS[:10])
        assert store(other, CONTENTS[:10]) == ids
        one.flush()
        other.flush()
    fresh = opened(storage)
    assert all(len(set(fresh.index.find_all(chunk_id))) == 2 for chunk_id in ids)
    assert [bytes(one) for one in fresh.reader.stream(ids)] == CONTENTS[:10]  # type: ignore[arg-type]
