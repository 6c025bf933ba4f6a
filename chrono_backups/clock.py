"""Where time and chance come from. Nothing else calls ``now()`` or draws randomness."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Time and randomness, injectable."""

    def now(self) -> datetime:
        """The present moment, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never run backwards, for durations and waits."""

    def sleep(self, seconds: float) -> None:
        """Wait that long."""

    def random_bytes(self, count: int) -> bytes:
        """``count`` bytes fit for keys and nonces."""


class SystemClock:
    """The machine's own time and randomness."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)


class FrozenClock(SystemClock):
    """A clock for tests: it stands still, ``sleep`` and ``advance`` move it, randomness stays real."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))

    def advance(self, step: timedelta) -> None:
        """Move time on by ``step``."""
        self._now += step
        self._monotonic += step.total_seconds()


def to_text(moment: datetime) -> str:
    """ISO 8601, UTC, microseconds: what every record and every ``--json`` shows."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_text(text: str) -> datetime:
    """The moment that ``to_text`` wrote."""
    return datetime.fromisoformat(text)
