"""The oracle: whatever moment a cluster is restored to, it holds exactly what had been committed by then.

One client writes rows, deletes some, and notes of each commit the time that the server gave it
(``track_commit_timestamp``) and the position of the log behind it. Beside it others load the server, base backups are
taken, increments among them, the WAL receiver is killed again and again, and a standby is promoted. Then the cluster is
restored to moments picked at random, and its rows, read by the table and by an index alone, must be the noted ones.

``python -m chrono_backups_tests.recovery.postgres.oracle --seconds 120 --moments 20`` is the long way.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from chrono_backups.backup.service import capture, commit, plan_backup
from chrono_backups.clock import SystemClock, from_text
from chrono_backups.identifiers import BackupType, lsn_number
from chrono_backups.recovery.plan import plan_restore
from chrono_backups.recovery.postgres.restore import (
    SOURCE,
    ClusterOptions,
    choose_base,
    plan_cluster,
    start_cluster,
)
from chrono_backups.recovery.postgres.server import THROWN_AWAY, Server
from chrono_backups.recovery.postgres.target import Target, parse_target
from chrono_backups.recovery.restore import restore
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.postgres.source import PostgresSource
from chrono_backups.sources.settings import PostgresSettings
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.backup.taking import KEY, OPTIONS
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_home

_ROLE = "backup"
_APART = timedelta(milliseconds=4)
"""A moment is no nearer to a commit: where commits of several clients meet, their times and their order may differ."""
_SETTINGS = {"wal_keep_size": "1GB", "autovacuum_naptime": "1s", "max_wal_size": "64MB"}


@dataclass(frozen=True)
class Committed:
    """One commit of the client whose rows are compared."""

    at: datetime
    lsn: str
    timeline: int
    added: tuple[int, ...]
    removed: tuple[int, ...]


@dataclass
class Ledger:
    """All commits, in order."""

    commits: list[Committed] = field(default_factory=list)

    def rows(self, until: Committed) -> set[int]:
        """What is there once ``until`` is committed."""
        found: set[int] = set()
        for one in self.commits:
            found.update(one.added)
            found.difference_update(one.removed)
            if one is until:
                return found
        raise AssertionError("not of this ledger")


class Client(threading.Thread):
    """Writes until it is told to stop."""

    def __init__(self, server: PostgresServer, ledger: Ledger, timeline: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ledger = ledger
        self._timeline = timeline
        self._random = random.Random(seed)
        self._asked = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with self._server.connect() as connection:
                while not self._asked.is_set():
                    self._write(connection)
                    time.sleep(self._random.uniform(0.001, 0.03))
        except BaseException as error:
            self.error = error

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        present = sorted(self._ledger.rows(self._ledger.commits[-1])) if self._ledger.commits else []
        first = max((max(one.added, default=0) for one in self._ledger.commits), default=0) + 1
        added = tuple(range(first, first + self._random.randint(0, 40)))
        removed = tuple(self._random.sample(present, min(len(present), self._random.randint(0, 25))))
        with connection.transaction():
            connection.execute("INSERT INTO ledger SELECT unnest(%s::bigint[])", [list(added)])
            connection.execute("DELETE FROM ledger WHERE id = ANY (%s)", [list(removed)])
            row = connection.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
        assert row is not None
        told = connection.execute(
            "SELECT pg_xact_commit_timestamp(%s::xid), pg_current_wal_insert_lsn()::text", [row[0]]
        ).fetchone()
        assert told is not None
        self._ledger.commits.append(Committed(told[0], told[1], self._timeline, added, removed))
        if self._random.random() < 0.05:
            connection.execute("VACUUM (FREEZE) ledger")

    def stop(self) -> None:
        self._asked.set()
        self.join(240)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


class Receiver:
    """``wal-receive`` as a process of its own, to be killed at will."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home / "receiver.log"
        self.killed = 0

    def start(self, server: PostgresServer) -> None:
        settings = {
            "BACKUP_LOCAL_PATH": str(self._home / "repository"),
            "BACKUP_ENCRYPTION_KEY": urlsafe_b64encode(KEY).decode(),
            "BACKUP_POSTGRES_HOST": "127.0.0.1",
            "BACKUP_POSTGRES_PORT": str(server.port),
            "BACKUP_POSTGRES_USER": _ROLE,
            "BACKUP_POSTGRES_PASSWORD": PASSWORD,
            "BACKUP_POSTGRES_DB": "postgres",
            "BACKUP_WAL_MAX_LAG_SECONDS": "0.5",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "chrono_backups", "wal-receive"],
                cwd=self._home, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """As a power cut would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.killed += 1

    def stop(self, server: PostgresServer) -> None:
        """Let it store what it has, and end. One that has only just been started is to have begun before."""
        if self._process is not None:
            _wait(lambda: _is_received_from(server))
            self._process.send_signal(signal.SIGTERM)
            code = self._process.wait(240)
            assert code == 0, self.log.read_text()[-3000:]
            self._process = None

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Oracle:
    """One run of it."""

    def __init__(self, home: Path, *, seed: int) -> None:
        self.home = home
        self.seed = seed
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self.manifests: list[Manifest] = []
        storage = LocalStorage(home / "repository", name="local", create=True)
        Repository.create(storage, algorithm="AES-256-GCM", operator_key=KEY, clock=SystemClock()).close()

    def open(self) -> Repository:
        storage = LocalStorage(self.home / "repository", name="local")
        return Repository.open(storage, operator_key=KEY, clock=SystemClock())

    def back_up(self, server: PostgresServer, backup_type: BackupType) -> Manifest:
        settings = PostgresSettings(
            host="127.0.0.1", port=server.port, user=_ROLE, password=SecretStr(PASSWORD), db="postgres"
        )
        source = PostgresSource(settings)
        with self.open() as repository:
            plan = plan_backup(repository, backup_type, ["postgres"])
            outcome = capture(repository, plan, source, options=OPTIONS)
            assert outcome.error is None, outcome.error
            self.manifests.append(commit(repository, plan, [outcome], trigger="oracle"))
        return self.manifests[-1]

    # The history that is restored from.

    def live(self, seconds: float) -> None:
        """Half of it on a server, half on the standby that takes its place."""
        with _server(self.home / "a") as primary:
            primary.add_role(_ROLE, grants=["pg_read_all_data", "pg_read_all_settings"])
            primary.load()
            primary.execute("CREATE TABLE ledger (id bigint PRIMARY KEY, filler text DEFAULT repeat('x', 100))")
            with Receiver(self.home) as receiver:
                receiver.start(primary)
                # Before the slot is there, the server keeps no WAL for what follows a backup.
                _wait(lambda: _is_received_from(primary))
                self.back_up(primary, "full")
                self._work(primary, receiver, 1, seconds / 2)
                standby = _standby(primary, self.home / "b")
                try:
                    # What the standby has of the log begins with itself: what comes before is to be archived.
                    known = primary.value("SELECT pg_current_wal_flush_lsn()::text")
                    _wait(lambda: primary.value(f"SELECT restart_lsn >= '{known}' FROM pg_replication_slots"))
                    receiver.kill()
                    primary.transact(50)
                    standby.start()
                    end = primary.value("SELECT pg_current_wal_flush_lsn()::text")
                    _wait(lambda: _replayed(standby, end))
                    primary.stop(signal.SIGQUIT)
                    standby.promote()
                    receiver.start(standby)
                    self._work(standby, receiver, 2, seconds / 2)
                    receiver.stop(standby)
                finally:
                    standby.stop(signal.SIGQUIT)

    def _work(self, server: PostgresServer, receiver: Receiver, timeline: int, seconds: float) -> None:
        client = Client(server, self.ledger, timeline, self.seed + timeline)
        client.start()
        until = time.monotonic() + seconds
        kinds: list[BackupType] = ["incremental", "incremental", "differential"]
        try:
            with _load(server, seconds):
                while time.monotonic() < until:
                    time.sleep(self.random.uniform(0.2, seconds / 8))
                    if self.random.random() < 0.6:
                        receiver.kill()
                        time.sleep(self.random.uniform(0, 0.5))
                        receiver.start(server)
                    else:
                        self.back_up(server, self.random.choice(kinds))
                self.back_up(server, "incremental")
                time.sleep(seconds / 8)
        finally:
            client.stop()

    # Restoring from it.

    def moments(self, count: int) -> list[tuple[Target, Committed]]:
        """Targets picked at random, each with the last commit that it holds."""
        first = from_text(self.manifests[0].snapshots[0].facts["stop_time"])
        lowest = lsn_number(self.manifests[0].snapshots[0].facts["end_lsn"])
        found: list[tuple[Target, Committed]] = []
        pairs = list(zip(self.ledger.commits, self.ledger.commits[1:], strict=False))
        while len(found) < count:
            one, following = self.random.choice(pairs)
            if self.random.random() < 0.5 and following.at - one.at > 2 * _APART and one.at > first:
                between = one.at + _APART + (following.at - one.at - 2 * _APART) * self.random.random()
                found.append((parse_target(between.isoformat()), one))
            elif lsn_number(one.lsn) > lowest and one.timeline == following.timeline:
                found.append((parse_target(None, one.lsn), one))
        return found

    def check(self, target: Target, last: Committed) -> str:
        """Restore to the target, and compare; what was done, in words."""
        wanted = self.ledger.rows(last)
        with self.open() as repository, postgres_home() as home:
            manifest = choose_base(repository, target, [SOURCE])
            options = ClusterOptions(target=target, start=True, restore_command="false", programs=[_programs()])
            plan = plan_cluster(repository, manifest, home / "out", options)
            whole = plan_restore(repository, plan.backup_id, plan.directory, sources=[SOURCE], placed=plan.placed)
            restore(repository, whole, arrangements={SOURCE: plan.arrangement()})
            server, supply, reached = start_cluster(repository, plan, clock=SystemClock(), settings=THROWN_AWAY)
            try:
                ways = {way: _rows(server, way) for way in ("enable_indexonlyscan", "enable_seqscan")}
            finally:
                server.stop(fast=False)
                supply.remove()
        for way, rows in ways.items():
            assert rows == wanted, (
                f"seed {self.seed}, {target} from {manifest.backup_id}, without {way}: {len(rows - wanted)} rows too "
                f"many, {len(wanted - rows)} are missing; reached {reached}"
            )
        kind = manifest.snapshots[0].effective
        return f"{target}: {len(wanted)} rows, from {manifest.backup_id} ({kind}) and {len(plan.path.files)} segments"


def _programs() -> Path:
    from chrono_backups_tests.servers.postgres import programs

    found = programs(18)
    assert found is not None
    return found


def _rows(server: Server, without: str) -> set[int]:
    """The ledger's rows, read without that way."""
    with server.sql("postgres") as connection:
        connection.execute("SET enable_bitmapscan = off")
        connection.execute(f"SET {without} = off")
        if without == "enable_indexonlyscan":
            connection.execute("SET enable_indexscan = off")
        plan = connection.execute("EXPLAIN SELECT id FROM ledger").fetchall()
        expected = "Seq Scan" if without == "enable_indexonlyscan" else "Index Only Scan"
        assert expected in plan[0][0], plan
        return {row[0] for row in connection.execute("SELECT id FROM ledger").fetchall()}


