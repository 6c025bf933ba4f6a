"""A storage is tried out: what is wrong with it is found, what the account may do is told, nothing is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ObjectExists, StorageDenied, StorageUnavailable
from chrono_backups.storage.base import ObjectInfo, Storage
from chrono_backups.storage.borrowed_place import borrowed_place
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import EventuallyConsistentStorage, MemoryStorage
from chrono_backups.storage.probe import ProbeReport, probe

SIZE = 200_000


class Overwriting(MemoryStorage):
    """It has never heard of create-once."""

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        self.objects[key] = bytes(data)


class Pretending(MemoryStorage):
    """It looks first and writes then: one after the other it does right."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Barrier(2)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        if key in self.objects:
            raise ObjectExists(f"{key} exists", storage=self.name, operation="put", key=key)
        if "/race/" in key:  # until another one has looked, too
            with suppress(threading.BrokenBarrierError):
                self.looked.wait(10)
        self.objects[key] = bytes(data)


class WithoutDelete(MemoryStorage):
    def delete(self, key: str) -> None:
        raise StorageDenied(f"may not delete {key}", storage=self.name, operation="delete", key=key)


class Forgetting(MemoryStorage):
    """What was deleted stays for a while."""

    def delete(self, key: str) -> None:
        if not key.endswith("once"):
            super().delete(key)


class Short(MemoryStorage):
    """A range beyond the end is answered with what there is."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        content = super().get(key)
        return content[offset:] if length is None else content[offset : offset + length]


class Lying(MemoryStorage):
    """Says that it locks, and does not."""

    def extend_lock(self, key: str, until: datetime) -> None:
        self.locks[key] = until

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)


def tried(storage: Storage, *, locks: bool = False) -> ProbeReport:
    return probe(lambda: storage, size=SIZE, locks=locks)


def failed(report: ProbeReport) -> list[str]:
    return [step.name for step in report.steps if not step.ok]


def test_one_that_is_well(tmp_path: Path) -> None:
    for storage in (MemoryStorage(), LocalStorage(tmp_path)):
        report = tried(storage)
        assert report.ok
        assert report.may_delete
        assert report.may_lock is None
        assert report.upload > 0 < report.download
        assert report.left_behind == ()
        assert list(storage.list()) == []
        assert report.to_json()["rights"] == {"read": True, "write": True, "list": True, "delete": True, "lock": None}


@pytest.mark.parametrize(
    ("storage", "steps"),
    [
        (Overwriting, ["create once", "race"]),
        (Pretending, ["race"]),
        (Forgetting, ["delete"]),
        (Short, ["write and read"]),
        (lambda: EventuallyConsistentStorage(MemoryStorage(), lag=3), ["write and read"]),
    ],
    ids=["overwriting", "pretending", "forgetting", "short", "listing late"],
)
def test_what_is_wrong_is_found(storage: Callable[[], Storage], steps: list[str]) -> None:
    report = tried(storage())
    assert failed(report) == steps
    assert not report.ok


def test_a_store_that_only_pretends_is_called_so() -> None:
    race = next(step for step in tried(Pretending()).steps if step.name == "race")
    assert "only pretends" in race.message


def test_a_writer_that_may_not_delete_is_a_fact_and_no_failure() -> None:
    storage = WithoutDelete()
    report = tried(storage)
    assert report.ok
    assert not report.may_delete
    assert set(report.left_behind) == set(storage.objects)
    assert all(key.startswith("storage-test/") for key in storage.objects)


def test_what_can_not_be_reached_or_written_is_an_error() -> None:
    for fault, expected in ((StorageUnavailable, StorageUnavailable), (StorageDenied, StorageDenied)):
        inner = MemoryStorage()
        with pytest.raises(expected):
            tried(FaultyStorage(inner, FailFrom(0, "list", fault)))
        with pytest.raises(expected):
            tried(FaultyStorage(inner, FailFrom(0, "put", fault)))
        assert inner.objects == {}


def test_cut_off_in_the_midst_it_cleans_up() -> None:
    inner = MemoryStorage()
    with pytest.raises(StorageUnavailable):
        tried(FaultyStorage(inner, FailFrom(20, "put", StorageUnavailable)))
    assert inner.objects == {}


def test_locks_are_tried_for_seconds_and_waited_out() -> None:
    clock = FrozenClock()
    storage = MemoryStorage(clock=clock)
    report = probe(lambda: storage, size=SIZE, locks=True, clock=clock)
    assert report.ok
    assert report.may_lock is True
    assert report.left_behind == ()
    assert 0 < clock.monotonic() < 20


def test_locks_that_are_none() -> None:
    assert failed(tried(Lying(), locks=True)) == ["lock"]

    class Plain:
        def __init__(self) -> None:
            self._inner = MemoryStorage("plain")
            self.name, self.location = "plain", "here"
            for name in ("put", "get", "info", "list", "delete", "usage", "close"):
                setattr(self, name, getattr(self._inner, name))

    report = tried(Plain(), locks=True)  # type: ignore[arg-type]
    assert failed(report) == ["lock"]
    assert report.may_lock is False


def test_a_place_is_borrowed_and_given_back(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    with borrowed_place(root, lambda: LocalStorage(root).close()) as made:
        assert made
        assert tried(LocalStorage(root, create=False)).ok
        assert any(root.iterdir())
    assert list(tmp_path.iterdir()) == []
    LocalStorage(root).put("repository", b"x")
    with borrowed_place(root, lambda: pytest.fail("it is there")) as made:
        assert not made
        assert tried(LocalStorage(root, create=False)).ok
    assert sorted(path.name for path in root.iterdir()) == [".tmp", "repository"]
    assert list(LocalStorage(root).list()) == [ObjectInfo("repository", 1)]
