"""Drills find what is wrong, keep evidence, and leave nothing behind, however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.errors import InsufficientSpace, RestoreError, UsageError
from chrono_backups.maintenance.forget import plan_forget
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.recovery.checks.syntax import parse_checks
from chrono_backups.recovery.drill import drill
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport
from chrono_backups.recovery.postgres import drill as cluster_drill
from chrono_backups.recovery.postgres.drill import drill_cluster
from chrono_backups.recovery.postgres.target import parse_target
from chrono_backups.recovery.restore import RestoreReport, restore
from chrono_backups.recovery.scratch import PREFIX
from chrono_backups.repository.evidence import evidence, proven
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.postgres.base_backup import BaseBackup
from chrono_backups_tests.backup.taking import KEY, Heard
from chrono_backups_tests.cli.conftest import COMMAND, environment
from chrono_backups_tests.recovery.postgres.clusters import Protected, need, protected
from chrono_backups_tests.recovery.postgres.conftest import Taken
from chrono_backups_tests.servers.postgres import PASSWORD, postgres_home


@pytest.fixture
def home() -> Iterator[Path]:
    with postgres_home() as made:
        yield made


@pytest.fixture
def repository(taken: Taken) -> Iterator[Repository]:
    with taken.protected.open() as opened:
        yield opened


def options(home: Path, **more: Any) -> DrillOptions:
    return DrillOptions(**{"place": home, "programs": [need(18)], **more})


def codes(report: DrillReport) -> set[str]:
    found = [finding for one in report.sources for proof in one.proofs for finding in proof.findings]
    found += [finding for one in report.sources for finding in one.findings]
    return {finding.code for finding in found if finding.severity == "error"}


def servers_below(place: Path) -> list[int]:
    """Servers whose data directory lies there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if command[0].endswith(b"/postgres") and os.fsencode(place) in b" ".join(command):
                found.append(int(entry.name))
    return found


def test_a_good_backup_is_proven_and_kept_for_it(taken: Taken, repository: Repository, home: Path) -> None:
    heard = Heard()
    report = drill(repository, taken.incremental, options(home), listener=heard)
    assert codes(report) == set()
    assert report.proven
    assert list(home.iterdir()) == []
    cluster, files = report.sources
    assert {proof.name for proof in cluster.proofs} == {
        "databases", "sample", "visibility maps", "pg_amcheck", "pg_checksums",
    }  # fmt: skip
    words = {proof.name: proof.done for proof in cluster.proofs}
    assert "0 tables" not in words["sample"] and "tables" in words["sample"]
    assert cluster.reached is not None and cluster.reached["state"] == "running"
    assert [proof.name for proof in files.proofs] == ["read back"]
    assert proven(repository) == {taken.incremental.backup_id}
    (kept,) = evidence(repository, taken.incremental.backup_id)
    assert kept.name == report.evidence
    assert kept.details["sources"][0]["proofs"]
    plan = plan_forget(repository, RetentionPolicy(retention_days=0, min_backups_to_keep=1), repository.clock.now())
    reasons = {one.backup_id: one.reasons for one in plan.verdicts}
    assert any("proven by a drill" in reason for reason in reasons[taken.incremental.backup_id])


