"""Reading over several storages: the first that answers, and the next when it fails, at any moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import (
    ObjectMissing,
    RepositoryMissing,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from chrono_backups.events import Finding, Progress
from chrono_backups.storage.base import Storage
from chrono_backups.storage.fallback import FallbackStorage, Place, copies
from chrono_backups.storage.faulty import Fail, FailFrom, Fault, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage


class Told(list[Finding]):
    def __call__(self, event: Finding | Progress) -> None:
        assert isinstance(event, Finding)
        self.append(event)

    @property
    def subjects(self) -> list[tuple[str, str]]:
        return [(one.code, one.subject) for one in self]


def filled(name: str, count: int = 5) -> MemoryStorage:
    storage = MemoryStorage(name)
    for number in range(count):
        storage.put(f"packs/{number}", b"content of %d" % number)
    return storage


def place(storage: Storage, *faults: Fault, attempts: int = 8) -> Place:
    return Place(storage.name, lambda: FaultyStorage(storage, *faults), attempts=attempts, clock=FrozenClock())


def refusing(name: str, error: Callable[[], Exception]) -> Place:
    def refuse() -> Storage:
        raise error()

    return Place(name, refuse, attempts=1)


@pytest.mark.parametrize("error", [StorageUnavailable, StorageDenied])
def test_reading_goes_on_where_one_fails(error: type[StorageError]) -> None:
    told = Told()
    reading = FallbackStorage([place(filled("one"), FailFrom(2, error=error)), place(filled("two"))], told)
    assert [bytes(reading.get(f"packs/{number}")) for number in range(5)] == [b"content of %d" % n for n in range(5)]
    assert told.subjects == [("storage-given-up", "one")]
    assert "goes on from two" in told[0].message
    assert reading.name == "two"
    assert reading.info("packs/3").size == 12


def test_a_passing_fault_is_waited_out() -> None:
    told = Told()
    reading = FallbackStorage([place(filled("one"), Fail(0), Fail(1)), place(filled("two"))], told)
    assert reading.get("packs/0")
    assert reading.name == "one"
    assert told == []


def test_the_last_one_is_asked_as_long_as_is_usual() -> None:
    faults = [Fail(call) for call in range(7)]
    reading = FallbackStorage(
        [refusing("one", lambda: StorageUnavailable("one is down")), place(filled("two"), *faults)]
    )
    assert reading.get("packs/0")
    with pytest.raises(StorageUnavailable, match=r"one is down; nor could another storage be read: two: scripted"):
        FallbackStorage(
            [refusing("one", lambda: StorageUnavailable("one is down")), place(filled("two"), *faults, attempts=7)]
        ).get("packs/0")


def test_what_one_does_not_have_is_read_from_the_next_and_told_once() -> None:
    told = Told()
    one = filled("one")
    one.delete("packs/1")
    one.objects["packs/2"] = b"cut"
    reading = FallbackStorage([place(one), place(filled("two"))], told)
    for _ in range(2):
        assert reading.get("packs/1") == b"content of 1"
        assert reading.get("packs/2", 0, 12) == b"content of 2"
    assert told.subjects == [("read-elsewhere", "packs/1"), ("read-elsewhere", "packs/2")]
    assert "missing in one" in told[0].message
    assert reading.name == "one"
    with pytest.raises(ObjectMissing) as caught:
        reading.get("packs/9")
    assert caught.value.storage == "one"


def test_a_listing_goes_on_behind_what_it_gave() -> None:
    told = Told()
    broken = place(filled("one"), *(Fail(call, "list", after_effect=call == 0) for call in range(3)))
    reading = FallbackStorage([broken, place(filled("two", 6))], told)
    assert [info.key for info in reading.list("packs/")] == [f"packs/{number}" for number in range(6)]
    assert told.subjects == [("storage-given-up", "one")]


def test_copies_are_those_of_the_places_behind_the_first() -> None:
    told = Told()
    one, two, three = filled("one"), filled("two"), filled("three")
    two.delete("packs/0")
    reading = FallbackStorage([place(one), place(two), place(three)], told)
    assert reading.get("packs/0", 3, 4) == b"tent"
    assert list(copies(reading, "packs/0", 3, 4)) == [b"tent"]
    assert told.subjects == [("read-elsewhere", "packs/0")]
    assert "damaged in one, and read from three" in told[0].message
    assert list(copies(one, "packs/0")) == []


def test_a_place_is_opened_when_it_is_needed() -> None:
    opened = []

    def open_two() -> Storage:
        opened.append("two")
        return filled("two")

    reading = FallbackStorage([place(filled("one"), FailFrom(1)), Place("two", open_two, attempts=2)])
    reading.get("packs/0")
    assert opened == []
    reading.get("packs/0")
    reading.get("packs/1")
    assert opened == ["two"]


def test_one_that_holds_no_repository_is_passed_over() -> None:
    told = Told()
    reading = FallbackStorage([refusing("one", lambda: RepositoryMissing("one is empty")), place(filled("two"))], told)
    assert [info.key for info in reading.list()] == [f"packs/{number}" for number in range(5)]
    assert told.subjects == [("storage-given-up", "one")]
    with pytest.raises(RepositoryMissing, match="one is empty"):
        FallbackStorage([refusing("one", lambda: RepositoryMissing("one is empty"))]).get("packs/0")


def test_nothing_is_written() -> None:
    one, two = filled("one"), filled("two")
    reading = FallbackStorage([place(one), place(two)])
    with pytest.raises(StorageDenied, match="nothing is changed"):
        reading.put("a", b"")
    with pytest.raises(StorageDenied, match="nothing is changed"):
        reading.delete("packs/0")
    assert len(one.objects) == len(two.objects) == 5


def test_many_threads_fall_over_together() -> None:
    told = Told()
    reading = FallbackStorage(
        [place(filled("one", 50), FailFrom(40, error=StorageUnavailable)), place(filled("two", 50))], told
    )
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda number: bytes(reading.get(f"packs/{number % 50}")), range(400)))
    assert got == [b"content of %d" % (number % 50) for number in range(400)]
    assert told.subjects == [("storage-given-up", "one")]
    reading.close()


def test_closing_lets_go_of_all_that_were_opened_whatever_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def close(storage: MemoryStorage) -> None:
        closed.append(storage.name)
        if storage.name == "one":
            raise StorageUnavailable("the connection is gone")

    monkeypatch.setattr(MemoryStorage, "close", close)
    reading = FallbackStorage([place(filled("one", 1)), place(filled("two")), place(filled("three"))])
    assert reading.get("packs/0") == b"content of 0"
    assert reading.get("packs/4") == b"content of 4"  # the first has none of that name
    reading.close()
    assert closed == ["one", "two"]
