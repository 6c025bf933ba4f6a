"""Dumps by PostgreSQL's own programs, streamed: ``dump/globals.sql``, and ``dump/DATABASE.dump`` for each database.

A dump is in pg_dump's custom format and not compressed, so that content that did not change is stored once; it needs
no room on the disk. It moves to another version, and gives back a single table: ``pg_restore -t``.

Each database is dumped as it was at one moment. PostgreSQL has no moment that several databases share: those of all
databases are taken one right after another before the first dump begins, milliseconds apart (``skew_seconds`` in the
facts), and roles and tablespaces are as they are when ``globals.sql`` is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from stat import S_IFDIR, S_IFREG
from typing import TYPE_CHECKING, Any, Literal

from chrono_backups.clock import to_text
from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.sources.base import StreamedEntry
from chrono_backups.sources.postgres.connection import sql
from chrono_backups.sources.postgres.dump_program import DumpProgram, connection_words
from chrono_backups.sources.postgres.names import quoted, role
from chrono_backups.sources.postgres.programs import Programs, client_programs
from chrono_backups.sources.settings import PostgresSettings

if TYPE_CHECKING:
    import psycopg

GLOBALS = b"dump/globals.sql"
_LOCK_WAIT = 300_000
"""Milliseconds that a dump waits for a lock on a table before it gives up."""
_TOGETHER_MOST = 32
"""Databases whose moments are held at once, a connection each."""
_TIMEOUTS = ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"]
_INVALID = -2
"""``datconnlimit`` of a database whose removal was interrupted."""


@dataclass
class _Database:
    name: str
    size: int
    snapshot: str = ""
    """The moment it is dumped at, by PostgreSQL's name for it; empty: the dump takes one of its own."""
    written: int = 0
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def path(self) -> bytes:
        return b"dump/" + file_name(self.name) + b".dump"


def file_name(database: str) -> bytes:
    """A database's name as a file's: what no file's name may hold is written as ``%XX``."""
    found = "".join(
        f"%{ord(char):02X}" if char in "/%" or ord(char) < 32 or (char == "." and not i) else char
        for i, char in enumerate(database)
    )
    return found.encode()


