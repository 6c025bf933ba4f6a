"""Whether a PostgreSQL cluster's log is archived without a hole, and how far behind. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.monitoring.settings import HealthSettings

_BASE = "Take a backup of the database: points in time go on from its end."


@dataclass(frozen=True)
class WalState:
    """What is known of the archive of the cluster that is backed up."""

    archived: bool
    """Anything was ever archived of it; else no points in time are wanted."""
    end: int = 0
    """Where the newest recoverable range ends."""
    end_time: datetime | None = None
    """When the server's log ended there, by its clock."""
    gaps: tuple[str, ...] = ()
    """WAL that is missing behind the newest base backup."""
    server_end: int | None = None
    """The end of the server's log; None where it can't be asked."""
    server_now: datetime | None = None

    @property
    def behind_bytes(self) -> int | None:
        """What the server has and the archive has not."""
        return None if self.server_end is None else max(0, self.server_end - self.end)


def wal(state: WalState, settings: HealthSettings, now: datetime) -> Iterator[Finding]:
    """Gaps, lag, and a server's clock that differs."""
    if state.server_now is not None and abs((state.server_now - now).total_seconds()) > 60:
        message = f"the server's clock says {to_text(state.server_now)}, this machine's {to_text(now)}"
        hint = "Recovery targets go by the server's clock. Have both keep time by NTP."
        yield Finding("clock-wrong", "warning", "postgres", message, hint)
    if not state.archived:
        return
    for gap in state.gaps:
        yield Finding("wal-gap", "error", "postgres", f"WAL is missing from the archive: {gap}", _BASE)
    lag = lag_seconds(state, now)
    if lag is not None and lag > settings.wal_lag_seconds:
        message = f"the archive's end is {lag:.0f} s old, and {state.behind_bytes} bytes behind the server"
        hint = "Is `chrono-backups wal-receive` running, or archive_command failing? The server's log says."
        yield Finding("wal-lag", "error", "postgres", message, hint)


def lag_seconds(state: WalState, now: datetime) -> float | None:
    """How old the archive's end is, where the server has gone on since; None where that is not known."""
    if not state.archived or state.end_time is None or state.behind_bytes is None:
        return None
    return 0.0 if state.behind_bytes == 0 else max(0.0, ((state.server_now or now) - state.end_time).total_seconds())
