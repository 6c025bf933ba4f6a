"""What would keep a PostgreSQL server's backups from being good, each with the SQL that mends it. Changes nothing.

A server says much only to a role that may see it; what can't be seen is left unsaid, apart from the missing right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from chrono_backups.errors import SourceError, SourceUnavailable
from chrono_backups.events import Finding, Severity
from chrono_backups.sources.postgres.connection import (
    APPLICATION,
    ReplicationConnection,
    address,
    sql,
)
from chrono_backups.sources.postgres.names import quoted, role
from chrono_backups.sources.postgres.physical import FIRST_INCREMENTAL, OLDEST_VERSION
from chrono_backups.sources.postgres.programs import client_programs
from chrono_backups.sources.postgres.wal import SlotState, slot_states
from chrono_backups.sources.settings import PostgresSettings

if TYPE_CHECKING:
    import psycopg

_REFUSALS = (
    ("password authentication failed", "postgres-wrong-password"),
    ("no password supplied", "postgres-wrong-password"),
    ("no pg_hba.conf entry for replication", "postgres-no-hba-replication"),
    ("pg_hba.conf rejects replication connection", "postgres-no-hba-replication"),
    ("no pg_hba.conf entry", "postgres-no-hba-entry"),
    ("pg_hba.conf rejects connection", "postgres-no-hba-entry"),
    ("number of requested standby connections exceeds", "postgres-no-wal-sender"),
    ("permission denied to start WAL sender", "postgres-no-replication-right"),
    ("must be superuser or replication role", "postgres-no-replication-right"),
    ("permission denied for database", "postgres-no-connect-right"),
    ("is not permitted to log in", "postgres-no-login-right"),
)
_KEPT_UNUSED = 1 << 30
"""Bytes of WAL that a slot without a receiver may hold back before that is worth a warning."""
_SETTINGS = (
    "wal_level", "max_wal_senders", "max_replication_slots", "summarize_wal", "data_checksums", "data_directory",
    "config_file", "hba_file", "ident_file", "max_slot_wal_keep_size", "synchronous_standby_names",
    "full_page_writes", "block_size",
)  # fmt: skip
_FILES = ("config_file", "hba_file", "ident_file")


def probe(settings: PostgresSettings) -> list[Finding]:
    """Every finding about the server, the role's rights and the settings. Raises nothing of a source's own."""
    try:
        with sql(settings) as connection:
            server = _Server.seen(connection, settings, slot_states(connection))
    except SourceError as error:
        return [_refused(settings, error)]
    found = [*_server_findings(server)]
    if settings.method != "logical":
        found += _physical_findings(server)
        replication = _replication(settings)
        if replication is not None and replication.code not in {one.code for one in found}:
            found.append(replication)
    if settings.method != "physical":
        found += _logical_findings(server)
    if not any(one.severity == "error" for one in found):
        size = f"{server.databases} databases, {server.bytes} bytes"
        message = f"PostgreSQL {server.shown} at {address(settings)}: {size}; {settings.method} backups"
        found.append(_finding("postgres-ready", "info", message))
    return found


@dataclass(frozen=True)
class _Server:
    """What a server says of itself and of our role."""

    configuration: PostgresSettings
    version: int
    shown: str
    timeline: int
    standby: bool
    superuser: bool
    replication: bool
    reads_settings: bool
    reads_data: bool
    settings: dict[str, str]
    slots: int
    lasting: list[SlotState]
    """Slots that outlast their session."""
    databases: int
    bytes: int

    @property
    def role(self) -> str:
        """Quoted, for SQL."""
        return role(self.configuration)

    @classmethod
    def seen(cls, connection: psycopg.Connection[Any], settings: PostgresSettings, slots: list[SlotState]) -> _Server:
        one = connection.execute(
            "SELECT current_setting('server_version_num')::int, split_part(current_setting('server_version'), ' ', 1),"
            " pg_is_in_recovery(), rolsuper, rolreplication,"
            " pg_has_role('pg_read_all_settings', 'USAGE'), pg_has_role('pg_read_all_data', 'USAGE'),"
            " (SELECT count(*) FROM pg_replication_slots), (SELECT timeline_id FROM pg_control_checkpoint()),"
            " (SELECT count(*) FROM pg_database WHERE datallowconn AND datname <> 'template1'),"
            " (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database"
            "  WHERE has_database_privilege(oid, 'CONNECT'))"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert one is not None
        rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(_SETTINGS)])
        known = {name: value for name, value in rows if value is not None}
        return cls(
            configuration=settings,
            version=one[0],
            shown=one[1],
            standby=one[2],
            superuser=one[3],
            replication=one[4],
            reads_settings=one[5],
            reads_data=one[6],
            slots=one[7],
            timeline=one[8],
            databases=one[9],
            bytes=one[10],
            settings=known,
            lasting=slots,
        )


def _finding(code: str, severity: Severity, message: str, hint: str = "") -> Finding:
    return Finding(code, severity, "postgres", message, hint)


def _refused(settings: PostgresSettings, error: SourceError) -> Finding:
    """The finding for a connection that the server does not let us have."""
    code = next((code for sign, code in _REFUSALS if sign in error.message), "")
    if not code and "does not exist" in error.message:
        code = "postgres-no-database" if 'database "' in error.message else "postgres-no-role"
    name, database = role(settings), quoted(settings.db or "postgres")
    hints = {
        "postgres-no-hba-replication": f"Before any line of pg_hba.conf that rejects it add `host replication {name} "
        "samenet scram-sha-256`, and run on the server: SELECT pg_reload_conf();",
        "postgres-no-hba-entry": f"Before any line of pg_hba.conf that rejects it add `host all {name} "
        "samenet scram-sha-256`, and run on the server: SELECT pg_reload_conf();",
        "postgres-no-database": "Set BACKUP_POSTGRES_DB to a database that exists.",
        "postgres-no-role": f"Run on the server: CREATE ROLE {name} LOGIN REPLICATION PASSWORD '…';",
        "postgres-no-connect-right": f"Run on the server: GRANT CONNECT ON DATABASE {database} TO {name};",
        "postgres-no-login-right": f"Run on the server: ALTER ROLE {name} LOGIN;",
    }
    if not code:
        code = "source-unavailable" if isinstance(error, SourceUnavailable) else "postgres-refused"
    return _finding(code, "error", error.message, hints.get(code, error.hint))


def _replication(settings: PostgresSettings) -> Finding | None:
    """What keeps a replication connection from being made, as a base backup needs one."""
    try:
        with ReplicationConnection.open(settings) as connection:
            connection.rows("IDENTIFY_SYSTEM")
    except SourceError as error:
        return _refused(settings, error)
    return None


def _server_findings(server: _Server) -> Iterator[Finding]:
    if server.settings.get("data_checksums") == "off":
        yield _finding(
            "postgres-no-checksums",
            "warning",
            "the cluster has no data checksums: pages that the disk damaged are backed up unnoticed",
            "Stop the server and run: pg_checksums --enable -D DATA_DIRECTORY",
        )
    if not server.reads_data:
        yield _finding(
            "postgres-no-read-all-data",
            "warning",
            "the backup role may not read all tables: a drill can compare only those that it may read",
            f"Run on the server: GRANT pg_read_all_data TO {server.role};",
        )


def _physical_findings(server: _Server) -> Iterator[Finding]:
    """About base backups and WAL."""
    if server.version < OLDEST_VERSION:
        message = f"the server is PostgreSQL {server.shown}; base backups need 15 or later"
        yield _finding("postgres-too-old", "error", message, "Set BACKUP_POSTGRES_METHOD=logical, or upgrade it.")
    if not (server.replication or server.superuser):
        message = f"the role {server.role} may not replicate, which a base backup needs"
        hint = f"Run on the server: ALTER ROLE {server.role} REPLICATION;"
        yield _finding("postgres-no-replication-right", "error", message, hint)
    for check in (_levels, _incrementals, _places, _standby, _slot, _other_slots):
        yield from check(server)


def _levels(server: _Server) -> Iterator[Finding]:
    settings = server.settings
    if settings.get("wal_level") == "minimal":
        message = "wal_level is minimal: neither a base backup nor WAL can be taken"
        hint = "Run on the server, and restart it: ALTER SYSTEM SET wal_level = 'replica';"
        yield _finding("postgres-wal-level", "error", message, hint)
    if settings.get("max_wal_senders") == "0":
        message = "max_wal_senders is 0: the server lets nobody replicate"
        hint = "Run on the server, and restart it: ALTER SYSTEM SET max_wal_senders = 10;"
        yield _finding("postgres-no-wal-sender", "error", message, hint)
    most = int(settings.get("max_replication_slots", "10"))
    if server.slots >= most:
        message = f"all {most} replication slots are in use: none is left to guard a base backup's WAL"
        hint = (
            "Drop one that nobody needs; pg_replication_slots lists them. Or run on the server, and restart it:"
            f" ALTER SYSTEM SET max_replication_slots = {most + 5};"
        )
        yield _finding("postgres-no-free-slot", "warning", message, hint)
    names = [name.strip(' "') for name in settings.get("synchronous_standby_names", "").split("(")[-1].split(",")]
    if {"*", APPLICATION} & {name.strip(' )"') for name in names}:
        yield _finding(
            "postgres-synchronous",
            "warning",
            f"synchronous_standby_names is {settings['synchronous_standby_names']!r}: commits may wait for the WAL"
            " receiver, as if it were a standby",
            "Name your standbys in it, unless you want commits to wait until their WAL is stored.",
        )


def _incrementals(server: _Server) -> Iterator[Finding]:
    if server.version < FIRST_INCREMENTAL:
        message = f"PostgreSQL {server.shown} can't say what changed: incremental backups read everything; 17 can"
        yield _finding("postgres-no-incrementals", "info", message)
    elif server.settings.get("summarize_wal") == "off":
        yield _finding(
            "postgres-no-wal-summaries",
            "warning",
            "summarize_wal is off: the server can't say what changed, so incremental backups read everything",
            "Run on the server: ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();",
        )
    elif server.timeline > 1:
        # Which release repairs all of it is not known: the last of the repairs was under review in November 2026.
        yield _finding(
            "postgres-was-promoted",
            "info",
            f"the server is on timeline {server.timeline}: servers have told too little of what changed across a"
            " promotion, so the first backup after one reads everything",
        )


def _places(server: _Server) -> Iterator[Finding]:
    if not (server.reads_settings or server.superuser):
        yield _finding(
            "postgres-no-read-all-settings",
            "warning",
            "the backup role may not see where the server's configuration lies, so whether it is backed up is unknown",
            f"Run on the server: GRANT pg_read_all_settings TO {server.role};",
        )
        return
    data = PurePosixPath(server.settings.get("data_directory", "/"))
    outside = [
        server.settings[name]
        for name in _FILES
        if name in server.settings and not PurePosixPath(server.settings[name]).is_relative_to(data)
    ]
    if outside:
        yield _finding(
            "postgres-configuration-outside",
            "warning",
            f"a base backup does not hold {', '.join(outside)}: outside of the data directory {data}",
            "Mount them, and name them in BACKUP_CONFIGURATION_PATHS.",
        )


def _standby(server: _Server) -> Iterator[Finding]:
    if not server.standby:
        return
    if server.settings.get("full_page_writes") == "off":
        message = "the server is a standby and full_page_writes is off: a base backup of it may be refused"
        hint = "Run on the primary: ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();"
        yield _finding("postgres-full-page-writes", "warning", message, hint)
    message = "the server is a standby: its backups are as old as it lags behind, and end when it is promoted"
    yield _finding("postgres-standby", "info", message)


def _slot(server: _Server) -> Iterator[Finding]:
    name = server.configuration.slot
    slot = next((one for one in server.lasting if one.name == name), None)
    drop = f"SELECT pg_drop_replication_slot('{name}');"
    if slot is None:
        message = f"there is no replication slot {name}: no WAL is received, so only moments of backups come back"
        yield _finding("postgres-no-slot", "info", message, "Start `chrono-backups wal-receive`; it makes the slot.")
        return
    if slot.wal_status == "lost":
        message = f"the replication slot {name} is invalid: WAL that was not received is gone, and none is received"
        hint = f"Run on the server: {drop} Then start `chrono-backups wal-receive`, and take a full backup."
        yield _finding("postgres-slot-lost", "error", message, hint)
        return
    if slot.wal_status == "unreserved":
        message = f"the replication slot {name} is about to be invalidated: the server may remove WAL that it needs"
        hint = "Look why the receiver lags; raise max_slot_wal_keep_size."
        yield _finding("postgres-slot-unreserved", "error", f"{message} ({_kept(slot)})", hint)
    if slot.active_pid is None:
        message = f"nobody receives from the replication slot {name} ({_kept(slot)})"
        hint = f"Start `chrono-backups wal-receive`. Where no WAL is to be received, run on the server: {drop}"
        severity: Severity = "error" if slot.retained_bytes > _KEPT_UNUSED else "warning"
        yield _finding("postgres-slot-idle", severity, message, hint)
    else:
        yield _finding("postgres-slot", "info", f"WAL is received from the replication slot {name} ({_kept(slot)})")
    if server.settings.get("max_slot_wal_keep_size") == "-1":
        yield _finding(
            "postgres-slot-unlimited",
            "warning",
            "max_slot_wal_keep_size is -1: were the receiver away for long, the server's disk would fill with WAL",
            "Run on the server, with what its disk can spare: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';"
            " SELECT pg_reload_conf();",
        )


def _kept(slot: SlotState) -> str:
    return f"wal_status {slot.wal_status or 'none'}, {slot.retained_bytes} bytes of WAL kept for it"


def _other_slots(server: _Server) -> Iterator[Finding]:
    """Slots that nobody streams from fill the server's disk, whoever left them."""
    forgotten = [
        one
        for one in server.lasting
        if one.name != server.configuration.slot
        and one.active_pid is None
        and (one.retained_bytes > _KEPT_UNUSED or one.wal_status in {"unreserved", "lost"})
    ]
    if forgotten:
        each = "; ".join(f"{one.name}: {_kept(one)}" for one in forgotten)
        drop = " ".join(f"SELECT pg_drop_replication_slot('{one.name}');" for one in forgotten)
        yield _finding(
            "postgres-slots-forgotten",
            "error" if any(one.retained_bytes > _KEPT_UNUSED for one in forgotten) else "warning",
            f"nobody receives from other replication slots, for which the server keeps WAL: {each}",
            f"Start what they are for. Of those that nobody needs, run on the server: {drop}",
        )


def _logical_findings(server: _Server) -> Iterator[Finding]:
    """About dumps."""
    try:
        programs = client_programs(server.version, server.configuration.bin_dir)
    except SourceError as error:
        yield _finding("postgres-no-programs", "error", error.message, error.hint)
        return
    if programs.major != server.version // 10000:
        message = f"pg_dump {programs.shown} dumps the server of {server.shown}: pg_restore must be as new"
        yield _finding("postgres-later-programs", "info", message)