class LogicalCapture:
    """Dumps that are about to be made."""

    effective: Literal["full"] = "full"

    def __init__(
        self, settings: PostgresSettings, programs: Programs, server: Mapping[str, Any], listener: Listener
    ) -> None:
        self._settings = settings
        self._programs = programs
        self._server = server
        self._listener = listener
        self._databases: list[_Database] = []
        self._moments: list[datetime] = []
        self._lsn: str | None = None
        self._role_passwords = bool(server["role_passwords"])

    @property
    def expected_bytes(self) -> int:
        return sum(one.size for one in self._databases)

    def begin(self, held: ExitStack) -> None:
        """Note the databases, and take the moment of each."""
        with sql(self._settings) as connection:
            rows = connection.execute(
                "SELECT datname, datconnlimit, pg_database_size(oid) FROM pg_catalog.pg_database"
                " WHERE datallowconn AND datname <> 'template1'"
                " AND has_database_privilege(oid, 'CONNECT') ORDER BY datname"
            ).fetchall()
            refused = connection.execute(
                "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datname <> 'template1'"
                " AND NOT has_database_privilege(oid, 'CONNECT') ORDER BY datname"
            ).fetchall()
        if refused:
            names = ", ".join(name for (name,) in refused)
            grant = f"GRANT CONNECT ON DATABASE {quoted(refused[0][0])} TO {role(self._settings)};"
            raise SourceError(
                f"the backup role may not connect to {names}", source="postgres", hint=f"Run on the server: {grant}"
            )
        for name, limit, size in rows:
            if limit == _INVALID:
                message = f"the database {name} is invalid: its removal was interrupted; it is not dumped"
                self._listener(Finding("postgres-database-invalid", "warning", "postgres", message, "Drop it."))
            else:
                self._databases.append(_Database(name, size))
        if len(self._databases) > _TOGETHER_MOST:
            message = f"{len(self._databases)} databases are dumped each at a moment of its own, one after another"
            self._listener(Finding("postgres-dumps-apart", "info", "postgres", message))
            return
        connections = [
            (one, held.enter_context(one.held).enter_context(sql(self._settings, one.name))) for one in self._databases
        ]
        for one, connection in connections:
            one.snapshot, moment, self._lsn = _moment(connection)
            self._moments.append(moment)

    def entries(self) -> Iterator[StreamedEntry]:
        """Roles and tablespaces, then each database. Raises ``SourceError`` where a dump fails."""
        yield StreamedEntry(b"dump", S_IFDIR | 0o700)
        words = ["--globals-only", "--no-password", f"--dbname={connection_words(self._settings, 'postgres')}"]
        words.append(f"--database={self._settings.db or 'postgres'}")
        if not self._role_passwords:
            words.append("--no-role-passwords")
            self._listener(
                Finding(
                    "postgres-no-role-passwords",
                    "info" if self._settings.method == "both" else "warning",
                    "postgres",
                    "the backup role may not read the roles' passwords, so the dump is without them",
                    f"Run on the server: GRANT pg_read_all_data TO {role(self._settings)};",
                )
            )
        yield from self._dump(GLOBALS, "pg_dumpall", words, "roles and tablespaces")
        for one in self._databases:
            words = [
                "--format=custom",
                "--compress=0",
                "--no-sync",
                "--no-password",
                f"--lock-wait-timeout={_LOCK_WAIT}",
                *([f"--snapshot={one.snapshot}"] if one.snapshot else []),
                f"--dbname={connection_words(self._settings, one.name)}",
            ]
            yield from self._dump(one.path, "pg_dump", words, f"the database {one.name}", one)
            one.held.close()  # the server may clean up behind its moment again

    def _dump(
        self, path: bytes, program: str, words: list[str], what: str, database: _Database | None = None
    ) -> Iterator[StreamedEntry]:
        running = DumpProgram(self._programs.folder / program, words, self._settings, what)
        try:
            yield StreamedEntry(path, S_IFREG | 0o600, size=-1, read_into=running.read_into)
            running.check_ended()
            if database is not None:
                database.written = running.bytes
            for finding in running.warnings():
                self._listener(finding)
        finally:
            running.close()

    def facts(self) -> Mapping[str, Any]:
        """As ``StreamedCapture.facts``: the server, and under ``dump`` what was dumped, by what and when."""
        skew = max(self._moments) - min(self._moments) if self._moments else None
        return {
            "system_identifier": self._server["system_identifier"],
            "server_version": self._server["server_version"],
            "server_version_num": self._server["server_version_num"],
            "timeline": self._server["timeline"],
            "from_standby": self._server["from_standby"],
            **({"boundary": _boundary(self._moments)} if self._moments else {}),
            "dump": {
                "program_version": self._programs.shown,
                "lsn": self._lsn,
                "taken_at": to_text(min(self._moments)) if self._moments else None,
                "skew_seconds": skew.total_seconds() if skew is not None else None,
                "role_passwords": self._role_passwords,
                "databases": [
                    {"name": one.name, "path": one.path.decode(), "bytes": one.written} for one in self._databases
                ],
            },
        }


def _boundary(moments: Sequence[datetime]) -> dict[str, str]:
    return {"first": to_text(min(moments)), "last": to_text(max(moments))}


def check_programs(settings: PostgresSettings) -> None:
    """Raises ``SourceError`` where the server can't be asked, or there are no programs that could dump it."""
    with sql(settings) as connection:
        version = connection.info.server_version
    client_programs(version, settings.bin_dir)


@contextmanager
def dumps(settings: PostgresSettings, listener: Listener) -> Iterator[LogicalCapture]:
    """Begin to dump. Raises ``SourceError`` where a program, a right or the server is missing.

    Nothing is left running or held on the server however it ends.
    """
    with sql(settings) as connection:
        server = _server(connection)
    programs = client_programs(server["server_version_num"], settings.bin_dir)
    capture = LogicalCapture(settings, programs, server, listener)
    with ExitStack() as held:
        capture.begin(held)
        yield capture


def _server(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    row = connection.execute(
        "SELECT system_identifier::text, current_setting('server_version'),"
        " current_setting('server_version_num')::int, timeline_id, pg_is_in_recovery(),"
        " has_table_privilege('pg_catalog.pg_authid', 'SELECT')"
        " FROM pg_control_system(), pg_control_checkpoint()"
    ).fetchone()
    assert row is not None
    names = ("system_identifier", "server_version", "server_version_num", "timeline", "from_standby", "role_passwords")
    found = dict(zip(names, row, strict=True))
    return {**found, "server_version": str(found["server_version"]).split()[0]}


def _moment(connection: psycopg.Connection[Any]) -> tuple[str, datetime, str | None]:
    """Hold the database as it is now: PostgreSQL's name for the moment, when it is, the WAL's position about then."""
    connection.execute("SELECT set_config(name, '0', false) FROM pg_settings WHERE name = ANY(%s)", [_TIMEOUTS])
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    row = connection.execute(
        "SELECT pg_export_snapshot(), clock_timestamp(),"
        " CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text"
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]
