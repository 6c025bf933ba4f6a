"""Locks in memory, and through every wrapper."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ObjectLocked, StorageError, StorageUnavailable
from chrono_backups.storage.base import LockingStorage, Storage
from chrono_backups.storage.faulty import Fail, FaultyStorage
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until
from chrono_backups.storage.memory import EventuallyConsistentStorage, MemoryStorage
from chrono_backups.storage.metered import MeteredStorage
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups.storage.throttled import Bandwidth, ThrottledStorage
from chrono_backups_tests.contracts.locking_storage_contract import LOCK_DAYS, LockingStorageContract

WRAPPERS: dict[str, Callable[[Storage], LockingStorage]] = {
    "retrying": RetryingStorage,
    "metered": MeteredStorage,
    "faulty": FaultyStorage,
    "throttled": lambda inner: ThrottledStorage(inner, Bandwidth(100_000)),
    "eventually consistent": lambda inner: EventuallyConsistentStorage(inner, lag=0),
    "all": lambda inner: MeteredStorage(RetryingStorage(ThrottledStorage(FaultyStorage(inner), Bandwidth(100_000)))),
}


class FrozenContract(LockingStorageContract):
    clock = FrozenClock()

    def now(self, storage: LockingStorage) -> datetime:
        return self.clock.now()


class TestMemoryStorage(FrozenContract):
    @pytest.fixture
    def storage(self) -> LockingStorage:
        return MemoryStorage(lock_days=LOCK_DAYS, clock=self.clock)


class TestWrappers(FrozenContract):
    @pytest.fixture(params=WRAPPERS)
    def storage(self, request: pytest.FixtureRequest) -> LockingStorage:
        return WRAPPERS[request.param](MemoryStorage(lock_days=LOCK_DAYS, clock=self.clock))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_where_there_are_no_locks_none_are_made_up(wrapper: str) -> None:
    class Plain:
        """A storage without the locks' methods, as the local one is."""

        name = "plain"

        def delete(self, key: str) -> None:
            del key

    storage = WRAPPERS[wrapper](Plain())  # type: ignore[arg-type]
    assert lock_days(storage) == 0
    assert locked_until(storage, "a") is None
    with pytest.raises(StorageError, match="plain can't lock"):
        extend_lock(storage, "a", FrozenClock().now())


def test_when_the_time_has_come_it_goes() -> None:
    clock = FrozenClock()
    storage = MemoryStorage(lock_days=1, clock=clock)
    storage.put("a", b"content")
    clock.advance(timedelta(days=1))
    assert storage.locked_until("a") is None
    storage.delete("a")
    assert list(storage.list()) == []


def test_asking_for_locks_is_repeated_and_a_refusal_is_not() -> None:
    clock = FrozenClock()
    memory = MemoryStorage(lock_days=1, clock=clock)
    memory.put("a", b"content")
    faulty = FaultyStorage(memory, Fail(0, "locked_until"), Fail(0, "extend_lock", StorageUnavailable))
    storage = RetryingStorage(faulty, clock=clock)
    later = clock.now() + timedelta(days=9)
    assert storage.locked_until("a") is not None
    storage.extend_lock("a", later)
    assert memory.locks["a"] == later
    with pytest.raises(ObjectLocked):
        storage.delete("a")
    assert faulty.calls_of("delete") == 1
    faulty.assert_all_reached()
