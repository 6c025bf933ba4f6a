"""A server's write-ahead log as it is streamed, and the replication slot that keeps it until it is stored.

Messages (PostgreSQL documentation, "Streaming Replication Protocol"); numbers are big-endian, clocks in microseconds
since 2000-01-01:

==== ===================================================== =============================================
``w`` position u64, end of the server's log u64, clock i64  WAL from that position follows
``k`` end of the server's log u64, clock i64, asked u8      alive; ``asked`` is not 0: an answer is wanted
``r`` written u64, flushed u64, applied u64, clock i64, u8  from us: what is received, and what is stored
==== ===================================================== =============================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chrono_backups.errors import SlotBusy, SlotLost, SourceError, SourceRefused, WalGap
from chrono_backups.identifiers import lsn_number, lsn_text
from chrono_backups.sources.postgres.connection import ReplicationConnection, sql
from chrono_backups.sources.settings import PostgresSettings

if TYPE_CHECKING:
    import psycopg

DATA, ALIVE = ord("w"), ord("k")
DATA_HEADER = struct.Struct(">xQQq")
ALIVE_HEADER = struct.Struct(">xQqB")
_REPLY = struct.Struct(">cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_TIMES = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
_UNITS = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3}


AHEAD_HINT = (
    "The server was put back to an earlier state without a new timeline, or lost its disk's last writes. Archive it to "
    "a new repository; or restore it by a recovery (recovery.signal), which begins a timeline."
)


def moment(microseconds: int) -> datetime:
    """A clock of the protocol."""
    return _EPOCH + timedelta(microseconds=microseconds)


def reply(written: int, stored: int, now: datetime, *, asked: bool = False) -> bytes:
    """A status message; ``stored`` 0 confirms nothing. Nothing is ever applied here, and that is what is said (0)."""
    clock = (now - _EPOCH) // timedelta(microseconds=1)
    return _REPLY.pack(b"r", written, stored, 0, clock, asked)


@dataclass(frozen=True)
class Server:
    """What streaming starts from."""

    system_identifier: str
    timeline: int
    position: int
    """The end of its log."""
    segment_size: int
    sender_timeout: float
    """Seconds of our silence after which it ends the connection; 0: never."""


def identify(connection: ReplicationConnection) -> Server:
    """Ask a server who it is. Raises ``SourceError``."""
    system, timeline, position, _ = connection.rows("IDENTIFY_SYSTEM")[0]
    size = connection.rows("SHOW wal_segment_size")[0][0] or ""
    number = size.rstrip("kMGTB")
    return Server(
        system or "",
        int(timeline or 0),
        lsn_number(position or "0/0"),
        int(number) * _UNITS[size[len(number) :] or "B"],
        _seconds(connection.rows("SHOW wal_sender_timeout")[0][0] or "0"),
    )


def _seconds(text: str) -> float:
    number = text.rstrip("hdmins")
    return int(number) * _TIMES[text[len(number) :] or "ms"]


def history(connection: ReplicationConnection, timeline: int) -> bytes:
    """The history file of that timeline, which is not the first. Raises ``SourceRefused``."""
    _, content = connection.rows(f"TIMELINE_HISTORY {timeline}")[0]
    return (content or "").encode()


@dataclass(frozen=True)
class SlotPosition:
    """Where a slot keeps WAL from; None: from nowhere."""

    position: int | None
    timeline: int | None


def read_slot(connection: ReplicationConnection, name: str) -> SlotPosition | None:
    """The slot of that name; None where there is none. Raises ``SourceError`` for a logical one."""
    kind, position, timeline = connection.rows(f"READ_REPLICATION_SLOT {name}")[0]
    if kind is None:
        return None
    return SlotPosition(lsn_number(position) if position else None, int(timeline) if timeline else None)


def create_slot(connection: ReplicationConnection, name: str) -> None:
    """Make the slot, keeping WAL from the newest checkpoint on. Raises ``SourceRefused``."""
    connection.rows(f"CREATE_REPLICATION_SLOT {name} PHYSICAL (RESERVE_WAL true)")


def drop_slot(connection: ReplicationConnection, name: str) -> None:
    """Drop the slot. Raises ``SourceRefused`` where it is in use."""
    connection.rows(f"DROP_REPLICATION_SLOT {name}")


def start(connection: ReplicationConnection, slot: str, timeline: int, position: int) -> None:
    """Begin to stream. Raises ``WalGap``, ``SlotLost``, ``SlotBusy`` or another ``SourceError``.

    Some refusals come only afterwards, as ``SourceRefused``: ``explained`` tells what is behind it.
    """
    try:
        connection.copy_both(f"START_REPLICATION SLOT {slot} PHYSICAL {lsn_text(position)} TIMELINE {timeline}")
    except SourceRefused as error:
        raise explained(error, slot) from None


def slot_lost(slot: str, why: str) -> SlotLost:
    """The error for a slot that keeps nothing."""
    return SlotLost(
        f"the replication slot {slot} is lost: {why}",
        source="postgres",
        hint="`chrono-backups wal-receive --recreate-slot` makes it anew; then take a base backup, as WAL is "
        "missing. Raise max_slot_wal_keep_size on the server, or alert earlier.",
    )


def explained(error: SourceRefused, slot: str) -> SourceError:
    """The kind of the error that the server's words tell of; some come only once the stream has begun."""
    words = error.message
    if "has already been removed" in words:
        return WalGap(
            words,
            source="postgres",
            hint="WAL is missing from the archive for good. Take a base backup: points in time go on from its end.",
        )
    if "is not in this server's history" in words:
        return WalGap(
            words,
            source="postgres",
            hint="The server left that timeline earlier. Take a base backup: a new range begins.",
        )
    if "invalidated" in words or "can no longer" in words or "was never reserved" in words:
        return slot_lost(slot, words)
    if "is active for PID" in words:
        return SlotBusy(
            f"another receiver uses the slot: {words}",
            source="postgres",
            hint=f"One receiver a slot. End the other one, or give this one a slot of its own (--slot); "
            f"after a lost connection the server lets {slot} go within wal_sender_timeout.",
        )
    if "ahead of the WAL flush position" in words:
        return SourceError(
            f"the archive is ahead of the server: {words}",
            source="postgres",
            hint=AHEAD_HINT,
        )
    return error