def test_the_operators_checks_are_asked_of_all_that_stand_together(
    taken: Taken, repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*words: Any, **named: Any) -> RestoreReport:
        time.sleep(0.5)
        return restore(*words, **named)

    monkeypatch.setattr(cluster_drill, "restore", slowly)
    site = taken.protected.site
    checks = parse_checks(
        f"""
        accounts: sql "select count(*) from pgbench_accounts" == {taken.accounts}
        files: files "{site}/small/*" == sql "select 30"
        large: files "{site}/large" within 1 of sql(template1) "select count(*) from pg_database where false"
        few: sql "select count(*) from pgbench_accounts" < files "/**"
        rows: sql "select 1 union all select 2" == 1
        nothing: sql "select * from not_there" == 1
        redis: redis "DBSIZE" == 1
        """
    )
    report = drill(repository, taken.incremental, options(home, checks=checks))
    assert codes(report) == set(), "what was restored is right; the checks have a verdict of their own"
    results = {one.name: one for one in report.checks}
    assert [name for name, one in results.items() if one.good] == ["accounts", "files", "large"]
    assert results["few"].problem.startswith(f"{taken.accounts} is not < ")
    assert "more than one rows of 1 columns" in results["rows"].problem
    assert "does not exist" in results["nothing"].problem
    assert "redis could not be asked" in results["redis"].problem
    assert not report.good and not report.proven
    assert {one.code for one in report.errors} == {"drill-check"}
    kept = evidence(repository, taken.incremental.backup_id)[0]
    assert [one["good"] for one in kept.details["checks"]] == [True, True, True, False, False, False, False]
    assert 0 < kept.details["recovery_seconds"] < kept.details["seconds"]
    assert [one.source for one in report.sources] == ["postgres", "files"], "in the order of the backup"
    assert all(one.ready_seconds <= one.seconds for one in report.sources), "none is charged for the others"
    assert report.sources[0].ready_seconds > 0.5, "the time that it takes to put it back is part of it"
    assert list(home.iterdir()) == []


def test_a_part_proves_nothing_of_the_backup(taken: Taken, repository: Repository, home: Path) -> None:
    report = drill(repository, taken.full, options(home, sources=["files"]))
    assert report.good and not report.proven
    assert taken.full.backup_id not in proven(repository)


def test_a_stale_visibility_map_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server's own incremental backups give: rows that are gone, for who reads an index alone."""
    keep = BaseBackup.__init__

    def with_maps(self: BaseBackup, *words: Any, skip_maps: bool, **more: Any) -> None:
        keep(self, *words, skip_maps=False, **more)

    with protected(18) as cluster:
        cluster.back_up("full")
        cluster.server.execute("DELETE FROM pgbench_accounts WHERE aid % 10 = 0")
        with monkeypatch.context() as patched:
            patched.setattr(BaseBackup, "__init__", with_maps)
            stale = cluster.back_up("incremental")
        assert stale.snapshots[0].effective == "incremental"
        with cluster.open() as repository:
            report = drill(repository, stale, options(home, sources=["postgres"]))
            assert not report.good
            assert "drill-counts-differ" in codes(report)
            assert proven(repository) == set()


