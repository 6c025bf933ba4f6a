"""Reading chunks: order, damage, and threads that end whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import cast

import pytest

from chrono_backups.errors import Damaged, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, noise, opened, packs
from chrono_backups_tests.repository.storing import CONTENTS, stored


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return new_repository(storage)


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


@pytest.mark.parametrize("bad", [0, 57, 99])
def test_neighbours_are_opened_together_and_each_is_proven(
    repository: Repository, storage: MemoryStorage, bad: int
) -> None:
    """Of some that shrink and some that don't; what was given stays as it is while others are opened."""
    contents = [noise(n, 30_000) if n % 3 == 0 else bytes([n]) * (20_000 + n) + noise(n, 500) for n in range(100)]
    ids = stored(repository, contents)
    assert [bytes(one) for one in list(opened(storage).reader.stream(ids))] == contents  # type: ignore[arg-type]
    key = damaged(storage, repository, ids[bad])
    found = list(opened(storage).reader.stream(ids))
    error = found[bad]
    assert isinstance(error, Damaged)
    assert error.key == key
    assert "authentication failed" in str(error)
    others = [n for n in range(100) if n != bad]
    assert [bytes(found[n]) for n in others] == [contents[n] for n in others]  # type: ignore[arg-type]


def test_a_content_that_was_stored_under_another_name_is_damage(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory failed between naming a chunk and sealing it: it opens, and is not what was to be kept."""
    contents = [noise(1, 70_000), b"text " * 20_000]
    names: dict[bytes, bytes] = {noise(1, 70_000): noise(2, 70_000), b"text " * 20_000: b"test " * 20_000}
    real = Keys.chunk_id
    with monkeypatch.context() as patched:
        patched.setattr(Keys, "chunk_id", lambda keys, content: real(keys, names.get(bytes(content), bytes(content))))
        ids = stored(repository, [*contents, noise(3, 1000)])
    assert ids[0] == repository.keys.chunk_id(noise(2, 70_000))
    found = list(repository.reader.stream(ids))
    for one in found[:2]:
        assert isinstance(one, Damaged) and "not the one that it is named by" in one.message
    assert found[2] == noise(3, 1000)


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
