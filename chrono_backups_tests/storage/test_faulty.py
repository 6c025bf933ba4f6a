"""Scripted faults strike where they are told to, and a fault that never struck is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ObjectExists, StorageDenied, StorageError, StorageFull, StorageUnavailable
from chrono_backups.storage.faulty import Cut, Delay, Fail, FailFrom, Fault, FaultyStorage, Flip
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups.storage.operations import Operation
from chrono_backups_tests.contracts.storage_contract import keys_of


def faulty(*faults: Fault) -> FaultyStorage:
    inner = MemoryStorage()
    inner.put("a", b"0123456789")
    inner.put("b", b"")
    inner.put("c", b"")
    return FaultyStorage(inner, *faults)


CALLS: dict[Operation, Callable[[FaultyStorage], object]] = {
    "put": lambda storage: storage.put("new", b"content"),
    "get": lambda storage: storage.get("a"),
    "info": lambda storage: storage.info("a"),
    "list": lambda storage: list(storage.list()),
    "delete": lambda storage: storage.delete("a"),
    "usage": lambda storage: storage.usage(),
}


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("after_effect", [False, True])
def test_every_operation_fails_at_its_call_and_no_other(operation: Operation, after_effect: bool) -> None:
    storage = faulty(Fail(1, operation, after_effect=after_effect))
    CALLS[operation](storage)
    if operation == "put":
        storage.delete("new")
    with pytest.raises(StorageUnavailable, match=f"scripted fault .*{operation} 1"):
        CALLS[operation](storage)
    if operation == "put" and after_effect:
        storage.delete("new")
    CALLS[operation](storage)
    assert storage.calls_of(operation) == 3
    storage.close()


def test_calls_are_counted_over_all_operations() -> None:
    storage = faulty(Fail(2, error=StorageFull))
    storage.get("a")
    storage.info("a")
    with pytest.raises(StorageFull):
        storage.delete("a")
    assert storage.get("a") == b"0123456789"
    assert storage.calls == 4
    storage.close()


def test_before_and_after_the_effect() -> None:
    storage = faulty(Fail(0, "put"), Fail(1, "put", after_effect=True), Fail(0, "delete", after_effect=True))
    with pytest.raises(StorageUnavailable):
        storage.put("new", b"content")
    assert "new" not in keys_of(storage.list())
    with pytest.raises(StorageUnavailable):
        storage.put("new", b"content")
    assert "new" in keys_of(storage.list())
    with pytest.raises(StorageUnavailable):
        storage.delete("a")
    assert "a" not in keys_of(storage.list())
    with pytest.raises(ObjectExists):
        storage.put("new", b"content")


def test_a_refusal_can_be_lost_as_well() -> None:
    storage = faulty(Fail(0, "put", after_effect=True))
    with pytest.raises(StorageUnavailable):
        storage.put("a", b"content")
    assert storage.get("a") == b"0123456789"


def test_a_listing_breaks_off_in_the_middle() -> None:
    storage = faulty(Fail(0, "list", after_effect=True))
    listing = storage.list()
    assert next(listing).key == "a"
    with pytest.raises(StorageUnavailable):
        next(listing)


def test_every_call_from_the_nth_on_fails() -> None:
    storage = faulty(FailFrom(1, error=StorageDenied))
    storage.get("a")
    for call in CALLS.values():
        with pytest.raises(StorageDenied):
            call(storage)
    assert "new" not in storage._inner.objects  # type: ignore[attr-defined]
    storage.close()


def test_killed_after_the_effect() -> None:
    inner = MemoryStorage()
    storage = FaultyStorage(inner, FailFrom(1, "put", after_effect=True))
    storage.put("a", b"")
    for key in ("b", "c"):
        with pytest.raises(StorageError):
            storage.put(key, b"")
    assert sorted(inner.objects) == ["a", "b"]


def test_the_loop_that_crash_tests_are_made_of() -> None:
    """Ends by itself, after exactly as many failures as the work has calls."""
    for call in count():
        inner = MemoryStorage()
        storage = FaultyStorage(inner, FailFrom(call))
        try:
            storage.put("a", b"")
            storage.put("b", b"")
            assert keys_of(storage.list()) == ["a", "b"]
        except StorageError:
            storage.close()
            assert len(inner.objects) == min(call, 2)
        if storage.unreached:
            break
    assert call == 3


def test_cut_and_flip() -> None:
    storage = faulty(Cut(0, keep=4), Flip(1, 3), Flip(2, -1, mask=0x80), Cut(3, keep=0))
    assert [bytes(storage.get("a")) for _ in range(5)] == [
        b"0123", b"0122456789", b"012345678\xb9", b"", b"0123456789",
    ]  # fmt: skip
    storage.close()


def test_damage_that_changes_nothing_was_not_reached() -> None:
    storage = faulty(Cut(0, keep=0), Flip(1, 0), Cut(2, keep=10), Flip(3, 10))
    for key in ("b", "b", "a", "a"):
        storage.get(key)
    assert len(storage.unreached) == 4


def test_delay() -> None:
    clock = FrozenClock()
    storage = FaultyStorage(MemoryStorage(), Delay(1, 7.5), clock=clock)
    storage.usage()
    assert clock.monotonic() == 0
    storage.usage()
    assert clock.monotonic() == 7.5
    storage.close()


@pytest.mark.parametrize(
    "fault", [Fail(2), Fail(0, "delete"), FailFrom(2), FailFrom(0, "usage"), Cut(1, 0), Flip(1, 0)]
)
def test_a_fault_never_reached_fails_the_test(fault: Fault) -> None:
    storage = faulty(fault)
    storage.get("a")
    storage.info("a")
    with pytest.raises(AssertionError, match=r"never reached.*1 get, 1 info"):
        storage.assert_all_reached()
    with pytest.raises(AssertionError, match="never reached"):
        storage.close()


def test_a_listing_nobody_read_reached_nothing() -> None:
    storage = faulty(Fail(0, "list"))
    storage.list()
    assert storage.unreached
