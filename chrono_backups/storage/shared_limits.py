"""What all processes of an installation keep to together: a bandwidth, and how many operations go on at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from chrono_backups.clock import Clock
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.storage.shared_bandwidth import shared_ledger
from chrono_backups.storage.shared_slots import SharedSlots
from chrono_backups.storage.throttled import Bandwidth
from chrono_backups.variables import Section


class SharedLimits:
    """Those of the installation that has these storages: processes with the same settings share them."""

    def __init__(
        self, storages: Iterable[Section], *, megabits_per_second: float | None, operations: int, clock: Clock
    ) -> None:
        """``megabits_per_second``: 0 or None for no limit."""
        words = [str(sorted(section.model_dump(mode="json").items())) for section in storages]
        self._operations = operations
        self._slots = SharedSlots(operations, words, clock)
        self.bandwidth: Bandwidth | None = None
        if megabits_per_second:
            ledger = shared_ledger([str(megabits_per_second), *words], clock)
            self.bandwidth = Bandwidth(megabits_per_second, clock=clock, ledger=ledger)

    @contextmanager
    def operation(self, subject: str, listener: Listener = silent) -> Iterator[None]:
        """Have a source or a storage at work, as one of at most BACKUP_MAX_PARALLEL_OPERATIONS."""
        message = f"it waits: BACKUP_MAX_PARALLEL_OPERATIONS ({self._operations}) are at work already"
        with self._slots.one(lambda: listener(Finding("waiting", "info", subject, message))):
            yield
