"""Packs that no index names, or that are condemned, and who takes them over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chrono_backups.repository.repository import Repository
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import Heard, new_repository, opened, packs
from chrono_backups_tests.repository.storing import CONTENTS, NARROW, store, stored


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return new_repository(storage)


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
