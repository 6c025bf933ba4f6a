"""How a run is stopped: by the operator, by the system, by the time limit.

SIGINT, SIGTERM and SIGHUP raise ``KeyboardInterrupt`` in the main thread, so that ``finally`` runs and
leases are let go. Launchers often deliver a signal twice (``timeout`` to the process and to its group), so
a repetition is ignored, but for a second SIGINT half a second later: that ends the process at once.
It may, for a repository is whole whenever its writer dies.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from chrono_backups.cli.exit_codes import CANCELLED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_SECONDS = 0.5


class TimeLimitReached(KeyboardInterrupt):
    """BACKUP_TIMEOUT_SECONDS have passed. No ``Exception``, so that nobody takes it for a source's failure."""


class _Handlers:
    def __init__(self) -> None:
        self._stopped_at: float | None = None

    def stop(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._stopped_at is None:
            self._stopped_at = now
            raise KeyboardInterrupt(signal.Signals(number).name)
        if number == signal.SIGINT and now - self._stopped_at >= _PATIENCE_SECONDS:
            os.write(2, b"\nchrono-backups: stopped at once\n")
            os._exit(CANCELLED)

    def time_is_up(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            raise TimeLimitReached


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it the signals stop the work cleanly. What the caller ignores (``nohup``) stays ignored."""
    handlers = _Handlers()
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handlers.stop)
    signal.signal(signal.SIGALRM, handlers.time_is_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeLimitReached`` in the main thread once ``seconds`` have passed; None or 0: never."""
    if not seconds:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
