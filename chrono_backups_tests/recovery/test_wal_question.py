"""``wal-fetch`` and its helper as processes: what is answered is what the program alone would say. Without a server."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.recovery import wal_question, wal_spool
from chrono_backups.recovery.postgres.fetch_command import fetch_command
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.cli.conftest import KEY, Site, environment
from chrono_backups_tests.recovery.test_wal_ahead import removed, until
from chrono_backups_tests.recovery.test_wal_fetch import name, put, put_part
from chrono_backups_tests.repository.test_wal_archive import SYSTEM, segment_content


class Cluster(Site):
    """A data directory, as far as it matters here, and what is archived of its cluster."""

    archive: WalArchive
    target: str

    def served(self, asked: str, *options: str, kind: str = "XLOG", **more: str) -> int | None:
        """What a helper says; None where it is not certain."""
        self.target = f"pg_wal/RECOVERY{kind}"
        words = ["wal-fetch", "--not-archived", "10", *options, asked, self.target]
        with self.inside(**more):
            return wal_question.served(words)

    @contextmanager
    def inside(self, **more: str) -> Iterator[None]:
        before = Path.cwd()
        os.chdir(self.root)
        try:
            with mock.patch.dict(os.environ, environment({**self.settings, **more}), clear=True):
                yield
        finally:
            os.chdir(before)

    @property
    def fetched(self) -> bytes:
        path = self.root / self.target
        content = path.read_bytes()
        path.unlink()
        return content

    @property
    def spool(self) -> Path:
        return Path(wal_spool.spool_for(str(self.root / "pg_wal" / "RECOVERYXLOG")) or "")

    @property
    def helper(self) -> int | None:
        return wal_spool.helper_of(str(self.spool))

    def stored(self, number: int) -> Path:
        return next(self.repository.rglob(name(number).lower()))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "pgdata")
    for folder in ("global", "pg_wal"):
        (made.root / folder).mkdir(parents=True)
    made.settings |= {"BACKUP_LOCAL_PATH": str(made.repository), "BACKUP_ENCRYPTION_KEY": KEY}
    (made.root / "global" / "pg_control").write_bytes(int(SYSTEM).to_bytes(8, "little") + bytes(100))
    made.run("init")
    key = urlsafe_b64decode(KEY)
    repository = Repository.open(LocalStorage(made.repository), operator_key=key, clock=SystemClock())
    made.archive = WalArchive(repository, SYSTEM)
    put(made.archive, *range(5, 9))
    put_part(made.archive, 9, 9000)
    yield made
    repository.close()
    helper = made.helper
    until(lambda: removed(made.root))  # a helper may be writing
    until(lambda: helper is None or not alive(helper))  # it ends with its folder


def alive(process: int) -> bool:
    """Whether it runs; our own children stay as zombies until somebody starts another."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_what_is_certain_is_said_by_the_helper_as_by_the_program_alone(cluster: Cluster) -> None:
    asked = ["00000002.history", name(5), name(6), name(9), name(9), name(10)]
    for one in asked:
        alone = cluster.run("wal-fetch", "--not-archived", "10", one, "alone", code=None)
        kind = "HISTORY" if "history" in one else "XLOG"
        assert cluster.served(one, kind=kind) == alone.code
        assert (alone.code == 0) == (cluster.root / cluster.target).exists()
        if alone.code == 0:
            assert cluster.fetched == (cluster.root / "alone").read_bytes()
    assert cluster.helper
    # Nothing of it is remembered.
    put(cluster.archive, 10)
    cluster.archive.put_history(2, b"1\t0/A00000\tx\n")
    assert cluster.served("00000002.history", kind="HISTORY") == 0
    assert cluster.fetched == b"1\t0/A00000\tx\n"
    assert cluster.served(name(10)) == 0
    assert cluster.fetched == segment_content(10)


def test_what_is_not_certain_is_left_to_the_program(cluster: Cluster) -> None:
    assert cluster.served(name(5)) == 0
    helper = cluster.helper
    until(lambda: (cluster.spool / name(8)).exists())
    put(cluster.archive, 40)
    assert cluster.served(name(10)) is None  # a gap
    assert cluster.run("wal-fetch", name(10), cluster.target, code=126).err
    path = cluster.stored(40)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    assert cluster.served(name(40)) is None
    cluster.run("wal-fetch", name(40), cluster.target, code=126)
    away = cluster.repository.rename(cluster.root / "away")
    assert cluster.served(name(41)) is None  # a storage that does not answer
    assert cluster.served("00000002.history", kind="HISTORY") is None
    cluster.run("wal-fetch", name(41), cluster.target, code=126)
    away.rename(cluster.repository)
    assert cluster.served(name(41)) == 10
    assert cluster.helper == helper


def test_what_people_should_hear_of_is_said_by_the_program(cluster: Cluster) -> None:
    mirror = cluster.root / "mirror"
    shutil.copytree(cluster.repository, mirror)
    cluster.settings["BACKUP_LOCAL_MIRROR_PATH"] = str(mirror)
    assert cluster.served(name(10)) == 10
    cluster.repository.rename(cluster.root / "away")
    assert cluster.served(name(10)) is None
    assert "local" in cluster.run("wal-fetch", name(10), cluster.target, code=1).err


