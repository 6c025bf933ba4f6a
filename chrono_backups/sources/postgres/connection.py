"""Connections to a PostgreSQL server: for replication commands by libpq itself, for SQL by its driver.

libpq's blocking calls hold Python's lock, so that the whole process would stand still while the server makes a
checkpoint. Here nothing blocks in C: what is not there yet is waited for by ``poll``.

Protocol: PostgreSQL documentation, "Streaming Replication Protocol" and "libpq, Functions Associated with the
COPY Command".
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg
from psycopg import pq

from chrono_backups.errors import SourceError, SourceRefused, SourceUnavailable
from chrono_backups.sources.settings import PostgresSettings

APPLICATION = "chrono_backups"
CONNECT_TIMEOUT = 15.0
ANSWER_TIMEOUT = 300.0
"""Seconds that a server may be silent; a checkpoint that a base backup waits for is the longest of its silences."""
_STATEMENT_TIMEOUT = "30s"
_SEND_MOST = 64 * 1024
_WARNINGS_KEPT = 20

_REMEDIES = (
    ("password authentication failed", "Correct BACKUP_POSTGRES_USER and BACKUP_POSTGRES_PASSWORD."),
    ("no password supplied", "Set BACKUP_POSTGRES_PASSWORD."),
    (
        "no pg_hba.conf entry for replication",
        "Add a line such as `host replication {user} samenet scram-sha-256` to pg_hba.conf, and reload the server.",
    ),
    (
        "no pg_hba.conf entry",
        "Add a line such as `host all {user} samenet scram-sha-256` to pg_hba.conf, and reload the server.",
    ),
    ("permission denied to start WAL sender", "Run on the server: ALTER ROLE {user} REPLICATION;"),
    ("must be superuser or replication role", "Run on the server: ALTER ROLE {user} REPLICATION;"),
    (
        "number of requested standby connections exceeds",
        "Raise max_wal_senders on the server and restart it, or end a replication connection that nobody needs.",
    ),
    ("all replication slots are in use", "Raise max_replication_slots on the server, or drop a slot nobody needs."),
    ("WAL level not sufficient", "Set wal_level = replica on the server and restart it."),
    ("too many clients", "Raise max_connections on the server, or close connections."),
)
_PREAMBLE = re.compile(r"^(connection failed: )?(connection to server .* failed: )?((FATAL|ERROR): +)?")
_PASSING = ("starting up", "shutting down", "in recovery mode", "too many clients", "Connection refused", "timeout")
_UNAVAILABLE = ("57P", "53", "08")
"""Classes of SQLSTATE that pass by themselves: operator intervention, want of resources, the connection."""


class EndOfStream(Exception):
    """The server ended the copy; ``ReplicationConnection.results`` has what follows."""


Row = tuple[str | None, ...]


def parameters(settings: PostgresSettings) -> dict[str, str]:
    """libpq's connection parameters, without the database and with the password."""
    assert settings.host is not None  # it is no source otherwise
    found = {
        "host": settings.host,
        "port": str(settings.port),
        "user": settings.user or "postgres",
        "application_name": APPLICATION,
        "connect_timeout": str(int(CONNECT_TIMEOUT)),
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
    }
    if settings.password is not None:
        found["password"] = settings.password.get_secret_value()
    if settings.sslmode is not None:
        found["sslmode"] = settings.sslmode
    if settings.sslrootcert is not None:
        found["sslrootcert"] = str(settings.sslrootcert)
    return found


def address(settings: PostgresSettings) -> str:
    """The server, for people."""
    return f"{settings.host}:{settings.port}"


def explained(settings: PostgresSettings, text: str, sqlstate: str = "") -> SourceError:
    """The error of ours for the server's or libpq's words."""
    words = _PREAMBLE.sub("", " ".join(text.split())).replace(" DETAIL:", ":")
    user = '"' + (settings.user or "postgres").replace('"', '""') + '"'
    hint = next((hint.format(user=user) for sign, hint in _REMEDIES if sign in words), "")
    message = f"PostgreSQL at {address(settings)}: {words}"
    if sqlstate.startswith(_UNAVAILABLE) or (not sqlstate and not hint) or any(sign in words for sign in _PASSING):
        return SourceUnavailable(message, source="postgres", hint=hint or "Look whether the server runs.")
    return SourceRefused(message, source="postgres", code=sqlstate, hint=hint)


