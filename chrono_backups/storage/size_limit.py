"""The running figure behind a storage's size limit."""

from __future__ import annotations

import threading
from collections.abc import Callable

from chrono_backups.clock import Clock
from chrono_backups.errors import StorageFull

_SCAN_EVERY = 60.0
_SCAN_EVERY_TIMES_ITS_COST = 50.0
_SCAN_BEFORE_REFUSING = 1.0
_SCAN_BEFORE_REFUSING_TIMES_ITS_COST = 5.0


class SizeLimit:
    """Room for at most ``maximum`` bytes of objects, without a scan per put.

    ``scan`` sums up what is stored. It is called at the first ``reserve``, and from then on this
    object's own puts and deletes are counted. What other processes write or delete is learned by
    scanning again: once the last scan is a minute old, or fifty times its own duration where that is
    longer (so scans cost 2 % of the time at most, however many objects there are), and before a
    refusal, where a second or five durations are enough. Several processes can therefore pass the
    limit together by what the others wrote since the last scan; one process never passes it.
    """

    def __init__(self, maximum: int, scan: Callable[[], int], clock: Clock, storage: str) -> None:
        if maximum <= 0:
            raise ValueError(f"a size limit is a positive number of bytes, not {maximum}")
        self.maximum = maximum
        self._scan = scan
        self._clock = clock
        self._storage = storage
        self._lock = threading.Lock()
        self._stored = 0
        self._reserved = 0
        self._scanned_at: float | None = None
        self._scan_cost = 0.0

    def reserve(self, key: str, size: int) -> None:
        """Set room aside for a put that is about to start. Raises ``StorageFull``; ends by ``settle``."""
        with self._lock:
            self._scan_if_older(max(_SCAN_EVERY, _SCAN_EVERY_TIMES_ITS_COST * self._scan_cost))
            if not self._fits(size):
                self._scan_if_older(max(_SCAN_BEFORE_REFUSING, _SCAN_BEFORE_REFUSING_TIMES_ITS_COST * self._scan_cost))
            if not self._fits(size):
                held = self._stored + self._reserved
                raise StorageFull(
                    f"{self._storage}: {key} ({size} bytes) would pass the limit of {self.maximum} bytes; "
                    f"{held} bytes are stored or being stored",
                    storage=self._storage,
                    operation="put",
                    key=key,
                    hint="Raise the storage's maximum size, or forget old backups and prune.",
                )
            self._reserved += size

    def settle(self, size: int, *, stored: bool) -> None:
        """Give back what ``reserve`` set aside: it is stored now, or never will be."""
        with self._lock:
            self._reserved -= size
            if stored:
                self._stored += size

    def deleted(self, size: int) -> None:
        """Count an object out."""
        with self._lock:
            self._stored = max(0, self._stored - size)

    def _fits(self, size: int) -> bool:
        return self._stored + self._reserved + size <= self.maximum

    def _scan_if_older(self, seconds: float) -> None:
        # A put that lies in place but has not settled yet is counted twice until the next scan: on the
        # safe side of the limit.
        began = self._clock.monotonic()
        if self._scanned_at is not None and began - self._scanned_at < seconds:
            return
        self._stored = self._scan()
        self._scanned_at = self._clock.monotonic()
        self._scan_cost = self._scanned_at - began
