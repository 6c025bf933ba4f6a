"""What a storage that locks must hold. A driver joins by saying how it is opened with locks::

    class TestLockingMemoryStorage(LockingStorageContract):
        @pytest.fixture
        def storage(self, clock):
            return MemoryStorage(lock_days=LOCK_DAYS, clock=clock)

The locks' end is never waited for: a server has a clock of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.errors import ObjectExists, ObjectLocked, ObjectMissing
from chrono_backups.storage.base import LockingStorage

LOCK_DAYS = 30
_SLACK = timedelta(minutes=5)


class LockingStorageContract:
    @pytest.fixture
    def storage(self) -> LockingStorage:
        raise NotImplementedError

    def now(self, storage: LockingStorage) -> datetime:
        """What the storage takes for the present."""
        return datetime.now(UTC)

    def test_it_says_for_how_long(self, storage: LockingStorage) -> None:
        assert storage.lock_days == LOCK_DAYS

    def test_what_is_put_is_locked(self, storage: LockingStorage) -> None:
        storage.put("a/b", b"content")
        until = storage.locked_until("a/b")
        assert until is not None
        assert until.tzinfo is not None
        assert abs(until - self.now(storage) - timedelta(days=LOCK_DAYS)) < _SLACK

    def test_it_can_not_be_deleted_and_says_until_when(self, storage: LockingStorage) -> None:
        storage.put("a", b"content")
        with pytest.raises(ObjectLocked) as caught:
            storage.delete("a")
        assert caught.value.key == "a"
        assert caught.value.storage == storage.name
        assert abs(caught.value.until - self.now(storage) - timedelta(days=LOCK_DAYS)) < _SLACK
        assert bytes(storage.get("a")) == b"content"
        assert [info.key for info in storage.list()] == ["a"]

    def test_it_can_not_be_put_again(self, storage: LockingStorage) -> None:
        storage.put("a", b"content")
        with pytest.raises(ObjectExists):
            storage.put("a", b"other")
        assert bytes(storage.get("a")) == b"content"

    def test_a_lock_is_extended_and_never_made_shorter(self, storage: LockingStorage) -> None:
        storage.put("a", b"content")
        later = (self.now(storage) + timedelta(days=2 * LOCK_DAYS)).replace(microsecond=0)
        storage.extend_lock("a", later)
        assert storage.locked_until("a") == later
        storage.extend_lock("a", later - timedelta(days=LOCK_DAYS))
        assert storage.locked_until("a") == later

    def test_what_is_not_there(self, storage: LockingStorage) -> None:
        with pytest.raises(ObjectMissing):
            storage.locked_until("a")
        with pytest.raises(ObjectMissing):
            storage.extend_lock("a", self.now(storage) + timedelta(days=1))
        storage.delete("a")