class ReplicationConnection:
    """A physical replication connection. A context; not for several threads at once."""

    def __init__(self, pgconn: pq.abc.PGconn, settings: PostgresSettings, timeout: float) -> None:
        self._pgconn = pgconn
        self._settings = settings
        self._timeout = timeout
        self._poll = select.poll()
        self._fd = pgconn.socket
        self._events = 0
        self.warnings: list[str] = []
        """What the server warned of, the first few."""
        pgconn.notice_handler = self._noticed

    @classmethod
    def open(cls, settings: PostgresSettings, *, timeout: float = ANSWER_TIMEOUT) -> ReplicationConnection:
        """Raises ``SourceUnavailable`` or ``SourceRefused`` with the remedy.

        ``timeout``: seconds that the server may leave a command without any answer.
        """
        words = {**parameters(settings), "replication": "true"}
        pgconn = pq.PGconn.connect_start(psycopg.conninfo.make_conninfo("", **words).encode())
        until = time.monotonic() + CONNECT_TIMEOUT
        while True:
            status = pq.PollingStatus.FAILED if pgconn.status == pq.ConnStatus.BAD else pgconn.connect_poll()
            if status == pq.PollingStatus.OK:
                break
            left = until - time.monotonic()
            if status == pq.PollingStatus.FAILED or left <= 0:
                text = pgconn.error_message.decode(errors="replace") if left > 0 else "connection timeout"
                pgconn.finish()
                raise explained(settings, text)
            wait = select.poll()
            wait.register(pgconn.socket, select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT)
            wait.poll(left * 1000)
        pgconn.nonblocking = 1
        return cls(pgconn, settings, timeout)

    def __enter__(self) -> ReplicationConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def server_version(self) -> int:
        """As 180004."""
        return self._pgconn.server_version

    @property
    def in_standby(self) -> bool:
        """Whether the server is in recovery, as it said when it was connected to."""
        return self._pgconn.parameter_status(b"in_hot_standby") == b"on"

    def close(self) -> None:
        """End the connection; the server ends what it was doing for it. May be called twice."""
        self._pgconn.finish()

    def _noticed(self, notice: pq.abc.PGresult) -> None:
        words = notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
        if words and len(self.warnings) < _WARNINGS_KEPT:
            self.warnings.append(words.decode(errors="replace"))

    # Commands.

    def rows(self, statement: str) -> list[Row]:
        """Run a command to its end; the rows of all its results."""
        self._send(statement)
        return self.results()

    def results(self) -> list[Row]:
        """The rows of all that is still to come of a command."""
        found: list[Row] = []
        while (result := self._next_result()) is not None:
            found += _rows(result)
        return found

    def next_rows(self) -> list[Row] | None:
        """The rows of the command's next result; None where there is none left."""
        result = self._next_result()
        return None if result is None else _rows(result)

    def begin_copy(self, statement: str) -> list[list[Row]]:
        """Run a command up to its copy: the rows of each result before it."""
        self._send(statement)
        return self.next_copy()

    def next_copy(self) -> list[list[Row]]:
        """Go on to the command's next copy; the rows of each result before it."""
        before: list[list[Row]] = []
        while (result := self._next_result()) is not None:
            if result.status in _COPIES:
                return before
            before.append(_rows(result))
        raise SourceRefused(
            f"PostgreSQL at {address(self._settings)} answered without the stream that was asked for", source="postgres"
        )

    def copy_both(self, statement: str) -> None:
        """Begin streaming both ways: START_REPLICATION."""
        self.begin_copy(statement)

    def receive(self, timeout: float) -> bytes | memoryview | None:
        """The next message of the copy, or None where none came within ``timeout`` seconds.

        Raises ``EndOfStream``, ``SourceRefused``, ``SourceUnavailable``.
        """
        until = 0.0
        while True:
            size, data = self._copied()
            if size > 0:
                return data
            if size < 0:
                raise EndOfStream
            now = time.monotonic()
            until = until or now + timeout
            if now >= until > 0:
                return None
            self._wait(select.POLLIN, until - now)
            self._consume()

    def _copied(self) -> tuple[int, bytes | memoryview]:
        try:
            return self._pgconn.get_copy_data(1)
        except psycopg.Error as error:
            raise self._failed(str(error)) from error

    def messages(self) -> Iterator[bytes | memoryview]:
        """All messages of a copy out. Raises ``SourceUnavailable`` where the server falls silent."""
        take, consume = self._pgconn.get_copy_data, self._pgconn.consume_input
        consumed = False
        try:
            while True:
                size, data = take(1)
                if size > 0:
                    consumed = False
                    yield data
                elif size < 0:
                    return
                elif consumed:  # nothing was there
                    if not self._wait(select.POLLIN, self._timeout):
                        raise self._silent()
                    consumed = False
                else:
                    consume()
                    consumed = True
        except psycopg.Error as error:
            raise self._failed(str(error)) from error

    def send(self, data: bytes | memoryview) -> None:
        """A message of the copy to the server, put on its way."""
        try:
            while self._pgconn.put_copy_data(bytes(data)) == 0:
                self._flush()
        except psycopg.Error as error:
            self._copy_failed(error)
        self._flush()

    def upload(self, statement: str, content: bytes) -> None:
        """Run a command that takes ``content`` by a copy in: UPLOAD_MANIFEST."""
        self.begin_copy(statement)
        for start in range(0, len(content), _SEND_MOST):
            self.send(content[start : start + _SEND_MOST])
        self.end_copy()

    def end_copy(self) -> list[Row]:
        """Say that nothing more comes from us; the rows of what follows."""
        try:
            while self._pgconn.put_copy_end() == 0:
                self._flush()
        except psycopg.Error as error:
            self._copy_failed(error)
        self._flush()
        return self.results()

    # Beneath.

    def _copy_failed(self, error: psycopg.Error) -> NoReturn:
        """Raise the server's own error where it has ended the copy by one."""
        if self._pgconn.status == pq.ConnStatus.OK:
            self.results()
        raise self._failed(str(error)) from error

    def _send(self, statement: str) -> None:
        try:
            self._pgconn.send_query(statement.encode())
        except psycopg.Error as error:
            raise self._failed(str(error)) from error
        self._flush()

    def _flush(self) -> None:
        until = time.monotonic() + self._timeout
        try:
            while self._pgconn.flush() != 0:
                if time.monotonic() > until:
                    raise self._silent()
                if self._wait(select.POLLIN | select.POLLOUT, 1.0) & select.POLLIN:
                    self._consume()
        except psycopg.Error as error:
            raise self._failed(str(error)) from error

    def _next_result(self) -> pq.abc.PGresult | None:
        until = time.monotonic() + self._timeout
        while self._pgconn.is_busy():
            left = until - time.monotonic()
            if left <= 0:
                raise self._silent()
            self._wait(select.POLLIN, left)
            self._consume()
        result = self._pgconn.get_result()
        if result is not None and result.status in _FAILURES:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            words = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
            detail = result.error_field(pq.DiagnosticField.MESSAGE_DETAIL)
            text = b": ".join(one for one in (words, detail) if one).decode(errors="replace")
            self._drain()
            raise explained(self._settings, text, state.decode() if state else "")
        return result

    def _drain(self) -> None:
        """Take what still comes of a failed command, so that the connection can be used again."""
        until = time.monotonic() + 10
        while time.monotonic() < until and self._pgconn.status == pq.ConnStatus.OK:
            while self._pgconn.is_busy() and time.monotonic() < until:
                self._wait(select.POLLIN, 1.0)
                self._consume()
            if self._pgconn.is_busy() or self._pgconn.get_result() is None:
                return

    def _wait(self, events: int, seconds: float) -> int:
        if events != self._events:
            self._poll.register(self._fd, events)
            self._events = events
        found = self._poll.poll(max(0.0, seconds) * 1000)
        return found[0][1] if found else 0

    def _consume(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise self._failed(str(error)) from error

    def _failed(self, text: str) -> SourceError:
        return SourceUnavailable(
            f"the connection to PostgreSQL at {address(self._settings)} was lost: {' '.join(text.split())}",
            source="postgres",
            hint="Look whether the server runs and what its log says.",
        )

    def _silent(self) -> SourceError:
        return SourceUnavailable(
            f"PostgreSQL at {address(self._settings)} said nothing for {self._timeout:g} seconds",
            source="postgres",
            hint="Look whether the server or the network hangs.",
        )


_COPIES = frozenset({pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH})
_FAILURES = frozenset({pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE, pq.ExecStatus.NONFATAL_ERROR})


def _rows(result: pq.abc.PGresult) -> list[Row]:
    def value(row: int, column: int) -> str | None:
        found = result.get_value(row, column)
        return None if found is None else bytes(found).decode()

    columns: Sequence[int] = range(result.nfields)
    return [tuple(value(row, column) for column in columns) for row in range(result.ntuples)]


@contextmanager
def sql(settings: PostgresSettings, database: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """An SQL connection in autocommit, to ``database`` or the configured one; no statement outlasts 30 s.

    The server's errors come out as ``SourceRefused``, a lost or refused connection as ``SourceUnavailable``.
    """
    with translated(settings):
        connection = psycopg.connect(
            "",
            dbname=database or settings.db or "postgres",
            autocommit=True,
            options=f"-c statement_timeout={_STATEMENT_TIMEOUT}",
            **parameters(settings),  # type: ignore[arg-type]
        )
        with connection:
            yield connection


@contextmanager
def translated(settings: PostgresSettings) -> Iterator[None]:
    """The driver's errors come out as ours."""
    try:
        yield
    except psycopg.Error as error:
        raise explained(settings, str(error), error.sqlstate or "") from error
