"""The figures are right, also under threads, and do not change once taken."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ObjectMissing, StorageUnavailable
from chrono_backups.storage.faulty import Delay, Fail, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups.storage.metered import MeteredStorage
from chrono_backups.storage.operations import OPERATIONS


def test_calls_bytes_and_errors() -> None:
    storage = MeteredStorage(FaultyStorage(MemoryStorage("local"), Fail(1, "put")))
    storage.put("a", b"0123456789")
    with pytest.raises(StorageUnavailable):
        storage.put("b", b"not counted")
    storage.put("c", memoryview(bytes(400)).cast("I"))
    storage.get("a", 2, 5)
    for _ in range(2):
        with pytest.raises(ObjectMissing):
            storage.get("missing")
    storage.info("a")
    assert len(list(storage.list())) == 2
    storage.usage()
    storage.delete("a")
    metrics = storage.metrics()
    assert (metrics.storage, metrics.bytes_up, metrics.bytes_down) == ("local", 410, 5)
    assert {operation: metrics.operations[operation].calls for operation in OPERATIONS} == {
        "put": 3, "get": 3, "info": 1, "list": 1, "delete": 1, "usage": 1,
        "locked_until": 0, "extend_lock": 0,
    }  # fmt: skip
    assert metrics.operations["put"].errors == {"StorageUnavailable": 1}
    assert metrics.operations["get"].errors == {"ObjectMissing": 2}
    assert metrics.operations["get"].error_count == 2
    assert metrics.operations["info"].errors == {}


def test_seconds_are_those_of_the_storage() -> None:
    clock = FrozenClock()
    delays = [Delay(0, 2.0, "put"), Delay(1, 3.0, "put"), Delay(0, 5.0, "list")]
    storage = MeteredStorage(FaultyStorage(MemoryStorage(), *delays, clock=clock), clock=clock)
    storage.put("a", b"")
    storage.put("b", b"")
    for _ in storage.list():
        clock.sleep(100)  # the reader's own time
    metrics = storage.metrics()
    assert metrics.operations["put"].seconds == 5.0
    assert metrics.operations["list"].seconds == 5.0
    assert metrics.operations["get"].seconds == 0.0


def test_listings_that_fail_or_are_given_up_count() -> None:
    inner = MemoryStorage()
    for key in "abc":
        inner.put(key, b"")
    storage = MeteredStorage(FaultyStorage(inner, Fail(0, "list", after_effect=True)))
    with pytest.raises(StorageUnavailable):
        list(storage.list())
    listing = storage.list()
    next(listing)
    del listing
    with pytest.raises(ValueError, match="key"):
        list(storage.list("../"))
    figures = storage.metrics().operations["list"]
    assert figures.calls == 3
    assert figures.errors == {"StorageUnavailable": 1, "ValueError": 1}


def test_a_reading_never_changes() -> None:
    storage = MeteredStorage(MemoryStorage())
    storage.put("a", b"content")
    before = storage.metrics()
    with pytest.raises(ObjectMissing):
        storage.get("missing")
    storage.put("b", b"content")
    assert (before.bytes_up, before.operations["put"].calls, before.operations["get"].errors) == (7, 1, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.bytes_up = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.operations["put"] = before.operations["get"]  # type: ignore[index]


def test_threads_lose_no_count() -> None:
    storage = MeteredStorage(MemoryStorage())

    def work(worker: int) -> None:
        for number in range(200):
            storage.put(f"{worker}/{number}", b"12345")
            storage.get(f"{worker}/{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    metrics = storage.metrics()
    assert (metrics.bytes_up, metrics.bytes_down) == (8000, 8000)
    assert metrics.operations["put"].calls == metrics.operations["get"].calls == 1600