def test_rows_that_are_not_the_captured_ones_are_seen(
    taken: Taken, repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = drill_cluster

    def tampered(*words: Any) -> None:
        from chrono_backups.recovery.postgres import drill as of_clusters

        ask = of_clusters._ask

        def ask_after(server: Any, *more: Any, **options: Any) -> None:
            with server.sql("postgres") as connection:
                connection.execute("UPDATE elsewhere SET n = n + 1 WHERE n = 7")
            ask(server, *more, **options)

        with monkeypatch.context() as patched:
            patched.setattr(of_clusters, "_ask", ask_after)
            run(*words)

    monkeypatch.setattr("chrono_backups.recovery.drill_table.drill_cluster", tampered)
    report = drill(repository, taken.incremental, options(home, sources=["postgres"]))
    assert codes(report) == {"postgres-sample-differs"}


def test_a_file_that_came_out_otherwise_is_seen(
    taken: Taken, repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = str(taken.protected.site).lstrip("/")

    def spoilt(repository: Repository, plan: Any, **more: Any) -> Any:
        report = restore(repository, plan, **more)
        root = plan.target / "files" / site
        for name in ("large", "small/3"):
            stamp = os.stat(root / name).st_mtime_ns
            content = bytearray((root / name).read_bytes())
            content[-1] ^= 1
            (root / name).write_bytes(content)
            os.utime(root / name, ns=(stamp, stamp))
        (root / "empty").chmod(0o600)
        (root / "deep" / "er" / "x").unlink()
        return report

    monkeypatch.setattr("chrono_backups.recovery.drill_tree.restore", spoilt)
    report = drill(repository, taken.full, options(home, sources=["files"]))
    (proof,) = report.sources[0].proofs
    named = {finding.subject.rsplit(site, 1)[1] for finding in proof.findings}
    assert named == {"/large", "/small/3", "/empty", "/deep/er/x"}
    assert not report.good


class TestRefused:
    """Before anything is written, and without evidence: it says nothing of the backup."""

    @pytest.fixture(autouse=True)
    def _nothing_comes_of_it(self, taken: Taken, home: Path) -> Iterator[None]:
        with taken.protected.open() as repository:
            before = len(evidence(repository))
            yield
            assert len(evidence(repository)) == before
        assert list(home.iterdir()) == []

    def test_no_server_programs(self, taken: Taken, repository: Repository, home: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        monkeypatch.setattr("chrono_backups.sources.postgres.programs._PLACES", ())
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(RestoreError, match="no server programs of PostgreSQL 18"):
            drill(repository, taken.full, options(home, programs=[]))

    def test_no_room(self, taken: Taken, repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _path: _Usage())
        with pytest.raises(InsufficientSpace, match="the drill needs"):
            drill(repository, taken.full, options(home))

    def test_no_such_place(self, taken: Taken, repository: Repository, home: Path) -> None:
        with pytest.raises(UsageError, match="is no directory"):
            drill(repository, taken.full, options(home, place=home / "missing"))

    def test_a_target_without_wal(self, taken: Taken, repository: Repository, home: Path) -> None:
        with pytest.raises(RestoreError, match="can't be reached: no WAL is stored"):
            drill(repository, taken.full, options(home, target=parse_target("2099-01-01")))


class _Usage:
    free = 1


class Program:
    """The command line on a protected cluster."""

    def __init__(self, cluster: Protected, place: Path) -> None:
        self.place = place
        self._home = cluster.home
        self._settings = {
            "BACKUP_LOCAL_PATH": str(cluster.place),
            "BACKUP_ENCRYPTION_KEY": urlsafe_b64encode(KEY).decode(),
            "BACKUP_POSTGRES_BIN_DIR": str(need(18)),
            "BACKUP_DRILL_DIR": str(place),
            "BACKUP_POSTGRES_HOST": "127.0.0.1",
            "BACKUP_POSTGRES_PORT": str(cluster.server.port),
            "BACKUP_POSTGRES_USER": "backup",
            "BACKUP_POSTGRES_PASSWORD": PASSWORD,
            "TMPDIR": str(cluster.home),
        }

    def start(self, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, *words], cwd=self._home, env=environment(self._settings | settings), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        return out.decode(), err.decode()


@pytest.fixture
def program(taken: Taken, home: Path) -> Program:
    return Program(taken.protected, home)


def test_the_verb_proves_and_lists(taken: Taken, program: Program) -> None:
    report = json.loads(program.run("drill", taken.full.backup_id, "--json", "--no-amcheck")[0])
    assert report["proven"] and report["backup_id"] == taken.full.backup_id
    listed = json.loads(program.run("drill", "--list", "--json")[0])
    assert taken.full.backup_id in {one["backup_id"] for one in listed if one["proven"]}
    text = program.run("drill", "--list")[0]
    assert "proven" in text and taken.full.backup_id in text
    assert list(program.place.iterdir()) == []


ENDLESS = 'endless: sql "select count(*) from pg_sleep(500)" == 1'
"""A check that lasts longer than anything a test waits for: the drill is not over before it is stopped."""


def _until_it_runs(place: Path, process: subprocess.Popen[bytes]) -> list[int]:
    until = time.monotonic() + 240
    while not (found := servers_below(place)):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    return found


def test_a_killed_drill_is_swept_by_the_next_one(program: Program) -> None:
    process = program.start("drill", "--source", "postgres", BACKUP_DRILL_CHECKS=ENDLESS)
    servers = _until_it_runs(program.place, process)
    process.kill()
    process.communicate()
    assert [path.name[: len(PREFIX)] for path in program.place.iterdir()] == [PREFIX]
    _, said = program.run("drill", "--source", "files")
    assert "what a drill that was killed had left was removed" in said
    assert list(program.place.iterdir()) == []
    assert servers_below(program.place) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in servers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_drill_leaves_nothing(program: Program, number: signal.Signals) -> None:
    process = program.start("drill", "--source", "postgres", BACKUP_DRILL_CHECKS=ENDLESS)
    _until_it_runs(program.place, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said.decode()
    assert b"what was restored is removed" in said
    assert list(program.place.iterdir()) == []
    assert servers_below(program.place) == []
