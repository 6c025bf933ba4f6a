"""What a storage with locks must hold. A driver joins with ``open_locking``: lock days → an instance over one place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.errors import ObjectExists, ObjectLocked, ObjectMissing, StorageError
from chrono_backups.storage.base import LockingStorage, ObjectInfo

OpenLocking = Callable[[int], LockingStorage]

SOON = timedelta(minutes=1)


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


class LockingContract:
    @pytest.fixture
    def open_locking(self) -> OpenLocking:
        raise NotImplementedError

    @pytest.fixture
    def storage(self, open_locking: OpenLocking) -> LockingStorage:
        return open_locking(10)

    def until(self, storage: LockingStorage, key: str) -> datetime:
        until = storage.locked_until(key)
        assert until is not None
        assert until.tzinfo is not None
        return until

    def test_what_is_put_is_locked(self, storage: LockingStorage) -> None:
        storage.put("packs/a", b"content")
        assert abs(self.until(storage, "packs/a") - in_days(10)) < SOON
        assert bytes(storage.get("packs/a")) == b"content"
        assert list(storage.list()) == [ObjectInfo("packs/a", 7)]

    def test_a_locked_object_is_not_deleted(self, storage: LockingStorage) -> None:
        storage.put("packs/a", b"content")
        with pytest.raises(ObjectLocked, match="packs/a") as caught:
            storage.delete("packs/a")
        assert caught.value.until == self.until(storage, "packs/a")
        assert (caught.value.operation, caught.value.key) == ("delete", "packs/a")
        assert bytes(storage.get("packs/a")) == b"content"
        with pytest.raises(ObjectExists):
            storage.put("packs/a", b"other")

    def test_what_is_only_of_the_moment_is_not_locked(self, storage: LockingStorage) -> None:
        for key in ("leases/a", "pins/a", "condemned/a", "forgotten/a"):
            storage.put(key, b"content")
            assert storage.locked_until(key) is None
            storage.delete(key)
        assert list(storage.list()) == []

    def test_a_lock_is_extended_and_never_shortened(self, storage: LockingStorage) -> None:
        storage.put("a", b"content")
        storage.extend_lock("a", in_days(20))
        extended = self.until(storage, "a")
        assert abs(extended - in_days(20)) < SOON
        storage.extend_lock("a", in_days(5))
        storage.extend_lock("a", extended)
        assert self.until(storage, "a") == extended
        storage.extend_lock("a", in_days(20.5))
        assert self.until(storage, "a") >= in_days(20.4)

    def test_an_extended_lock_lasts_until_the_time_asked_for_at_least(self, storage: LockingStorage) -> None:
        storage.put("a", b"content")
        asked = in_days(20).replace(microsecond=999_999)
        storage.extend_lock("a", asked)
        assert timedelta(0) <= self.until(storage, "a") - asked < timedelta(seconds=2)

    def test_what_was_stored_without_a_lock_can_get_one(self, open_locking: OpenLocking) -> None:
        plain = open_locking(0)
        plain.put("a", b"content")
        assert plain.locked_until("a") is None
        plain.extend_lock("a", in_days(3))
        assert abs(self.until(plain, "a") - in_days(3)) < SOON
        locking = open_locking(10)
        with pytest.raises(ObjectLocked):
            locking.delete("a")

    def test_without_lock_days_nothing_is_locked(self, open_locking: OpenLocking) -> None:
        plain = open_locking(0)
        assert plain.lock_days == 0
        plain.put("a", b"content")
        assert plain.locked_until("a") is None
        plain.delete("a")
        assert list(plain.list()) == []

    def test_what_is_not_there(self, storage: LockingStorage) -> None:
        with pytest.raises(ObjectMissing):
            storage.locked_until("a")
        with pytest.raises(ObjectMissing):
            storage.extend_lock("a", in_days(1))
        storage.delete("a")

    def test_a_name_that_is_none(self, storage: LockingStorage) -> None:
        with pytest.raises(ValueError, match="key"):
            storage.locked_until("../a")
        with pytest.raises(ValueError, match="key"):
            storage.extend_lock("../a", in_days(1))

    def test_a_lock_that_ran_out(self, storage: LockingStorage) -> None:
        storage.put("a", b"content")
        self.let_it_run_out("a")
        assert storage.locked_until("a") is None
        storage.delete("a")
        with pytest.raises(ObjectMissing):
            storage.get("a")
        assert list(storage.list()) == []
        storage.put("a", b"again")
        assert bytes(storage.get("a")) == b"again"

    def let_it_run_out(self, key: str) -> None:
        raise NotImplementedError

    def test_the_error_is_a_storages(self, storage: LockingStorage) -> None:
        storage.put("a", b"")
        with pytest.raises(StorageError) as caught:
            storage.delete("a")
        assert caught.value.storage == storage.name