@dataclass(frozen=True)
class SlotState:
    """What ``pg_replication_slots`` tells of a slot."""

    name: str
    active_pid: int | None
    wal_status: str
    """``reserved``, ``extended``, ``unreserved``, ``lost``, or empty where it keeps nothing."""
    safe_bytes: int | None
    """What may still be written before it may be lost; None: no limit."""
    retained_bytes: int
    """WAL that the server keeps because of it."""
    inactive_since: datetime | None
    """Told by 17 and later."""


@dataclass(frozen=True)
class ServerWal:
    """A server's log and slot, by SQL."""

    system_identifier: str
    timeline: int
    position: int
    now: datetime
    slot: SlotState | None
    synchronous: bool
    """Commits wait for the receiver."""


_STATE = """
SELECT (SELECT system_identifier::text FROM pg_control_system()),
       (SELECT timeline_id FROM pg_control_checkpoint()),
       {position}::text, clock_timestamp(),
       EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'chrono_backups'
                                                 AND sync_state IN ('sync', 'quorum'))
"""
_SLOTS = """
SELECT slot_name, active_pid, coalesce(wal_status, ''), safe_wal_size,
       greatest(0, coalesce(pg_wal_lsn_diff({position}, restart_lsn), 0))::bigint, {inactive}
  FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name
"""
_PRIMARY = "pg_current_wal_flush_lsn()"
_STANDBY = "pg_last_wal_receive_lsn()"


def server_wal(settings: PostgresSettings, slot: str) -> ServerWal:
    """Ask by SQL, so that it does not matter who streams. Raises ``SourceError``."""
    with sql(settings) as connection:
        position = f"coalesce({_position(connection)}, '0/0')"
        state: Any = connection.execute(_STATE.format(position=position)).fetchone()
        found = next((one for one in slot_states(connection) if one.name == slot), None)
    system, timeline, text, now, synchronous = state
    return ServerWal(system, int(timeline), lsn_number(text), now, found, bool(synchronous))


def slot_states(connection: psycopg.Connection[Any]) -> list[SlotState]:
    """Every slot that outlasts its session, whoever made it; in order of their names."""
    inactive = "inactive_since" if connection.info.server_version >= 170000 else "NULL::timestamptz"
    rows = connection.execute(_SLOTS.format(position=_position(connection), inactive=inactive))
    return [SlotState(*row) for row in rows]


def _position(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return _STANDBY if row and row[0] else _PRIMARY
