"""The storages in memory, beyond the contract."""

from __future__ import annotations

import pytest

from chrono_backups.errors import ObjectExists, StorageError
from chrono_backups.storage.memory import EventuallyConsistentStorage, MemoryStorage
from chrono_backups_tests.contracts.storage_contract import keys_of


def test_an_object_and_a_folder_of_one_name_are_refused_as_on_a_disk() -> None:
    storage = MemoryStorage()
    storage.put("a/b", b"content")
    with pytest.raises(StorageError, match="both an object and a folder") as caught:
        storage.put("a", b"content")
    assert not isinstance(caught.value, ObjectExists)
    with pytest.raises(StorageError, match="both an object and a folder"):
        storage.put("a/b/c", b"content")


def test_what_a_test_damages_is_what_is_read() -> None:
    storage = MemoryStorage("victim")
    storage.put("a", b"content")
    storage.objects["a"] = b"cont"
    assert storage.get("a") == b"cont"
    del storage.objects["a"]
    assert list(storage.list()) == []
    assert storage.name == "victim"


class TestEventuallyConsistentStorage:
    def test_a_put_is_listed_after_so_many_lists(self) -> None:
        storage = EventuallyConsistentStorage(MemoryStorage(), lag=2)
        storage.put("a", b"content")
        assert storage.get("a") == b"content"
        assert storage.info("a").size == 7
        assert [keys_of(storage.list()) for _ in range(4)] == [[], [], ["a"], ["a"]]

    def test_each_change_lags_for_itself(self) -> None:
        storage = EventuallyConsistentStorage(MemoryStorage(), lag=2)
        storage.put("a", b"")
        assert keys_of(storage.list("b")) == []
        storage.put("b", b"")
        assert [keys_of(storage.list()) for _ in range(3)] == [[], ["a"], ["a", "b"]]

    def test_a_deleted_object_stays_in_sight_for_as_long(self) -> None:
        storage = EventuallyConsistentStorage(MemoryStorage(), lag=1)
        storage.put("a", b"content")
        storage.settle()
        storage.delete("a")
        listed = list(storage.list())
        assert [(info.key, info.size) for info in listed] == [("a", 7)]
        assert list(storage.list()) == []

    def test_put_and_deleted_before_any_list_is_never_seen(self) -> None:
        storage = EventuallyConsistentStorage(MemoryStorage(), lag=2)
        storage.put("a", b"content")
        storage.delete("a")
        assert [keys_of(storage.list()) for _ in range(4)] == [[], [], [], []]

    def test_a_negative_lag_is_refused(self) -> None:
        with pytest.raises(ValueError, match="lag"):
            EventuallyConsistentStorage(MemoryStorage(), lag=-1)
