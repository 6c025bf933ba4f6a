"""A PostgreSQL cluster in Dagster: its backups, its archived WAL, drills, and past moments. One site for all."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from chrono_backups.backup.service import capture, commit, plan_backup
from chrono_backups.errors import BackupMissing, RestoreError
from chrono_backups.orchestration.wal_archive import build_wal_sensor, look
from chrono_backups.recovery.synthetic import find_point
from chrono_backups.repository.evidence import Evidence, evidence, put_evidence
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups_tests.orchestration.database import DatabaseSite, database_site
from chrono_backups_tests.orchestration.site import checks, facts, failures, wait_for_a_whole_day

DRILL = dg.AssetKey("drill")
DATABASE = dg.AssetKey("postgres_database")
WAL = dg.AssetKey("wal_archive")


@pytest.fixture(scope="module")
def site() -> Iterator[DatabaseSite]:
    """A full backup, taken by Dagster; WAL up to a moment after it."""
    with database_site() as made:
        made.receive()
        wait_for_a_whole_day()
        result = made.backup("full")
        assert result.success, failures(result)
        made.server.transact(200)
        made.server.execute("SELECT pg_switch_wal()")
        made.server.transact(20)
        made.receive()
        yield made


def observed(site: DatabaseSite, asset: dg.AssetKey) -> dict[str, object]:
    """The newest observation's numbers and texts."""
    records = site.instance.fetch_observations(asset, limit=1).records
    observation = records[0].asset_observation
    assert observation is not None
    return {name: value.value for name, value in observation.metadata.items()}


class TestBackups:
    def test_a_backup_tells_of_the_cluster(self, site: DatabaseSite) -> None:
        (made,) = site.materializations("full")
        shown = facts(made)
        (manifest,) = [one for one in site.backups() if one.type == "full"]
        known = manifest.snapshots[0].facts
        assert shown["postgres_effective"] == "full"
        assert (shown["postgres_lsn"], shown["postgres_timeline"]) == (known["end_lsn"], 1)
        assert shown["postgres_bytes_read"] > 20_000_000
        assert 0 < shown["postgres_bytes_added"] <= shown["postgres_bytes_read"]
        assert 0 < shown["postgres_ratio"] < 1
        assert shown["postgres_seconds"] > 0

    def test_the_step_tells_as_well(self, site: DatabaseSite) -> None:
        result = site.backup("database_only")
        assert result.success, failures(result)
        (told,) = [
            event.step_output_data
            for event in result.all_events
            if event.is_successful_output and (event.step_key or "").endswith("[postgres]")
        ]
        shown = {name: value.value for name, value in told.metadata.items()}
        assert {"lsn", "timeline", "bytes_read", "bytes_added", "ratio", "seconds", "effective"} <= set(shown)

    def test_what_became_a_full_one_says_why(self, site: DatabaseSite) -> None:
        site.server.execute("ALTER SYSTEM SET summarize_wal = off")
        site.server.reload()
        try:
            result = site.backup("incremental")
        finally:
            site.server.execute("ALTER SYSTEM RESET summarize_wal")
            site.server.reload()
        assert result.success, failures(result)
        shown = facts(site.materializations("incremental")[0])
        assert shown["postgres_effective"] == "full"
        assert "summaries" in shown["postgres_reason"]


