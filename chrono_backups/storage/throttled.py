"""A storage that keeps to a bandwidth."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until
from chrono_backups.storage.pacing import paced_by

_BITS_PER_MEGABIT = 1_000_000
_CREDIT = 0.25
_SHORTEST_SLEEP = 0.002
_PIECE_SECONDS = 0.1
_PIECE_LEAST, _PIECE_MOST = 16 * 1024, 256 * 1024


class Ledger(Protocol):
    """Keeps until when the line is booked, in seconds of the clock's own count."""

    def book(self, earliest: float, seconds: float) -> float:
        """Book the next ``seconds`` that are free from ``earliest`` on; the start. May be called by several threads."""


class OwnLedger:
    """A ledger of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_from = -math.inf

    def book(self, earliest: float, seconds: float) -> float:
        with self._lock:
            start = max(self._free_from, earliest)
            self._free_from = start + seconds
            return start


class Bandwidth:
    """Megabits per second, shared by every thread and storage that is given this one object.

    With a ledger that is shared (``shared_bandwidth``), also by the processes that share it.

    Transfers, or pieces of them (``pacing``), get time slots one after the other, each as long as its bytes
    take at this rate. One starts when its slot does, and its caller goes on when the slot has ended: so the
    last object of a run is paid for as well. A slot may begin up to a quarter of a second in the past, in time
    that went unused: this credit lets many small objects reach the rate although sleeps overrun, and costs less
    than 1 % over 30 seconds.
    """

    def __init__(self, megabits_per_second: float, *, clock: Clock | None = None, ledger: Ledger | None = None) -> None:
        if not megabits_per_second > 0:
            raise ValueError(f"a bandwidth is a positive number of megabits per second, not {megabits_per_second}")
        self._bytes_per_second = megabits_per_second * _BITS_PER_MEGABIT / 8
        self._clock = clock or SystemClock()
        self._ledger: Ledger = ledger or OwnLedger()
        self._lock = threading.Lock()
        self._is_first = True

    @property
    def piece(self) -> int:
        """Bytes to move at a time: a tenth of a second's, within bounds."""
        return max(_PIECE_LEAST, min(_PIECE_MOST, int(self._bytes_per_second * _PIECE_SECONDS)))

    def now(self) -> float:
        """The moment to give to ``reserve`` when a transfer begins; seconds of the clock's own count."""
        return self._clock.monotonic()

    def reserve(self, size: int, began: float) -> tuple[float, float]:
        """The slot of a transfer of ``size`` bytes begun, or to begin, at ``began``: its start and end."""
        with self._lock:  # a process begins without credit: what went unused before it is not its own
            credit, self._is_first = 0.0 if self._is_first else _CREDIT, False
        seconds = size / self._bytes_per_second
        start = self._ledger.book(began - credit, seconds)
        return start, start + seconds

    def wait_until(self, moment: float) -> None:
        """Sleep; a wait too short to be slept precisely is left to the next slot, which lies later for it."""
        seconds = moment - self._clock.monotonic()
        if seconds >= _SHORTEST_SLEEP:
            self._clock.sleep(seconds)


class _Pace:
    """One transfer's pieces."""

    def __init__(self, bandwidth: Bandwidth) -> None:
        self._bandwidth = bandwidth
        self._end = -math.inf
        self.piece = bandwidth.piece
        self.taken = 0

    def take(self, size: int) -> None:
        start, self._end = self._bandwidth.reserve(size, self._bandwidth.now())
        self.taken += size
        self._bandwidth.wait_until(start)

    def finish(self, size: int) -> None:
        """Pay for what of ``size`` nobody asked leave for, and wait for the end of the last slot."""
        if size > self.taken:
            self.take(size - self.taken)
        self._bandwidth.wait_until(self._end)


class ThrottledStorage:
    """Keeps puts and gets together within ``bandwidth``; other calls carry next to nothing and pass.

    Of a driver that paces, content moves piece by piece; of another one, an object in its slot as fast as it may. A
    transfer that fails has used its slots, but its error does not wait for the end of the last one.
    """

    def __init__(self, inner: Storage, bandwidth: Bandwidth) -> None:
        self._inner = inner
        self._bandwidth = bandwidth
        self._paces = getattr(inner, "paces", False)

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def lock_days(self) -> int:
        return lock_days(self._inner)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if self._paces:
            pace = _Pace(self._bandwidth)
            with paced_by(pace):
                self._inner.put(key, data)
            pace.finish(size)
            return
        start, end = self._bandwidth.reserve(size, self._bandwidth.now())
        self._bandwidth.wait_until(start)
        self._inner.put(key, data)
        self._bandwidth.wait_until(end)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        # How much comes is known for sure only afterwards; the turn is waited for before.
        start, _ = self._bandwidth.reserve(0, self._bandwidth.now())
        self._bandwidth.wait_until(start)
        if self._paces:
            pace = _Pace(self._bandwidth)
            with paced_by(pace):
                content = self._inner.get(key, offset, length)
            pace.finish(len(content))
            return content
        began = self._bandwidth.now()
        content = self._inner.get(key, offset, length)
        _, end = self._bandwidth.reserve(len(content), began)
        self._bandwidth.wait_until(end)
        return content

    def info(self, key: str) -> ObjectInfo:
        return self._inner.info(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def usage(self) -> Usage:
        return self._inner.usage()

    def locked_until(self, key: str) -> datetime | None:
        return locked_until(self._inner, key)

    def extend_lock(self, key: str, until: datetime) -> None:
        extend_lock(self._inner, key, until)

    def close(self) -> None:
        self._inner.close()
