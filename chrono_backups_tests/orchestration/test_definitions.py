"""What Dagster is shown: it loads, connects to nothing, and says what is wrong with settings."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from chrono_backups.identifiers import BACKUP_TYPES
from chrono_backups.orchestration.schedules import partition_of
from chrono_backups_tests.orchestration.site import Site


def test_loads_with_every_group(site: Site) -> None:
    definitions = site.definitions()
    dg.Definitions.validate_loadable(definitions)
    groups = {spec.group_name for spec in definitions.resolve_all_asset_specs()}
    assert groups == {"sources", "backups", "replicas", "proofs", "health"}


def test_without_a_second_storage_there_are_no_replicas(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKUP_LOCAL_MIRROR_PATH")
    definitions = site.definitions()
    dg.Definitions.validate_loadable(definitions)
    assert "replicas" not in {spec.group_name for spec in definitions.resolve_all_asset_specs()}


def test_with_nothing_to_protect_it_loads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKUP_FILES_PATHS")
    monkeypatch.delenv("BACKUP_CONFIGURATION_PATHS")
    dg.Definitions.validate_loadable(site.definitions())
    result = site.backup("full")
    assert not result.success


def test_a_database_has_its_log_observed_and_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "wal_archive" not in {spec.key.to_user_string() for spec in site.definitions().resolve_all_asset_specs()}
    monkeypatch.setenv("BACKUP_POSTGRES_HOST", "127.0.0.1")
    for method, there in (("physical", True), ("logical", False)):
        monkeypatch.setenv("BACKUP_POSTGRES_METHOD", method)
        definitions = site.definitions()
        dg.Definitions.validate_loadable(definitions)
        names = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
        assert "postgres_database" in names
        assert ("wal_archive" in names) is there
        assert ("wal_watch" in {sensor.name for sensor in definitions.sensors or ()}) is there


def test_every_type_has_an_asset_and_a_job(site: Site) -> None:
    definitions = site.definitions()
    names = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    for backup_type in BACKUP_TYPES:
        assert f"{backup_type}_backup" in names
        assert definitions.resolve_job_def(f"{backup_type}_backup_job")


def test_wrong_settings_are_shown_whole(site: Site) -> None:
    code = "import chrono_backups.definitions"
    environment = {"PATH": "/usr/bin:/bin", "BACKUP_SCHEDULE_FULL_BACKUPS": "every day", "BACKUP_LOCAL_PATH": "here"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=site.root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "BACKUP_SCHEDULE_FULL_BACKUPS" in ran.stderr
    assert "BACKUP_LOCAL_PATH" in ran.stderr


def test_loading_runs_no_key_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = site.root / "witness"
    monkeypatch.delenv("BACKUP_ENCRYPTION_KEY")
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY_COMMAND", f"touch {witness}")
    monkeypatch.setenv("BACKUP_LOCAL_PATH", str(site.root / "nowhere"))
    dg.Definitions.validate_loadable(site.definitions())
    assert not witness.exists()
    assert not (site.root / "nowhere").exists()


class TestSchedules:
    def test_only_types_with_a_cron_and_a_source_have_one(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKUP_SCHEDULE_CONFIGURATION", "off")
        monkeypatch.setenv("BACKUP_SCHEDULE_FILES_ONLY", "30 * * * *")
        names = {schedule.name for schedule in site.definitions().schedules or ()}
        assert "configuration_backup_schedule" not in names
        assert "database_only_backup_schedule" not in names, "no database is configured"
        assert {"full_backup_schedule", "files_only_backup_schedule", "retention_schedule"} <= names

    def test_they_run_from_the_start_in_the_operators_time_zone(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BACKUP_TIMEZONE", "Europe/Berlin")
        for schedule in site.definitions().get_repository_def().schedule_defs:
            assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
            assert schedule.execution_timezone == "Europe/Berlin"

    def test_a_tick_asks_for_its_day(self, site: Site) -> None:
        definitions = site.definitions()
        repository = definitions.get_repository_def()
        schedule = repository.get_schedule_def("full_backup_schedule")
        tick = datetime.now(UTC)
        with dg.build_schedule_context(site.instance, tick, repository_def=repository) as context:
            (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert request.partition_key == site.today()
        assert request.tags["chrono/trigger"] == "schedule"

    def test_a_drills_tick_takes_the_newest_backup_from_the_primary_storage(self, site: Site) -> None:
        repository = site.definitions().get_repository_def()
        schedule = repository.get_schedule_def("drill_schedule")
        with dg.build_schedule_context(site.instance, datetime.now(UTC), repository_def=repository) as context:
            (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert request.partition_key == dg.MultiPartitionKey({"day": site.today(), "storage": "local"})
        assert request.run_config["ops"]["drill"]["config"] == {"backup_id": "latest"}

    def test_a_tick_that_is_caught_up_counts_for_the_day_it_runs(self) -> None:
        tick = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
        assert partition_of(tick, tick + timedelta(seconds=5), "UTC") == "2026-03-01"
        assert partition_of(tick, tick + timedelta(hours=9), "UTC") == "2026-03-02"
        assert partition_of(tick, tick + timedelta(seconds=5), "Europe/Berlin") == "2026-03-02"


def test_resources_show_paths_and_names_of_secrets_only(site: Site) -> None:
    from dagster._core.remote_representation.external_data import RepositorySnap

    snap = RepositorySnap.from_def(site.definitions().get_repository_def())
    text = repr(snap.resources)
    assert str(site.root / "repository") in text
    assert "BACKUP_ENCRYPTION_KEY" in text
    assert site.key not in text
