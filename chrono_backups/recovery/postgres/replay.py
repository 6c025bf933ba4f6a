"""Following a restored server to the end of its recovery, and saying what it reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chrono_backups.clock import Clock, to_text
from chrono_backups.errors import RestoreError, SourceError
from chrono_backups.events import Listener, Progress
from chrono_backups.identifiers import lsn_number
from chrono_backups.recovery.postgres.server import Server
from chrono_backups.recovery.postgres.server_log import moment, told
from chrono_backups.repository.wal_names import Segment

_POLL_SECONDS = 0.1
_POLL_MOST = 1.0
_SHUTDOWN_SECONDS = 120.0
_STATE = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(),
       CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() ELSE '' END,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END,
       (pg_control_recovery()).min_recovery_end_timeline, (pg_control_checkpoint()).timeline_id
"""


@dataclass(frozen=True)
class Reached:
    """Where a recovery ended."""

    lsn: str
    """Of the last WAL record that was replayed."""
    timeline: int
    """That the server is on now."""
    last_commit: datetime | None
    """Of the last transaction that was replayed, by the old server's clock; None where none was."""
    state: str
    """``running``: open for reading and writing; ``paused``: for reading; ``stopped``."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "lsn": self.lsn,
            "timeline": self.timeline,
            "last_commit": to_text(self.last_commit) if self.last_commit else None,
            "state": self.state,
            "seconds": round(self.seconds, 3),
        }


def follow(
    server: Server, *, clock: Clock, listener: Listener, facts: Mapping[str, Any], until: str | None = None
) -> Reached:
    """Wait until recovery has ended, or has paused at its target. Raises ``RestoreError`` where the server ends.

    ``until``: the LSN that it is to reach, where that is known, for progress.
    """
    began = clock.monotonic()
    start = lsn_number(facts["start_lsn"])
    total = lsn_number(until) - start if until else None
    segment_size = int(facts["wal_segment_size"])
    pause = _POLL_SECONDS
    while server.running:
        row = _ask(server)
        if row is None:
            segment = told(server.log_text()).last_segment
            done = Segment.parse(segment, segment_size).start(segment_size) - start if segment else 0
        else:
            in_recovery, lsn, last_commit, paused, file, end_timeline, timeline = row
            done = lsn_number(lsn) - start if lsn else 0
            if not in_recovery or paused == "paused":
                now_on = int(file[:8], 16) if file else int(end_timeline or timeline)
                state = "paused" if in_recovery else "running"
                seconds = clock.monotonic() - began
                return Reached(lsn or facts["end_lsn"], now_on, last_commit, state, seconds)
        listener(Progress("replay", "postgres", max(0, done), 0, total))
        clock.sleep(pause)
        pause = min(_POLL_MOST, pause * 1.3)
    return _stopped(server, clock.monotonic() - began)


def _ask(server: Server) -> tuple[Any, ...] | None:
    """The server's state; None while it does not answer."""
    try:
        with server.sql() as connection:
            return connection.execute(_STATE).fetchone()
    except (SourceError, RestoreError):
        return None


def _stopped(server: Server, seconds: float) -> Reached:
    """What the log tells of a server that shut down at its target, as it was told to."""
    found = told(server.log_text())
    if "shutting down" in server.log_text() and found.stopping and "FATAL" not in server.log_text():
        return Reached(found.redo_done, found.new_timeline or 0, moment(found.last_commit), "stopped", seconds)
    server.check()
    raise AssertionError("a server that ended is no server that runs")
