"""Clusters come back, start, and hold what they held; what can't be done is refused before a byte is written."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.errors import Damaged, RestoreError, TargetNotEmpty, UsageError
from chrono_backups.recovery.plan import STAGING, plan_restore
from chrono_backups.recovery.postgres import restore as cluster_restore
from chrono_backups.recovery.postgres.restore import SOURCE, ClusterOptions, ClusterPlan, plan_cluster, start_cluster
from chrono_backups.recovery.postgres.server import Server
from chrono_backups.recovery.postgres.target import parse_target
from chrono_backups.recovery.restore import RestoreReport, restore
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups_tests.recovery.postgres.clusters import need, owner_of, protected
from chrono_backups_tests.recovery.postgres.conftest import Taken
from chrono_backups_tests.servers.postgres import PostgresServer, postgres_home, server_user


@pytest.fixture
def home() -> Iterator[Path]:
    with postgres_home() as made:
        yield made


@pytest.fixture
def repository(taken: Taken) -> Iterator[Repository]:
    with taken.protected.open() as opened:
        yield opened


def options(version: int = 18, **more: object) -> ClusterOptions:
    return ClusterOptions(**{"start": True, "programs": [need(version)], "restore_command": "false", **more})  # type: ignore[arg-type]


def restored(repository: Repository, plan: ClusterPlan) -> RestoreReport:
    whole = plan_restore(repository, plan.backup_id, plan.directory, sources=[SOURCE], placed=plan.placed)
    return restore(repository, whole, arrangements={SOURCE: plan.arrangement()})


def started(repository: Repository, plan: ClusterPlan) -> Server:
    server, supply, reached = start_cluster(repository, plan, clock=SystemClock(), settings={"fsync": "off"})
    supply.remove()
    assert reached.state == "running"
    assert reached.timeline == int(plan.facts["timeline"]) + 1
    return server


@pytest.mark.parametrize("which", ["full", "incremental"])
def test_a_backup_starts_and_holds_what_it_held(taken: Taken, repository: Repository, home: Path, which: str) -> None:
    manifest: Manifest = getattr(taken, which)
    plan = plan_cluster(repository, manifest, home / "out", options())
    report = restored(repository, plan)
    assert report.findings == []
    assert sorted(os.listdir(home / "out")) == ["postgres", "postgres-tablespaces"]
    assert stat.S_IMODE(plan.data.stat().st_mode) == 0o700
    # Its own manifest is of a full backup's files, and not of these once a tablespace is linked elsewhere.
    assert not (plan.data / "backup_manifest").exists()
    server = started(repository, plan)
    try:
        rows = 100_000 if which == "full" else taken.accounts
        with server.sql("postgres") as connection:
            for way in ("enable_indexonlyscan", "enable_seqscan"):
                connection.execute(f"SET {way} = off")
                assert connection.execute("SELECT count(*) FROM pgbench_accounts").fetchone() == (rows,)
                connection.execute(f"RESET {way}")
            assert connection.execute("SELECT count(*) FROM elsewhere").fetchone() == (
                1000 if which == "full" else 1001,
            )
            assert connection.execute("SHOW archive_mode").fetchone() == ("off",)
    finally:
        server.stop()
    assert not Path(f"/proc/{server.pid}").exists()


def test_the_owner_is_the_captured_one_or_the_one_asked_for(taken: Taken, repository: Repository, home: Path) -> None:
    user = server_user()
    if user is None:
        pytest.skip("needs root, to give files to another user")
    plan = plan_cluster(repository, taken.full, home / "out", options())
    restored(repository, plan)
    every = [plan.data, *plan.data.rglob("*"), home / "out" / "postgres-tablespaces"]
    assert {owner_of(path) for path in every} == {(user.pw_uid, user.pw_gid)}
    other = (12345, 12346)
    plan = plan_cluster(repository, taken.full, home / "other", options(owner=other))
    restored(repository, plan)
    assert {owner_of(path) for path in (plan.data, *plan.data.rglob("*"))} == {other}
    server = started(repository, plan)
    server.stop()


def test_a_tablespace_goes_where_it_is_mapped_to(taken: Taken, repository: Repository, home: Path) -> None:
    (old,) = taken.full.snapshots[0].facts["tablespaces"]
    new = home / "fast disk"
    for name in (old["path"], str(old["oid"])):
        plan = plan_cluster(repository, taken.incremental, home / f"by{len(name)}", options(tablespaces={name: new}))
        restored(repository, plan)
        link = plan.data / "pg_tblspc" / str(old["oid"])
        assert link.readlink() == new
        assert not (plan.directory / "postgres-tablespaces").exists()
        assert [path.name[:3] for path in new.iterdir()] == ["PG_"]
        server = started(repository, plan)
        with server.sql("postgres") as connection:
            assert connection.execute("SELECT count(*) FROM elsewhere").fetchone() == (1001,)
        server.stop()
        # A place that holds something is refused: the second one is made anew.
        with pytest.raises(TargetNotEmpty, match="fast disk is not empty"):
            restored(repository, plan_cluster(repository, taken.full, home / "no", options(tablespaces={name: new})))
        assert not (home / "no").exists()
        new.rename(home / f"was{len(name)}")
    with pytest.raises(UsageError, match="no tablespace /nowhere"):
        plan_cluster(repository, taken.full, home / "no", options(tablespaces={"/nowhere": new}))


def test_what_would_harm_the_old_server_s_world_is_switched_off(home: Path) -> None:
    harmful = {
        "archive_mode": "on",
        "archive_command": "true",
        "synchronous_standby_names": "nobody",
        "recovery_end_command": "false",
        "recovery_target_time": "2020-01-01 00:00:00+00",
        "max_connections": "61",
        "synchronous_commit": "local",
    }
    with protected(18, settings=harmful) as cluster:
        cluster.server.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
        cluster.server.configure(include="/nowhere/else.conf", external_pid_file="/nowhere/pid")
        manifest = cluster.back_up()
        with cluster.open() as repository:
            plan = plan_cluster(repository, manifest, home / "out", options())
            arrangement = plan.arrangement()
            whole = plan_restore(repository, plan.backup_id, plan.directory, sources=[SOURCE])
            restore(repository, whole, arrangements={SOURCE: arrangement})
            told = " ".join(arrangement.configured.switched_off)
            for name in ("archive_mode", "synchronous_standby_names", "primary_conninfo", "recovery_end_command"):
                assert name in told
            assert "/nowhere/else.conf" in " ".join(arrangement.configured.notes)
            # By itself too, as its operator would start it: by no words of the command line.
            by_hand = PostgresServer(18, home / "by hand", plan.data)
            by_hand.configure(restore_command="false")
            (plan.data / "postgresql.auto.conf").open("a").write("restore_command = 'false'\n")
            by_hand.start()
            try:
                by_hand.wait_promoted()
                for name, value in {
                    "archive_mode": "off",
                    "archive_command": "(disabled)",
                    "synchronous_standby_names": "",
                    "primary_conninfo": "",
                    "max_connections": "61",
                }.items():
                    assert by_hand.value(f"SHOW {name}") == value
                by_hand.execute("CREATE TABLE written AS SELECT 1")
            finally:
                by_hand.stop(signal.SIGQUIT)


def test_a_configuration_kept_elsewhere_is_made_anew(taken: Taken, repository: Repository, home: Path) -> None:
    plan = plan_cluster(repository, taken.full, home / "out", options())
    arrangement = plan.arrangement()
    arrange = arrangement.arrange

    def without_conf(staged: Path) -> object:
        (staged / "data" / "postgresql.conf").unlink()
        (staged / "data" / "pg_hba.conf").unlink()
        return arrange(staged)

    arrangement.arrange = without_conf  # type: ignore[method-assign,assignment]
    whole = plan_restore(repository, plan.backup_id, plan.directory, sources=[SOURCE])
    restore(repository, whole, arrangements={SOURCE: arrangement})
    assert len(arrangement.configured.notes) == 2
    server = started(repository, plan)
    with server.sql() as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("40",)
    server.stop()


def test_a_damaged_file_fails_the_restore_and_no_server_starts(home: Path) -> None:
    with protected(18) as cluster:
        manifest = cluster.back_up()
        for pack in [path for path in (cluster.place / "packs").rglob("*") if path.is_file() and _large(path)]:
            content = bytearray(pack.read_bytes())
            content[len(content) // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(content)
        with cluster.open() as repository:
            plan = plan_cluster(repository, manifest, home / "out", options())
            with pytest.raises(Damaged, match=r"can't be restored: \d+ of its files are damaged") as raised:
                restored(repository, plan)
            assert raised.value.key
            assert list((home / "out").iterdir()) == []


class TestRefused:
    def test_a_server_of_the_wrong_version(self, taken: Taken, repository: Repository, home: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        monkeypatch.setattr("chrono_backups.sources.postgres.programs._PLACES", ())
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(RestoreError, match=r"no server programs of PostgreSQL 18 .* found: 16\.") as raised:
            plan_cluster(repository, taken.full, home / "out", options(16))
        assert "BACKUP_POSTGRES_BIN_DIR" in raised.value.hint
        assert not (home / "out").exists()

    def test_a_place_that_the_server_s_user_can_t_enter(self, taken: Taken, repository: Repository, home: Path) -> None:
        if server_user() is None:
            pytest.skip("needs root, to be another user than the server's")
        (home / "mine").mkdir(mode=0o700)
        with pytest.raises(RestoreError, match=r"the server would run as nobody, who can't enter .*/mine"):
            plan_cluster(repository, taken.full, home / "mine" / "out", options())

    def test_a_target_before_the_end_of_the_backup(self, taken: Taken, repository: Repository, home: Path) -> None:
        facts = taken.incremental.snapshots[0].facts
        early = taken.full.snapshots[0].facts
        for target in (parse_target(early["stop_time"]), parse_target(None, early["end_lsn"])):
            with pytest.raises(RestoreError, match=f"is before the end of {taken.incremental.backup_id}"):
                plan_cluster(repository, taken.incremental, home / "out", options(target=target))
            chosen = cluster_restore.choose_base(repository, target, [SOURCE])
            assert chosen.backup_id == taken.full.backup_id
        with pytest.raises(RestoreError, match=f"oldest backup, {taken.full.backup_id}, ends at"):
            cluster_restore.choose_base(repository, parse_target("2020-01-01"), [])
        at_its_end = parse_target(facts["stop_time"])
        assert cluster_restore.choose_base(repository, at_its_end, []).backup_id == taken.incremental.backup_id

    def test_a_target_that_is_none(self) -> None:
        for words in (
            {"time": "yesterday"}, {"lsn": "7"}, {"name": ""}, {"name": "x" * 64}, {"time": "latest", "lsn": "0/1"},
            {"timeline": "x"},
        ):  # fmt: skip
            with pytest.raises(UsageError):
                parse_target(**words)  # type: ignore[arg-type]


def test_a_killed_restore_leaves_nothing_that_the_next_one_does_not_remove(
    taken: Taken, repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = taken.full.snapshots[0].facts["tablespaces"]
    plan = plan_cluster(repository, taken.full, home / "out", options(tablespaces={old["path"]: home / "ts"}))
    (home / "ts" / f"{STAGING}1234").mkdir(parents=True)
    (home / "out" / f"{STAGING}1234").mkdir(parents=True)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("chrono_backups.recovery.postgres.arrangement.configure", die)
        with pytest.raises(KeyboardInterrupt):
            restored(repository, plan)
    assert list((home / "out").iterdir()) == list((home / "ts").iterdir()) == []
    restored(repository, plan)
    assert [path.name for path in (home / "out").iterdir()] == ["postgres"]


@pytest.mark.parametrize("version", [16, 15])
def test_older_servers_too(version: int, home: Path) -> None:
    with protected(version) as cluster:
        manifest = cluster.back_up()
        with cluster.open() as repository:
            plan = plan_cluster(repository, manifest, home / "out", options(version))
            restored(repository, plan)
            server = started(repository, plan)
            with server.sql("postgres") as connection:
                assert connection.execute("SELECT count(*) FROM elsewhere").fetchone() == (1000,)
            server.stop()


def test_a_part_is_restored_as_files(taken: Taken, repository: Repository, home: Path) -> None:
    from chrono_backups.recovery.postgres.arrangement import ClusterArrangement

    plan = plan_restore(repository, taken.full.backup_id, home / "out", sources=[SOURCE], patterns=["PG_VERSION"])
    restore(repository, plan, arrangements={SOURCE: ClusterArrangement.of_files(home / "out", None)})
    assert (home / "out" / "postgres" / "PG_VERSION").read_text() == "18\n"
    assert not (home / "out" / "postgres" / "recovery.signal").exists()


def _large(pack: Path) -> bool:
    """Of contents: listings have packs of their own, and damage to them is found while planning."""
    return pack.stat().st_size > 500_000
