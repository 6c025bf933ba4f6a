"""One of PostgreSQL's own programs, run for what it writes to its standard output.

What it says on standard error becomes findings, or the error where it fails: output of a program that failed is cut
short somewhere, and must never be taken for a dump.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chrono_backups.errors import SourceError
from chrono_backups.events import Finding
from chrono_backups.sources.postgres.connection import CONNECT_TIMEOUT, explained, parameters
from chrono_backups.sources.postgres.names import role
from chrono_backups.sources.settings import PostgresSettings

_PIPE_BYTES = 1024 * 1024
_END_SECONDS = 10.0
_SAID_MOST = 64 * 1024
_WARNINGS_KEPT = 20
_LINE = re.compile(r"^pg_dump(?:all)?: (?:(error|warning|detail|hint): )?(.*)$", re.MULTILINE)
_REMEDIES = (
    (
        "permission denied for large object",
        "Grant the backup role SELECT on every large object, or make it a superuser.",
    ),
    ("permission denied for", "Run on the server: GRANT pg_read_all_data TO {user};"),
    ("row-level security", "Run on the server: ALTER ROLE {user} BYPASSRLS;"),
    ("lock timeout", "Something holds a lock on the table; see pg_locks on the server, and dump again."),
    ("server version mismatch", "Set BACKUP_POSTGRES_BIN_DIR to the programs of the server's version."),
    ("invalid snapshot identifier", "The connection that held the databases' moment was lost; dump again."),
)


def connection_words(settings: PostgresSettings, database: str) -> str:
    """A connection string for ``database``, without the password: others can read a program's words."""
    words = {**parameters(settings), "dbname": database, "connect_timeout": str(int(CONNECT_TIMEOUT))}
    words.pop("password", None)

    def quoted(value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    return " ".join(f"{name}={quoted(value)}" for name, value in words.items())


class DumpProgram:
    """A running program; ``read_into`` gives its output and, at its end, raises where it failed. To be closed."""

    def __init__(self, program: Path, words: Sequence[str], settings: PostgresSettings, what: str) -> None:
        """``what``: what it dumps, for people."""
        self._settings = settings
        self._program = program.name
        self._what = what
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        self.bytes = 0
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the operator's own program
                [str(program), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._said,
                cwd="/",
                env=_environment(settings),
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise SourceError(f"{program} can't be run: {error.strerror}", source="postgres") from error
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        self._ended = False
        with suppress(OSError):  # more at a time, where the machine allows it
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def read_into(self, view: memoryview) -> int:
        """As ``StreamedEntry.read_into``. Raises ``SourceError`` where the program failed."""
        at = 0
        while at < len(view) and not self._ended:
            count = os.readv(self._output, [view[at:]])
            if not count:
                self._finish()
            at += count
        self.bytes += at
        return at

    def _finish(self) -> None:
        self._ended = True
        code = self._process.wait()
        if code:
            raise self._failure(code)

    def _failure(self, code: int) -> SourceError:
        text = self._text()
        if "connection to server" in text:
            return explained(self._settings, _LINE.sub(r"\2", text))
        said = [match[2] for match in _LINE.finditer(text) if match[1] in {None, "error", "detail"}]
        words = "; ".join(said) or text.strip() or f"it ended with {signal_name(code)}"
        hint = next((hint.format(user=role(self._settings)) for sign, hint in _REMEDIES if sign in words), "")
        return SourceError(f"{self._program} of {self._what} failed: {words}", source="postgres", hint=hint)

    def _text(self) -> str:
        self._said.seek(0)
        return self._said.read(_SAID_MOST).decode("utf-8", "replace")

    def check_ended(self) -> None:
        """Raises ``SourceError`` where its output was not read to the end."""
        if not self._ended:
            raise SourceError(f"{self._program} of {self._what} was not read to its end", source="postgres")

    def warnings(self) -> list[Finding]:
        """What it warned of; to be asked at its end."""
        found = [match[2] for match in _LINE.finditer(self._text()) if match[1] == "warning"]
        return [
            Finding("postgres-dump-warning", "warning", "postgres", f"{self._program} of {self._what}: {words}")
            for words in found[:_WARNINGS_KEPT]
        ]

    def close(self) -> None:
        """Nothing runs any more, however far it was."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()


def signal_name(code: int) -> str:
    """An exit code for people."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _environment(settings: PostgresSettings) -> dict[str, str]:
    """Ours without what is none of the program's: the settings hold other secrets, and PGCLIENTENCODING converts."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BACKUP_", "POSTGRES_", "REDIS_", "MEILISEARCH_")) and name != "PGCLIENTENCODING"
    }
    kept["LC_ALL"] = "C"
    if settings.password is not None:
        kept["PGPASSWORD"] = settings.password.get_secret_value()
    return kept