def test_settings_are_read_anew_for_each_answer(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text(f"BACKUP_LOCAL_PATH={cluster.settings.pop('BACKUP_LOCAL_PATH')}\n")
    more = ("--env-file", str(path))
    assert cluster.served(name(9), *more) == 0
    path.write_text(f"BACKUP_LOCAL_PATH={cluster.root / 'nowhere'}\n")
    assert cluster.served(name(9), *more) is None
    assert cluster.served(name(13), *more) is None


def test_a_helper_that_was_started_otherwise_is_not_asked(cluster: Cluster) -> None:
    assert cluster.served(name(9)) == 0
    assert cluster.served(name(9), BACKUP_WAL_MAX_LAG_SECONDS="7") is None
    assert cluster.served(name(9), "--storage", "local") is None
    assert cluster.served(name(9), "--system-identifier", "17") is None
    assert cluster.served(name(9), "--json") is None
    assert cluster.served(name(9)) == 0


def test_another_cluster_in_the_place_of_the_first(cluster: Cluster) -> None:
    assert cluster.served(name(5)) == 0
    (cluster.root / "global" / "pg_control").write_bytes((17).to_bytes(8, "little") + bytes(100))
    helper = cluster.helper
    assert helper
    assert cluster.served(name(10)) is None
    until(lambda: not alive(helper))
    assert not cluster.spool.parent.exists()
    assert cluster.served(name(5)) == 10  # of a new one: nothing is archived of that cluster


def test_a_helper_that_is_killed_while_it_is_asked(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.served(name(9)) == 0
    helper = cluster.helper
    assert helper
    os.kill(helper, signal.SIGSTOP)
    monkeypatch.setattr(wal_question, "PATIENCE", 0.2)
    with mock.patch.object(wal_question, "_remove"):  # it has been read already
        assert cluster.served(name(9)) is None
    (cluster.root / cluster.target).unlink()
    assert cluster.served(name(9)) is None
    assert len(list(cluster.spool.glob(f"{wal_question.QUESTION}*"))) == 1
    os.kill(helper, signal.SIGCONT)
    # Its answer comes late, and not into the server's place.
    until(lambda: list(cluster.spool.glob(f"{wal_question.FOUND}*")))
    assert not (cluster.root / cluster.target).exists()
    os.kill(helper, signal.SIGSTOP)
    monkeypatch.setattr(wal_question, "WAIT", 0.01)
    monkeypatch.setattr(wal_question, "PATIENCE", 100)
    killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -KILL {helper}"])
    began = time.monotonic()
    assert cluster.served(name(9)) is None
    assert time.monotonic() - began < 60
    killer.wait()
    (cluster.spool / f"{wal_question.QUESTION}3").write_bytes(name(9).encode() + b"\0x")  # of one who went as well
    assert cluster.served(name(9)) == 0
    assert cluster.helper != helper
    assert not list(cluster.spool.glob(f"{wal_question.FOUND}*"))


def test_trouble_with_the_spool_is_no_end_of_the_log(cluster: Cluster) -> None:
    cluster.spool.mkdir(parents=True)
    lock = cluster.spool / wal_spool.LOCK
    lock.write_text("no number")
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        words = ("wal-fetch", name(9), "pg_wal/RECOVERYXLOG")
        cluster.run(*words)
        cluster.repository.rename(cluster.root / "away")
        cluster.run(*words, code=126)


def test_each_answer_is_recorded_where_that_is_wanted(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    cluster.settings |= {"BACKUP_AUDIT_ENABLED": "true", "BACKUP_AUDIT_LOG_FILE": str(log)}
    cluster.settings |= {"BACKUP_AUDIT_LOG_ALL_OPERATIONS": "true"}
    for asked in (name(9), name(10)):
        assert cluster.served(asked) is not None
    recorded = [json.loads(line) for line in log.read_text().splitlines()]
    ends = [one for one in recorded if one.get("operation", one.get("act")) == "wal-fetch"]
    assert name(9) in str(ends) and name(10) in str(ends)


def test_the_command_that_a_restored_server_runs(cluster: Cluster, tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    settings.write_text("".join(f"{key}={value}\n" for key, value in cluster.settings.items()))
    command = fetch_command(str(settings), None)
    assert sys.executable in command

    def asked(one: str, kind: str = "XLOG", command: str = command) -> int:
        cluster.target = f"pg_wal/RECOVERY{kind}"
        words = command.replace("%f", one).replace("%p", cluster.target).replace("%%", "%")
        done = subprocess.run(["/bin/sh", "-c", words], cwd=cluster.root, env=environment({}), check=False)
        return done.returncode

    assert asked(name(5)) == 0
    assert cluster.fetched == segment_content(5)
    until(lambda: (cluster.spool / name(6)).exists())
    without = command.replace(sys.executable, "false")
    assert asked(name(6), command=without) == 0  # by the shell alone
    assert cluster.fetched == segment_content(6)
    assert asked("00000002.history", "HISTORY") == 1
    assert asked("00000002.history", "HISTORY", without) == 126
    other = cluster.spool.with_name("another-boot")
    other.mkdir()
    (cluster.spool / name(7)).rename(other / name(7))
    assert asked(name(7), command=without) == 126
    assert asked(name(9)) == 0
