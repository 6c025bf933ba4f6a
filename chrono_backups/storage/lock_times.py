"""How long a new lock lasts, in the whole seconds that services keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chrono_backups.clock import Clock


def from_now(clock: Clock, days: int) -> datetime:
    """The end of a lock that begins now."""
    return whole_seconds(clock.now() + timedelta(days=days))


def whole_seconds(moment: datetime) -> datetime:
    """That moment, UTC, rounded up: a lock never ends before what was asked for."""
    return moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)