class TestArchive:
    def test_sources_and_archive_are_observed(self, site: DatabaseSite) -> None:
        site.receive()
        result = site.launch("observe_sources")
        assert result.success, failures(result)
        server = observed(site, DATABASE)
        assert server["reachable"] is True
        assert int(str(server["size_bytes"])) > 20_000_000
        assert (server["timeline"], server["slot_wal_status"]) == (1, "reserved")
        assert server["slot_retained_bytes"] is not None
        archive = observed(site, WAL)
        assert int(str(archive["segments"])) >= 1
        assert archive["gaps"] == 0
        assert float(str(archive["rpo_seconds"])) < 600
        assert archive["newest_lsn"]

    def test_a_server_that_is_away_is_said(self, site: DatabaseSite, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKUP_POSTGRES_PORT", "1")
        assert site.launch("observe_sources").success
        assert observed(site, DATABASE)["reachable"] is False
        assert observed(site, WAL)["gaps"] == 0, "the archive is looked at all the same"

    def test_the_sensor_looks_without_a_run(self, site: DatabaseSite) -> None:
        site.receive()
        sensor = build_wal_sensor()
        with dg.build_sensor_context(site.instance) as context:
            ticked = sensor.evaluate_tick(context)
        kinds = [type(event).__name__ for event in ticked.asset_events]
        assert kinds == ["AssetObservation", "AssetCheckEvaluation"]
        assert ticked.run_requests == []

    def test_a_gap_fails_the_check_and_says_where(self, site: DatabaseSite) -> None:
        application = site.application()
        with application.open_repository() as repository:
            (contents,) = WalArchive.systems(repository).values()
            victim = sorted(contents.segments)[-1]
            key = f"wal/{site.backups()[0].snapshots[0].facts['system_identifier']}/{victim}"
            content = repository.storage.get(key)
            site.server.execute("SELECT pg_switch_wal()")
            site.server.transact(20)
            site.receive()
            repository.storage.delete(key)
            try:
                found = look(application)
                result = self.check(site)
            finally:
                repository.storage.put(key, content)
        newest = site.backups()[0].snapshots[0].facts
        if found.metadata["gaps"].value == 0:
            pytest.fail(f"no gap though {victim} is gone; newest base {newest['start_lsn']}")
        assert victim.upper() in str(found.metadata["missing"].value)
        assert checks(result) == {"wal_continuous": not found.errors}

    @staticmethod
    def check(site: DatabaseSite) -> dg.ExecuteInProcessResult:
        selection = dg.AssetSelection.checks(dg.AssetCheckKey(WAL, "wal_continuous"))
        job = dg.define_asset_job("check", selection=selection)
        definitions = dg.Definitions.merge(site.definitions(), dg.Definitions(jobs=[job]))
        return definitions.resolve_job_def("check").execute_in_process(instance=site.instance, raise_on_error=False)

    def test_a_slot_that_nobody_reads_is_a_warning(self, site: DatabaseSite) -> None:
        site.receive()
        found = look(site.application())
        assert [one.code for one in found.findings] == ["postgres-slot-idle"]
        result = self.check(site)
        assert result.success, "a warning fails no run"
        assert checks(result) == {"wal_continuous": False}


class TestDrills:
    def test_a_days_backup_is_proven(self, site: DatabaseSite) -> None:
        site.receive()
        with site.application().open_repository() as repository:
            backup_id = repository.backup("latest").backup_id
        result = site.drill(site.today(), backup_id="latest", target_time="latest")
        assert result.success, failures(result)
        made = site.materializations(DRILL)[0]
        shown = facts(made)
        assert made.partition == f"{site.today()}|local"
        assert shown["proven"] is True
        assert shown["recovery_seconds"] > 0
        assert shown["postgres_seconds"] > 0
        assert shown["reached_lsn"]
        assert "pg_amcheck" in shown["proofs"]
        assert checks(result) == {"restores": True}
        with site.application().open_repository() as repository:
            newest = evidence(repository)[0]
        assert newest.proven
        assert newest.details["storage"] == "local"
        assert newest.name == shown["evidence"]
        assert newest.backup_id == shown["backup_id"] == backup_id
        assert list((site.root / "drills").iterdir()) == []

    def test_backups_are_checked_by_the_evidence(self, site: DatabaseSite) -> None:
        (full,) = [one for one in site.backups() if one.type == "full"]
        now = datetime.now(UTC)
        with site.application().open_repository() as repository:
            put_evidence(repository, Evidence(full.backup_id, now, now, False, {"good": False}))
            key = f"drills/{evidence(repository)[0].name}"
            selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("full_backup"), "restores"))
            job = dg.define_asset_job("restores", selection=selection)
            definitions = dg.Definitions.merge(site.definitions(), dg.Definitions(jobs=[job]))
            check = definitions.resolve_job_def("restores")
            result = check.execute_in_process(instance=site.instance, raise_on_error=False)
            assert checks(result) == {"restores": False}
            repository.storage.delete(key)

    def test_what_does_not_restore_fails_the_run_and_the_check(self, site: DatabaseSite) -> None:
        pack = site.pack()
        content = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(content[: len(content) // 2] + b"?" * 4096 + content[len(content) // 2 + 4096 :])
        (full,) = [one for one in site.backups() if one.type == "full"]
        try:
            result = site.drill(site.today(), backup_id=full.backup_id)
        finally:
            pack.write_bytes(content)
        assert not result.success
        assert checks(result) == {"restores": False}
        assert "does not restore" in failures(result)

    def test_a_day_without_backups_says_so(self, site: DatabaseSite) -> None:
        day = (datetime.now(UTC) - timedelta(days=7)).date().isoformat()
        result = site.drill(day)
        assert result.success, failures(result)
        assert "nothing to drill" in facts(site.materializations(DRILL)[0])["note"]

    def test_history_knows_drills_that_dagster_lost(self, site: DatabaseSite) -> None:
        now = datetime.now(UTC)
        with site.application().open_repository() as repository:
            newest = repository.backup("latest").backup_id
            details = {"good": True, "seconds": 1.5, "storage": "local", "backup_id": newest}
            put_evidence(repository, Evidence(newest, now, now, True, details))
            proven = [one for one in evidence(repository) if one.proven]
        with dg.instance_for_test() as fresh:
            job = site.definitions().resolve_job_def("rebuild_history")
            for _ in range(2):
                assert job.execute_in_process(instance=fresh).success
            records = fresh.fetch_materializations(DRILL, limit=10).records
            assert len(records) == len(proven), "each once"
            made = records[0].asset_materialization
            assert made is not None
            assert made.partition == f"{site.today()}|local"
            assert made.metadata["recovery_seconds"].value


class TestPastMoments:
    def test_the_cluster_comes_back_as_it_was_at_the_moment(self, site: DatabaseSite, tmp_path: Path) -> None:
        """Base backup, WAL to the moment, the newest files of before it; by the very command that the point names."""
        site.server.execute("CREATE TABLE precious AS SELECT generate_series(1, 500) AS n")
        (site.data / "then.txt").write_text("as it was")
        take(site, "files_only")
        moment: datetime = site.server.value("SELECT clock_timestamp()")
        site.server.execute("DROP TABLE precious")
        (site.data / "then.txt").write_text("changed since")
        take(site, "files_only")
        site.server.transact(20)
        site.receive()
        with site.application().open_repository() as repository:
            point = find_point(repository, moment, ["postgres", "files", "configuration"])
        assert point.recovered
        assert len(point.backups) == 2
        target = site.root / "past"
        for command in point.commands(str(target)):
            assert command.startswith("chrono-backups ")
            words = [str(Path(sys.executable).with_name("chrono-backups")), *shlex.split(command)[1:]]
            if "--target-time" in words:
                words.append("--start")
            surroundings = {**os.environ, "TMPDIR": str(site.root)}
            ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=site.root, env=surroundings)
            assert ran.returncode == 0, ran.stderr
        restored = list(target.rglob("then.txt"))
        assert [path.read_text() for path in restored] == ["as it was"]
        self.assert_precious(site, next(target.rglob("PG_VERSION")).parent)

    @staticmethod
    def assert_precious(site: DatabaseSite, data: Path) -> None:
        site.server.run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")
        single = site.server.run(
            "postgres", "--single", "-D", data, "postgres", input="SELECT count(*) FROM precious\n", check=False
        )
        assert '"500"' in single.stdout, single.stdout + single.stderr

    def test_the_restore_job_sets_recovery_up(self, site: DatabaseSite) -> None:
        site.receive()
        target = site.root / "by-dagster"
        form = {"target": str(target), "target_time": "latest", "sources": ["postgres"]}
        result = site.launch("restore_backup", config=form)
        assert result.success, failures(result)
        said = (target / "postgres" / "postgresql.auto.conf").read_text()
        assert "wal-fetch" in said
        assert (target / "postgres" / "recovery.signal").is_file()
        for wrong in ({"in_place": True, "sources": ["postgres"]}, {"target": str(target) + "2", "patterns": ["*"]}):
            refused = site.launch("restore_backup", config={"target_time": "latest", **wrong})
            assert not refused.success

    def test_a_moment_before_the_first_backup_is_refused(self, site: DatabaseSite) -> None:
        oldest = site.backups()[-1]
        with site.application().open_repository() as repository, pytest.raises(BackupMissing, match="can't prove what"):
            find_point(repository, oldest.started_at, ["postgres"])

    def test_a_moment_behind_the_archive_is_refused(self, site: DatabaseSite) -> None:
        late = datetime.now(UTC) + timedelta(days=1)
        with (
            site.application().open_repository() as repository,
            pytest.raises(RestoreError, match="can't be recovered"),
        ):
            find_point(repository, late, ["postgres"])


def take(site: DatabaseSite, backup_type: str) -> None:
    application = site.application()
    with application.open_repository() as repository:
        sources = application.sources(backup_type)  # type: ignore[arg-type]
        planned = plan_backup(repository, backup_type, [source.name for source in sources])  # type: ignore[arg-type]
        outcomes = [capture(repository, planned, source) for source in sources]
        commit(repository, planned, outcomes, trigger="test")
