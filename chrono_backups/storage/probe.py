"""Trying a storage out: does it hold what the seam asks for, how fast is it, and what may this account do.

Works on objects of its own below ``storage-test/``, which no repository looks at, and removes them; so it may be done
beside a repository, and before there is one. Some stores accept the condition "only where there is none yet" and
ignore it. Two writers that meet on a name would overwrite each other there, so that is tried with parallel writers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from typing import Any

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import ObjectExists, ObjectLocked, ObjectMissing, StorageDenied, StorageError
from chrono_backups.events import Listener, Progress, silent
from chrono_backups.storage.base import Storage
from chrono_backups.storage.locking import extend_lock, locked_until

PREFIX = "storage-test/"
_WRITERS = 4
_RACES = 8
_THREADS = 2
_LATENCIES = 5
_SMALL = 65536
_PIECE = 4 * 1024 * 1024
_LOCKED_FOR = timedelta(seconds=3)
Opener = Callable[[], Storage]


@dataclass(frozen=True)
class Step:
    """One thing that was tried."""

    name: str
    ok: bool
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "message": self.message}


@dataclass
class ProbeReport:
    """What was tried, and what was measured."""

    storage: str
    location: str
    steps: list[Step] = field(default_factory=list)
    may_delete: bool = True
    """Whether this account may; a writer that may not is safer, and leaves room-making to another account."""
    may_lock: bool | None = None
    """Whether objects can be locked; None where it was not tried."""
    latency: float = 0.0
    """Seconds of a small request, the median of several."""
    upload: float = 0.0
    """Bytes per second, several objects at a time."""
    download: float = 0.0
    left_behind: tuple[str, ...] = ()
    """Objects of the test that could not be removed."""

    @property
    def ok(self) -> bool:
        """Whether the storage can hold a repository."""
        return all(step.ok for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {
            "storage": self.storage,
            "location": self.location,
            "ok": self.ok,
            "steps": [step.to_json() for step in self.steps],
            "rights": {"read": True, "write": True, "list": True, "delete": self.may_delete, "lock": self.may_lock},
            "latency_seconds": round(self.latency, 4),
            "upload_bytes_per_second": round(self.upload),
            "download_bytes_per_second": round(self.download),
            "left_behind": list(self.left_behind),
        }


def probe(
    open_storage: Opener,
    *,
    size: int = 16 * 1024 * 1024,
    locks: bool = False,
    clock: Clock | None = None,
    listener: Listener = silent,
) -> ProbeReport:
    """Try it out, and move ``size`` bytes each way. ``open_storage`` gives one more instance, which locks nothing.

    What is wrong with the storage is in the report. Raises ``StorageError`` where it can't be reached, or not be
    listed, read and written at all. ``locks``: try whether an object can be locked, for seconds.
    """
    storage = open_storage()
    try:
        return _Probe(storage, open_storage, clock or SystemClock(), listener).run(size, locks=locks)
    finally:
        storage.close()


class _Probe:
    def __init__(self, storage: Storage, open_storage: Opener, clock: Clock, listener: Listener) -> None:
        self._storage = storage
        self._open = open_storage
        self._clock = clock
        self._listener = listener
        self._prefix = f"{PREFIX}{clock.random_bytes(8).hex()}/"
        self._keys: set[str] = set()
        self._locked_until = clock.now()
        self._report = ProbeReport(storage.name, storage.location)

    def run(self, size: int, *, locks: bool) -> ProbeReport:
        """All of it, in an order in which each step needs those before it only."""
        with self._cleaned():
            next(self._storage.list(self._prefix), None)
            self._write_and_read()
            self._create_once()
            self._race()
            self._delete()
            if locks:
                self._lock()
            self._latency()
            self._speed(size)
        return self._report

    def _step(self, name: str, problem: str, well: str) -> None:
        self._report.steps.append(Step(name, not problem, problem or well))
        self._listener(Progress("test", self._report.storage, 0, len(self._report.steps)))

    def _put(self, name: str, content: bytes) -> str:
        key = self._prefix + name
        self._keys.add(key)
        self._storage.put(key, content)
        return key

    # Steps.

    def _write_and_read(self) -> None:
        content = self._clock.random_bytes(_SMALL)
        key = self._put("small", content)
        wrong = []
        if bytes(self._storage.get(key)) != content:
            wrong.append("what is read is not what was written")
        if bytes(self._storage.get(key, 1000, 5000)) != content[1000:6000]:
            wrong.append("a range is not what was asked for")
        with suppress(StorageError):
            self._storage.get(key, _SMALL - 10, 20)
            wrong.append("a range beyond the end is answered with fewer bytes")
        if self._storage.info(key).size != _SMALL:
            wrong.append("an object's size is told wrong")
        if [info.key for info in self._storage.list(self._prefix)] != [key]:
            wrong.append("what was written is not listed at once")
        self._step("write and read", "; ".join(wrong), "whole, in part, and listed at once")

    def _create_once(self) -> None:
        key = self._put("once", b"first")
        refused = False
        try:
            self._storage.put(key, b"second")
        except ObjectExists:
            refused = True
        kept = bytes(self._storage.get(key)) == b"first"
        problem = "" if refused and kept else "an existing object is overwritten: writers destroy each other's work"
        self._step("create once", problem, "an existing object is never overwritten")

    def _race(self) -> None:
        """Parallel writers, each with a connection of its own, put the same names."""
        keys = [f"{self._prefix}race/{number}" for number in range(_RACES)]
        self._keys.update(keys)
        barrier = threading.Barrier(_WRITERS)

        def write(writer: int) -> list[str]:
            won = []
            storage = self._open()
            try:
                for key in keys:
                    with suppress(threading.BrokenBarrierError):
                        barrier.wait(30)
                    with suppress(ObjectExists):
                        storage.put(key, b"%d" % writer * 20_000)
                        won.append(key)
            finally:
                barrier.abort()  # whoever fails lets the others go on alone
                storage.close()
            return won

        with ThreadPoolExecutor(_WRITERS) as pool:
            winners = list(pool.map(write, range(_WRITERS)))
        several = sum(sum(key in won for won in winners) > 1 for key in keys)
        other = sum(
            bytes(self._storage.get(key)) != b"%d" % writer * 20_000
            for writer, won in enumerate(winners)
            for key in won
        )
        problem = ""
        if several or other:
            problem = (
                f"of {_WRITERS} writers at once more than one was told that it created an object, {several} times of "
                f"{_RACES}: the store only pretends to know create-once, and must not be shared by writers"
            )
        self._step("race", problem, f"of {_WRITERS} writers at once one creates an object, {_RACES} times of {_RACES}")

    def _delete(self) -> None:
        key = self._prefix + "once"
        try:
            self._storage.delete(key)
        except StorageDenied:
            self._report.may_delete = False
            self._step("delete", "", "this account may not, which suits one that only writes; prune needs one that may")
            return
        except ObjectLocked as error:
            self._report.may_delete = False
            self._step("delete", "", f"the storage locks by itself what is written, until {error.until:%Y-%m-%d} UTC")
            return
        problem = ""
        with suppress(ObjectMissing):
            self._storage.get(key)
            problem = "a deleted object can still be read"
        if any(info.key == key for info in self._storage.list(self._prefix)):
            problem = "a deleted object is still listed"
        self._keys.discard(key)
        self._step("delete", problem, "gone at once")

    def _lock(self) -> None:
        key = self._put("locked", b"content")
        until = (self._clock.now() + _LOCKED_FOR).replace(microsecond=0) + timedelta(seconds=1)
        problem = ""
        try:
            extend_lock(self._storage, key, until)
            self._locked_until = until
            if locked_until(self._storage, key) is None:
                problem = "an object that was locked is said not to be"
            else:
                with suppress(ObjectLocked, StorageDenied):
                    self._storage.delete(key)
                    self._keys.discard(key)
                    problem = "a locked object was deleted"
        except StorageError as error:
            problem = f"objects can't be locked: {error.message}"
        self._report.may_lock = not problem
        self._step("lock", problem, "a locked object can't be deleted")

    def _latency(self) -> None:
        key = self._prefix + "small"
        self._report.latency = median(self._timed(lambda: self._storage.info(key)) for _ in range(_LATENCIES))

    def _timed(self, call: Callable[[], Any]) -> float:
        began = self._clock.monotonic()
        call()
        return self._clock.monotonic() - began

    def _speed(self, size: int) -> None:
        piece = min(_PIECE, max(size // _THREADS, 1))
        keys = [f"{self._prefix}speed/{number}" for number in range(max(1, size // piece))]
        content = self._clock.random_bytes(piece)  # what can be compressed on the way would look faster than it is
        self._keys.update(keys)
        total = piece * len(keys)
        with ThreadPoolExecutor(_THREADS) as pool:
            up = self._timed(lambda: list(pool.map(lambda key: self._storage.put(key, content), keys)))
            got: list[bool] = []
            down = self._timed(lambda: got.extend(pool.map(lambda key: self._storage.get(key) == content, keys)))
        self._report.upload = total / max(up, 1e-9)
        self._report.download = total / max(down, 1e-9)
        self._step("volume", "" if all(got) else "what is read is not what was written", "moved both ways, unchanged")

    # The end.

    @contextmanager
    def _cleaned(self) -> Iterator[None]:
        """Remove what the test has put, however it ends."""
        try:
            yield
        finally:
            wait = (self._locked_until - self._clock.now()).total_seconds()
            if wait > 0:
                self._clock.sleep(wait + 1)
            self._report.left_behind = tuple(key for key in sorted(self._keys) if not self._removed(key))

    def _removed(self, key: str) -> bool:
        try:
            self._storage.delete(key)
        except StorageError:
            return False
        return True