@contextmanager
def _server(home: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(18, home)
    server.initialise(settings=_SETTINGS)
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGQUIT)


def _standby(primary: PostgresServer, home: Path) -> PostgresServer:
    standby = PostgresServer(18, home)
    place = ["-h", str(primary.sockets), "-p", str(primary.port), "-U", "postgres"]
    primary.run("pg_basebackup", *place, "-D", standby.data, "-X", "stream", "-R", "-c", "fast")
    return standby


def _is_received_from(server: PostgresServer) -> bool:
    return bool(server.value("SELECT count(*) FROM pg_replication_slots WHERE active") == 1)


def _replayed(standby: PostgresServer, lsn: str) -> bool:
    return bool(standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"))


def _wait(true: Any, patience: float = 240.0) -> None:
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def _load(server: PostgresServer, seconds: float) -> Iterator[None]:
    """Other clients' transactions, of which nothing is compared."""
    words = ["-h", str(server.sockets), "-p", str(server.port), "-U", "postgres", "-n", "-c", "2", "-R", "150"]
    user = server._as_user()
    process = subprocess.Popen(
        [str(server.programs / "pgbench"), *words, "-T", str(int(seconds * 3) + 30), "postgres"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
    )  # fmt: skip
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """The long way, from the command line."""
    parser = argparse.ArgumentParser(description="Restore to random moments, and find exactly the committed rows.")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long the history is")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args(words)
    began = time.monotonic()
    with postgres_home() as home:
        oracle = Oracle(home, seed=arguments.seed)
        say(f"seed {arguments.seed}")
        oracle.live(arguments.seconds)
        kinds = [one.snapshots[0].effective for one in oracle.manifests]
        say(f"{len(oracle.ledger.commits)} commits, backups: {', '.join(kinds)}")
        for number, (target, last) in enumerate(oracle.moments(arguments.moments), 1):
            say(f"{number:3}  {oracle.check(target, last)}")
    say(f"all {arguments.moments} are right, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
