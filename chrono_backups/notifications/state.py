"""Where incidents and undelivered messages are kept: one SQLite file on this machine's disk.

Every change is one transaction, on the disk before it is over (write-ahead log, ``synchronous=FULL``). Any number of
processes work with it at once, each for some milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from chrono_backups.errors import NotificationError

FILE = "notifications.sqlite3"
_WAIT_SECONDS = 20.0
"""For another process's transaction: they take milliseconds, but the disk may be busy with a backup."""
SYNCHRONOUS = "FULL"
"""Each transaction is on the disk before it is over."""
_VERSION = 1

_SCHEMA = """
CREATE TABLE incident (key TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, incident TEXT NOT NULL, state TEXT NOT NULL,
    body TEXT NOT NULL, at TEXT NOT NULL
);
CREATE TABLE delivery (
    message INTEGER NOT NULL REFERENCES message (number) ON DELETE CASCADE, channel TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, not_before TEXT NOT NULL DEFAULT '', done_at TEXT,
    fault TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, channel)
) WITHOUT ROWID;
CREATE INDEX undelivered ON delivery (channel, message) WHERE done_at IS NULL;
CREATE TABLE channel (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL DEFAULT '', held_until TEXT NOT NULL DEFAULT '',
    not_before TEXT NOT NULL DEFAULT '', failures INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0,
    failing_since TEXT NOT NULL DEFAULT '', fault TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT ''
);
CREATE TABLE seen (token TEXT PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE fact (name TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class State:
    """The file in ``directory``, made at the first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / FILE

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept."""
        return self.path.exists()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection on which all is written or, if an error leaves the block, nothing.

        Raises ``NotificationError`` where the file can't be used.
        """
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.commit()
        except (sqlite3.Error, OSError) as error:
            what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise NotificationError(
                f"incidents and messages can't be kept in {self.path}: {what}",
                hint="Let BACKUP_STATE_DIR be a directory on a local disk that this account may write to; a file that "
                "is damaged may be moved away, and a new one is made.",
            ) from error

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by hand, so that it, and the log that SQLite gives the same mode, is nobody else's to read.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
            connection.execute("PRAGMA foreign_keys = ON")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == _VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        version = self._version(connection)  # another process may have been quicker
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.commit()
        if version not in {0, _VERSION}:
            raise sqlite3.DatabaseError(f"it has the format {version}, and this program knows {_VERSION}")

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def default_directory() -> Path | None:
    """Where programs keep what must not be lost; None where this account has no home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        return (Path(given) if given.startswith("/") else Path.home() / ".local" / "state") / "chrono-backups"
    except RuntimeError:
        return None
