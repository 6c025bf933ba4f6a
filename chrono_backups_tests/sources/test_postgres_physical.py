"""Base backups of real servers: what an incremental puts together is what a full one reads; why it may not be."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.errors import BackupFailed
from chrono_backups.identifiers import BackupType
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.postgres.source import PostgresSource
from chrono_backups.sources.settings import PostgresSettings
from chrono_backups_tests.backup.taking import Heard, in_repository, new_repository, snapshot_of, take
from chrono_backups_tests.servers.postgres import (
    PASSWORD,
    PostgresServer,
    postgres_home,
    postgres_server,
    programs,
)

QUIET = {"autovacuum": "off", "checkpoint_timeout": "1h"}


def settings(server: PostgresServer, **changes: Any) -> PostgresSettings:
    known = {"host": "127.0.0.1", "port": server.port, "user": "backup", "password": PASSWORD, "db": "postgres"}
    return PostgresSettings.model_validate({**known, **changes})


def needed(version: int) -> int:
    if programs(version) is None:
        pytest.skip(f"needs PostgreSQL {version}")
    return version


@pytest.fixture(scope="module", params=[18])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with postgres_server(needed(request.param), settings=QUIET) as running:
        running.add_role("backup")
        running.load(scale=2)
        yield running


def relations(repository: Repository, manifest: Manifest) -> dict[bytes, bytes]:
    """The relation files of a snapshot, without the maps that the server makes anew."""
    things = in_repository(repository, snapshot_of(repository, manifest, "postgres"))
    return {
        path: thing.content
        for path, thing in things.items()
        if stat.S_ISREG(thing.mode)
        and path.startswith((b"data/base/", b"tablespaces/"))
        and not path.endswith((b"_vm", b"_fsm", b"pg_internal.init"))
    }


def slots(server: PostgresServer) -> list[Any]:
    return server.execute("SELECT slot_name FROM pg_replication_slots")


def test_increments_put_together_are_what_a_full_one_reads(server: PostgresServer) -> None:
    repository, source = new_repository(), PostgresSource(settings(server))
    assert take(repository, "full", source).snapshots[0].effective == "full"
    for round_ in range(3):
        server.transact(200)
        server.execute(f"CREATE TABLE made_{round_} AS SELECT g, repeat('x', 300) FROM generate_series(1, 20000) g")
        if round_ == 1:
            server.execute("DELETE FROM made_0 WHERE g > 100")
            server.execute("VACUUM made_0")  # cuts the file
        if round_ == 2:
            server.execute("DROP TABLE made_1")
            server.execute("VACUUM FULL pgbench_branches")
        kind: BackupType = "differential" if round_ == 1 else "incremental"
        manifest = take(repository, kind, source)
        snapshot = snapshot_of(repository, manifest, "postgres")
        assert snapshot.effective == kind, snapshot.reason
        assert snapshot.statistics.bytes_read < snapshot.statistics.bytes_total * 0.75
    put_together = relations(repository, manifest)
    read_whole = relations(repository, take(repository, "full", source))
    assert put_together.keys() == read_whole.keys()
    assert [path for path in read_whole if put_together[path] != read_whole[path]] == []
    assert slots(server) == []


def test_what_the_server_says_is_recorded(server: PostgresServer) -> None:
    manifest = take(new_repository(), "full", PostgresSource(settings(server)))
    facts = manifest.snapshots[0].facts
    control = server.run("pg_controldata", "-D", server.data).stdout
    assert facts["system_identifier"] in control
    assert facts["timeline"] == 1
    assert facts["method"] == "physical"
    assert facts["server_version_num"] // 10000 == server.version
    assert facts["block_size"] == 8192
    assert facts["wal_segment_size"] == 16 * 1024 * 1024
    assert facts["data_checksums"] is True
    assert facts["from_standby"] is False
    assert facts["start_time"] < facts["stop_time"]
    assert server.value(f"SELECT '{facts['start_lsn']}'::pg_lsn < '{facts['end_lsn']}'::pg_lsn")


@pytest.mark.parametrize("version", [16, 15])
def test_a_server_without_increments_gives_full_ones_and_says_why(version: int) -> None:
    with postgres_server(needed(version), settings=QUIET) as server:
        server.add_role("backup")
        repository, source = new_repository(), PostgresSource(settings(server))
        take(repository, "full", source)
        manifest = take(repository, "incremental", source)
        assert manifest.snapshots[0].effective == "full"
        assert f"PostgreSQL {version} knows no incremental" in manifest.snapshots[0].reason
        assert manifest.statistics.bytes_added < 20_000_000


def test_another_cluster_is_not_built_on_and_neither_is_a_server_without_summaries(server: PostgresServer) -> None:
    repository = new_repository()
    take(repository, "full", PostgresSource(settings(server)))
    with postgres_server(needed(18), settings={**QUIET, "summarize_wal": "off"}) as other:
        other.add_role("backup")
        source = PostgresSource(settings(other))
        reasons = [take(repository, "incremental", source).snapshots[0].reason for _ in range(2)]
        assert "is of the cluster" in reasons[0]
        assert "summarize_wal = on" in reasons[1]
        other.execute("ALTER SYSTEM SET summarize_wal = on")
        other.reload()
        late = take(repository, "incremental", source).snapshots[0]
        # The WAL since the last backup was not summarised when it was written; the server makes up for what is
        # still there, or says that it can't.
        assert late.effective == "incremental" or "can't tell what changed" in late.reason


def test_after_a_promotion_comes_a_full_one() -> None:
    with postgres_server(needed(18), settings=QUIET) as primary, postgres_home() as home:
        primary.add_role("backup")
        repository = new_repository()
        take(repository, "full", PostgresSource(settings(primary)))
        primary.run("pg_basebackup", "-h", primary.sockets, "-p", str(primary.port), "-U", "postgres",
                    "-D", primary.home / "standby", "-R", "-c", "fast")  # fmt: skip
        standby = PostgresServer(18, home / "b", primary.home / "standby")
        standby.start()
        try:
            from_standby = take(repository, "full", PostgresSource(settings(standby))).snapshots[0]
            assert from_standby.facts["from_standby"] is True
            primary.stop()
            standby.promote()
            manifest = take(repository, "incremental", PostgresSource(settings(standby))).snapshots[0]
            assert manifest.effective == "full"
            assert "on timeline 1, and the server on 2" in manifest.reason
            assert manifest.facts["timeline"] == 2
        finally:
            standby.stop(signal.SIGQUIT)


def test_tablespaces_come_with_it(server: PostgresServer) -> None:
    place = server.home / "fast disk"
    place.mkdir()
    server.give(place)
    server.execute(f"CREATE TABLESPACE fast LOCATION '{place}'")
    try:
        server.execute("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 50000)")
        repository, source = new_repository(), PostgresSource(settings(server))
        manifest = take(repository, "full", source)
        oid = server.value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
        assert manifest.snapshots[0].facts["tablespaces"] == [{"oid": oid, "path": str(place)}]
        server.execute("UPDATE there SET generate_series = 1 WHERE generate_series % 1000 = 0")
        put_together = relations(repository, take(repository, "incremental", source))
        read_whole = relations(repository, take(repository, "full", source))
        assert any(path.startswith(b"tablespaces/%d/PG_18" % oid) for path in read_whole)
        assert put_together == read_whole
    finally:
        server.execute("DROP TABLE IF EXISTS there")
        server.execute("DROP TABLESPACE fast")


def test_damaged_pages_are_an_error_that_names_the_file(server: PostgresServer) -> None:
    with postgres_server(needed(18), settings=QUIET) as broken:
        broken.add_role("backup")
        broken.load()
        path = broken.value("SELECT pg_relation_filepath('pgbench_accounts')")
        broken.stop()
        with (broken.data / path).open("r+b") as file:
            file.seek(5 * 8192 + 4000)
            file.write(b"bit rot")
        broken.start()
        heard = Heard()
        manifest = take(new_repository(), "full", PostgresSource(settings(broken)), listener=heard)
        assert manifest.status == "complete"
        found = next(one for one in heard.findings if one.code == "postgres-checksum-failure")
        assert found.severity == "error"
        assert path in found.message


def test_without_a_free_slot_the_backup_is_taken_and_says_so() -> None:
    with postgres_server(needed(18), settings={**QUIET, "max_replication_slots": "1"}) as server:
        server.add_role("backup")
        server.execute("SELECT pg_create_physical_replication_slot('taken')")
        heard = Heard()
        assert take(new_repository(), "full", PostgresSource(settings(server)), listener=heard).status == "complete"
        assert "postgres-no-guard-slot" in heard.codes
        assert slots(server) == [("taken",)]


@pytest.mark.parametrize(
    ("changes", "says", "remedy"),
    [
        ({"password": "wrong"}, "password authentication failed", "BACKUP_POSTGRES_PASSWORD"),
        ({"user": "weak"}, "permission denied to start WAL sender", 'ALTER ROLE "weak" REPLICATION;'),
        ({"user": "stranger"}, "password authentication failed", "BACKUP_POSTGRES_USER"),
        ({"port": 1}, "Connection refused", "server runs"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid", "server runs"),
    ],
)
def test_what_keeps_it_from_beginning_is_named(
    server: PostgresServer, changes: dict[str, Any], says: str, remedy: str
) -> None:
    if changes.get("user") == "weak" and not server.execute("SELECT 1 FROM pg_roles WHERE rolname = 'weak'"):
        server.add_role("weak", "LOGIN")
    with pytest.raises(BackupFailed) as failure:
        take(new_repository(), "full", PostgresSource(settings(server, **changes)))
    reason = failure.value.failures["postgres"]
    assert says in reason
    assert PASSWORD not in reason
    assert remedy in reason


def test_a_killed_backup_leaves_nothing_on_the_server(server: PostgresServer, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        from chrono_backups.clock import SystemClock
        from chrono_backups.sources.postgres.physical import base_backup
        from chrono_backups.sources.settings import PostgresSettings
        known = {{"host": "127.0.0.1", "port": {server.port}, "user": "backup", "password": sys.argv[1]}}
        with base_backup(PostgresSettings.model_validate(known), None, "full", print, SystemClock()) as backup:
            for entry in backup.entries():
                if entry.size > 100000:
                    entry.read_into(memoryview(bytearray(1000)))
                    print("under way", flush=True)
                    time.sleep(600)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, PASSWORD],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    assert len(slots(server)) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 120
    while slots(server) or server.value("SELECT count(*) FROM pg_stat_progress_basebackup"):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_server_that_goes_away_fails_the_backup_and_nothing_is_visible() -> None:
    with postgres_server(needed(18), settings=QUIET) as server:
        server.add_role("backup")
        server.load(scale=2)
        repository = new_repository()

        def crash(event: object) -> None:
            if type(event).__name__ == "Progress" and server.running:
                server.crash()

        with pytest.raises(BackupFailed) as failure:
            take(repository, "full", PostgresSource(settings(server)), listener=crash)
        assert "PostgreSQL at 127.0.0.1" in failure.value.failures["postgres"]
        assert repository.readable_backups()[0] == []
