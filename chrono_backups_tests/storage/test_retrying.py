"""What is asked again, how often, after how long; and the put whose answer was lost."""

from __future__ import annotations

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.faulty import Cut, Fail, FailFrom, Fault, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups_tests.contracts.storage_contract import keys_of


class Chance(FrozenClock):
    """A clock whose chance is always the same: 0.0 the least, 1.0 the most."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._chance = chance

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        most = 1 << 8 * count
        return min(most - 1, int(self._chance * most)).to_bytes(count, "big")


def retrying(
    *faults: Fault, clock: Chance, attempts: int = 5, longest: float = 60.0
) -> tuple[RetryingStorage, FaultyStorage]:
    inner = MemoryStorage()
    inner.put("there", b"content")
    faulty = FaultyStorage(inner, *faults)
    return RetryingStorage(faulty, attempts=attempts, first_wait=1.0, longest_wait=longest, clock=clock), faulty


def busy_for(seconds: object) -> StorageUnavailable:
    error = StorageUnavailable("busy")
    error.retry_after = seconds  # type: ignore[assignment]
    return error


@pytest.mark.parametrize("error", [StorageError, StorageDenied, StorageFull, ObjectMissing, ObjectExists])
def test_nothing_but_unavailability_is_retried(error: type[StorageError]) -> None:
    clock = Chance(1.0)
    storage, faulty = retrying(
        *(Fail(0, operation, error) for operation in ("put", "get", "info", "list")), clock=clock
    )
    for call in (
        lambda: storage.put("a", b""),
        lambda: storage.get("there"),
        lambda: storage.info("there"),
        lambda: list(storage.list()),
    ):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error
    assert clock.waits == []
    assert faulty.calls == 4
    storage.close()


def test_every_operation_is_retried() -> None:
    clock = Chance(1.0)
    faults = [Fail(0, operation) for operation in ("put", "get", "info", "list", "delete", "usage")]
    storage, faulty = retrying(*faults, clock=clock)
    storage.put("a", b"content")
    assert storage.get("a", 3, 2) == b"te"
    assert storage.info("a").size == 7
    assert keys_of(storage.list()) == ["a", "there"]
    storage.delete("a")
    assert storage.usage().used == 7
    assert faulty.calls == 12
    assert len(clock.waits) == 6
    storage.close()


@pytest.mark.parametrize(
    ("chance", "longest", "expected"),
    [
        (1.0, 60.0, [1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (0.5, 60.0, [0.75, 1.5, 3, 6, 12, 24, 45, 45, 45]),
        (0.0, 60.0, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]),
        (1.0, 5.0, [1, 2, 4, 5, 5, 5, 5, 5, 5]),
    ],
)
def test_waits_grow_to_a_bound_and_half_of_each_is_chance(chance: float, longest: float, expected: list[float]) -> None:
    clock = Chance(chance)
    storage, faulty = retrying(FailFrom(0, error=StorageUnavailable), clock=clock, attempts=10, longest=longest)
    with pytest.raises(StorageUnavailable, match="scripted"):
        storage.get("there")
    assert clock.waits == pytest.approx(expected, rel=1e-6)
    assert faulty.calls == 10


def test_one_attempt_is_one_call() -> None:
    clock = Chance(1.0)
    storage, faulty = retrying(FailFrom(0, error=StorageUnavailable), clock=clock, attempts=1)
    with pytest.raises(StorageUnavailable):
        storage.info("there")
    assert (faulty.calls, clock.waits) == (1, [])
    with pytest.raises(ValueError, match="attempt"):
        RetryingStorage(MemoryStorage(), attempts=0)


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(10, 10), (10.5, 10.5), (0.25, 1), (1e9, 60), (-5, 1), (None, 1), ("soon", 1), (float("nan"), 1)],
)
def test_the_storages_own_wish_is_honoured_within_the_bound(asked: object, waited: float) -> None:
    clock = Chance(1.0)
    storage, _ = retrying(Fail(0, error=lambda _: busy_for(asked)), clock=clock)
    storage.info("there")
    assert clock.waits == pytest.approx([waited])


def test_retries_are_told() -> None:
    told: list[tuple[str, float]] = []
    storage = RetryingStorage(
        FaultyStorage(MemoryStorage(), Fail(0)),
        first_wait=3.0,
        clock=Chance(1.0),
        on_retry=lambda error, seconds: told.append((type(error).__name__, round(seconds, 3))),
    )
    storage.usage()
    assert told == [("StorageUnavailable", 3.0)]


class TestLostAnswers:
    def test_a_put_that_took_effect_succeeds(self) -> None:
        storage, faulty = retrying(Fail(0, "put", after_effect=True), clock=Chance(1.0))
        storage.put("a", bytearray(b"content"))
        assert faulty.calls_of("put") == 2
        assert storage.get("a") == b"content"
        storage.close()

    def test_also_when_the_look_fails_at_first(self) -> None:
        faults = Fail(0, "put", after_effect=True), Fail(0, "info"), Fail(0, "get")
        storage, faulty = retrying(*faults, clock=Chance(1.0))
        storage.put("a", memoryview(b"content"))
        assert storage.get("a") == b"content"
        assert faulty.calls_of("info") >= 2 and faulty.calls_of("get") >= 2  # each fault came about
        storage.close()

    @pytest.mark.parametrize("others", [b"CONTENT", b"content, longer", b""])
    def test_anothers_object_is_not_taken_for_ones_own(self, others: bytes) -> None:
        inner = MemoryStorage()

        class Overtaken(MemoryStorage):
            def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
                if key not in inner.objects:
                    inner.put(key, others)
                    raise StorageUnavailable("the request was lost, and another writer came first")
                inner.put(key, data)

        storage = Overtaken()
        storage.objects = inner.objects
        with pytest.raises(ObjectExists):
            RetryingStorage(storage, clock=Chance(0.0)).put("a", b"content")
        assert inner.objects["a"] == others

    def test_what_was_there_before_is_never_taken_for_ones_own(self) -> None:
        storage, faulty = retrying(clock=Chance(1.0))
        with pytest.raises(ObjectExists):
            storage.put("there", b"content")
        assert faulty.calls == 1
        # Not in the next call either: what was lost in one call says nothing about another.
        storage, _ = retrying(Fail(0, "put", after_effect=True), clock=Chance(1.0))
        storage.put("a", b"content")
        with pytest.raises(ObjectExists):
            storage.put("a", b"content")

    def test_bytes_that_came_back_damaged_are_not_ones_own(self) -> None:
        storage, _ = retrying(Fail(0, "put", after_effect=True), Cut(0, keep=3), clock=Chance(1.0))
        with pytest.raises(ObjectExists):
            storage.put("a", b"content")

    def test_gone_again_when_looked_at(self) -> None:
        storage, _ = retrying(Fail(0, "put", after_effect=True), Fail(0, "info", ObjectMissing), clock=Chance(1.0))
        with pytest.raises(ObjectExists):
            storage.put("a", b"content")

    def test_a_delete_that_took_effect_succeeds(self) -> None:
        storage, _ = retrying(Fail(0, "delete", after_effect=True), clock=Chance(1.0))
        storage.delete("there")
        assert list(storage.list()) == []


class TestBrokenListings:
    KEYS = ("a", "b", "c", "d", "there")

    def test_is_taken_up_behind_the_last_key(self) -> None:
        storage, faulty = retrying(
            *(Fail(call, "list", after_effect=call % 2 == 0) for call in range(4)), clock=Chance(1.0)
        )
        for key in self.KEYS[:-1]:
            storage.put(key, b"")
        assert keys_of(storage.list()) == list(self.KEYS)
        assert faulty.calls_of("list") == 5
        storage.close()

    def test_progress_starts_the_attempts_anew(self) -> None:
        class OneAtATime(MemoryStorage):
            def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
                for number, info in enumerate(super().list(prefix)):
                    if info.key > self.given and number >= 0:
                        self.given = info.key
                        yield info
                        raise StorageUnavailable("one object per connection")
                    yield info

            given = ""

        inner = OneAtATime()
        for key in self.KEYS:
            inner.put(key, b"")
        assert keys_of(RetryingStorage(inner, attempts=2, clock=Chance(0.0)).list()) == list(self.KEYS)

    def test_no_progress_ends_it(self) -> None:
        storage, faulty = retrying(FailFrom(0, "list", StorageUnavailable), clock=Chance(1.0), attempts=3)
        with pytest.raises(StorageUnavailable):
            list(storage.list())
        assert faulty.calls_of("list") == 3
