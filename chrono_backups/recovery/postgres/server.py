"""A server on a restored data directory: on a socket of its own, never as root, reached by its own user and root only.

What it is started with counts above its configuration files: it listens nowhere else, logs to a file of ours, archives
nothing and waits for nobody, whatever they say.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chrono_backups.errors import RestoreError, SourceError
from chrono_backups.recovery.postgres.catalogues import superusers
from chrono_backups.recovery.postgres.server_log import failure
from chrono_backups.sources.settings import PostgresSettings

if TYPE_CHECKING:
    import psycopg

PORT = 5432
_HBA = "local all all trust\nlocal replication all reject\n"
"""Whoever may enter the socket's folder is the server's own user, or root."""
_STOP_SECONDS = 60.0
_PREFIX = "chrono-pg-"
_ALONE: dict[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "",
    "log_min_messages": "warning",
    "lc_messages": "C",
    "archive_mode": "off",
    "synchronous_standby_names": "",
    "primary_conninfo": "",
    "recovery_min_apply_delay": "0",
    "max_logical_replication_workers": "0",
    "hot_standby": "on",
    "huge_pages": "try",
    "bonjour": "off",
}
THROWN_AWAY: dict[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
    "jit": "off",
    "cron.launch_active_jobs": "off",
    "event_triggers": "off",
}
"""Of a server whose data directory is removed afterwards: it need not survive, and must do nothing by itself."""
_SINCE: dict[str, int] = {"event_triggers": 17, "summarize_wal": 17}


@dataclass(frozen=True)
class User:
    """Whom a server runs as. ``name`` is for people."""

    uid: int
    gid: int
    name: str

    @classmethod
    def of(cls, uid: int, gid: int) -> User:
        try:
            return cls(uid, gid, pwd.getpwuid(uid).pw_name)
        except KeyError:
            return cls(uid, gid, f"uid {uid}")

    def may(self, what: Literal["r", "x"], path: Path) -> bool:
        """Whether this user may read, or enter or run, what is there. For root to ask."""
        tried = subprocess.run(  # noqa: S603 - a fixed program
            ["/usr/bin/env", "test", f"-{what}", str(path)],
            user=self.uid, group=self.gid, extra_groups=[], cwd="/", check=False,
        )  # fmt: skip
        return tried.returncode == 0


class Server:
    """One server. ``start``, then ``stop``; or leave it running, and tell of ``pid`` and ``sockets``."""

    def __init__(
        self, programs: Path, data: Path, *, user: User | None, log: Path, settings: Mapping[str, str], major: int
    ) -> None:
        """``user``: whom to run as, None for ourselves. ``settings`` count above the data directory's own."""
        self.programs = programs
        self.data = data
        self.log = log
        self.user = user
        self.settings = {name: value for name, value in settings.items() if major >= _SINCE.get(name, 0)}
        self._process: subprocess.Popen[bytes] | None = None
        self._role: str | None = None
        self.sockets = Path()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and don't wait for it."""
        self.sockets = Path(tempfile.mkdtemp(prefix=_PREFIX))
        hba = self.sockets / "hba.conf"
        hba.write_text(_HBA)
        words = {**_ALONE, "unix_socket_directories": str(self.sockets), "hba_file": str(hba), **self.settings}
        command = [str(self.programs / "postgres"), "-D", str(self.data)]
        for name, value in words.items():
            command += ["-c", f"{name}={value}"]
        options: dict[str, Any] = {}
        if self.user is not None:
            options = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
            for place in (self.sockets, hba):
                os.chown(place, self.user.uid, self.user.gid)
        # The settings of a backup hold its key; a superuser of the restored server could read its environment.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("BACKUP_", "POSTGRES_", "PG"))
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the operator's own server program
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env={**environment, "LC_ALL": "C"},
                start_new_session=True,
                **options,
            )

    def log_text(self) -> str:
        """What it has said."""
        with suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Raises ``RestoreError`` with its own last words where it has ended."""
        if not self.running:
            raise failure(self.log_text(), self.log)

    @contextmanager
    def sql(self, database: str = "template1") -> Iterator[psycopg.Connection[Any]]:
        """A superuser's connection, in autocommit, without a time limit. Raises ``SourceError``."""
        from chrono_backups.sources.postgres.connection import sql  # noqa: PLC0415 - the client library

        with sql(self.address(self.superuser), database) as connection:
            connection.execute("SET statement_timeout = 0")
            yield connection

    def address(self, role: str) -> PostgresSettings:
        """How to reach it."""
        return PostgresSettings(host=str(self.sockets), port=PORT, user=role)

    @property
    def superuser(self) -> str:
        """A role that may do everything; which it is differs from cluster to cluster."""
        if self._role is None:
            from chrono_backups.sources.postgres.connection import sql  # noqa: PLC0415 - the client library

            names = superusers(self.data) or ["postgres"]
            for name in names:
                with suppress(SourceError), sql(self.address(name), "template1") as connection:
                    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
                    if row is not None and row[0]:
                        self._role = name
                        return name
            with sql(self.address(names[0]), "template1"):  # for its error
                raise RestoreError(f"none of {', '.join(names)} is a superuser of the restored cluster")
        return self._role

    def stop(self, *, fast: bool = True) -> None:
        """Shut it down, at once where not ``fast``; afterwards nothing runs, and its socket is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT if fast else signal.SIGQUIT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self.sockets != Path():
            shutil.rmtree(self.sockets, ignore_errors=True)
        self._role = None

    def wait_stopped(self, seconds: float) -> bool:
        """Whether it ends by itself within so many seconds."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            time.sleep(0.05)
        return not self.running


def user_for(owner: tuple[int, int]) -> User | None:
    """Whom a server of files of that owner runs as; None: ourselves, for only root can choose."""
    if os.geteuid() != 0:
        return None
    if owner[0] != 0:
        return User.of(*owner)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return User(found.pw_uid, found.pw_gid, name)
    raise RestoreError("there is no user that a server could run as", hint="Name one: --owner USER")
