"""A backup taken by Dagster, as an operator launches and sees it."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dagster as dg
import pytest

from chrono_backups.assembly import Application
from chrono_backups.backup.service import Outcome, plan_backup
from chrono_backups.errors import SourceUnavailable, StorageFull, StorageUnavailable
from chrono_backups.orchestration import failures as failures_module
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups_tests.orchestration.site import Site, checks, facts, failures


def test_a_full_backup_is_made_checked_and_shown(site: Site) -> None:
    result = site.backup("full", note="before the upgrade")
    assert result.success, failures(result)
    assert checks(result) == {
        "complete": True,
        "structure_verified": True,
        "bytes_verified": True,
        "size_plausible": True,
        "no_findings": True,
    }
    (manifest,) = site.backups()
    (made,) = site.materializations("full")
    shown = facts(made)
    assert made.partition == site.today()
    assert (made.tags or {})["chrono/backup_id"] == manifest.backup_id
    assert shown["backup_id"] == manifest.backup_id
    assert shown["status"] == "complete"
    assert shown["files"] == 7
    assert shown["bytes_read"] > 100_000
    assert shown["bytes_stored"] > 100_000
    assert shown["note"] == "before the upgrade"
    assert "| files | full |" in shown["sources"]
    assert "before the upgrade" in manifest.trigger
    assert result.run_id in manifest.trigger


def test_the_sources_are_captured_in_the_order_of_the_plan(site: Site) -> None:
    result = site.backup("full")
    started = [str(event.step_key) for event in result.all_events if event.is_step_start]
    steps = [step.removeprefix("full_backup.") for step in started if "checks" not in step]
    assert steps == ["plan", "begin_stores", "begin_trees", "trees[configuration]", "trees[files]", "commit"]
    (manifest,) = site.backups()
    assert [one.source for one in manifest.snapshots] == ["configuration", "files"]
    assert "| files |" in facts(site.materializations("full")[0])["boundaries"]


def test_an_incremental_reads_only_what_changed(site: Site) -> None:
    time.sleep(2.1)  # what changed just before a backup is read again by the next one
    assert site.backup("full").success
    (site.data / "new.txt").write_text("new")
    assert site.backup("incremental").success
    shown = facts(site.materializations("incremental")[0])
    assert shown["files_read"] < shown["files"]
    assert "incremental" in shown["sources"]


def test_several_backups_of_a_day_are_several_materializations(site: Site) -> None:
    assert site.backup("configuration").success
    assert site.backup("configuration").success
    made = site.materializations("configuration")
    assert len({facts(one)["backup_id"] for one in made}) == 2
    assert {one.partition for one in made} == {site.today()}


def test_limits_are_taken_from_the_settings(site: Site) -> None:
    result = site.backup("configuration")
    run = site.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["dagster/max_runtime"] == "1234"
    limits = {pool.name: pool.limit for pool in site.instance.event_log_storage.get_pool_limits()}
    assert limits["operations"] == 7


def test_patterns_of_the_form_join_the_configured_ones(site: Site) -> None:
    result = site.backup("full", exclude_patterns=["*.bin"])
    assert result.success, failures(result)
    assert facts(site.materializations("full")[0])["files"] == 2


def test_verification_of_bytes_can_be_left_out_and_says_so(site: Site) -> None:
    result = site.backup("configuration", verify_integrity=False)
    assert result.success, "a warning does not fail the run"
    assert checks(result)["bytes_verified"] is False


def test_an_unreadable_file_is_a_warning_with_a_table(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (site.data / "secret.bin").write_bytes(b"x")
    (site.data / "secret.bin").chmod(0)
    result = site.backup("full")
    assert result.success
    assert checks(result)["no_findings"] is False


class TestPartial:
    @pytest.fixture(autouse=True)
    def _one_source_fails(self, site: Site) -> None:
        site.configuration.unlink()

    def test_it_is_committed_said_and_fails_the_run(self, site: Site) -> None:
        result = site.backup("full")
        assert not result.success
        assert checks(result)["complete"] is False
        assert checks(result)["structure_verified"] is True
        shown = facts(site.materializations("full")[0])
        assert shown["status"] == "partial"
        assert "configuration" in shown["missing"]
        assert [one.status for one in site.backups()] == ["partial"]

    def test_a_run_without_checks_fails_as_well(self, site: Site) -> None:
        job = site.definitions().resolve_job_def("full_backup_job")
        result = job.execute_in_process(
            instance=site.instance,
            partition_key=site.today(),
            asset_selection=[dg.AssetKey("full_backup")],
            raise_on_error=False,
        )
        assert not result.success
        assert len(site.materializations("full")) == 1

    def test_nothing_at_all_is_a_failure_without_a_backup(self, site: Site) -> None:
        result = site.backup("configuration")
        assert not result.success
        assert site.backups() == []
        assert site.materializations("configuration") == []
        assert str(site.configuration) in failures(result)


class TestWhatIsRetried:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(failures_module, "FIRST_WAIT_SECONDS", 0)

    def test_a_storage_that_comes_back(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = _fail_first(monkeypatch, 2, StorageUnavailable("the disk is away", storage="local"))
        result = site.backup("configuration")
        assert result.success, failures(result)
        assert len(calls) == 3

    def test_a_full_storage_is_not(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = _fail_first(monkeypatch, 9, StorageFull("no room", storage="local", hint="Make room."))
        result = site.backup("configuration")
        assert not result.success
        assert len(calls) == 1
        assert "no room" in failures(result)
        assert "Make room." in failures(result)
        assert _leases(site) == []

    def test_a_storage_that_stays_away_fails_in_the_end(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = _fail_first(monkeypatch, 99, StorageUnavailable("the disk is away", storage="local"))
        result = site.backup("configuration")
        assert not result.success
        assert len(calls) == 1 + failures_module.RETRIES
        assert "the disk is away" in failures(result)
        assert _leases(site) == []

    def test_a_source_that_comes_back(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Application.capture
        calls = []

        def flaky(application, repository, plan, source, listener):  # type: ignore[no-untyped-def]
            calls.append(source.name)
            if len(calls) == 1:
                return Outcome(source.name, None, "no answer", SourceUnavailable.__name__)
            return real(application, repository, plan, source, listener)

        monkeypatch.setattr(Application, "capture", flaky)
        result = site.backup("configuration")
        assert result.success, failures(result)
        assert len(calls) == 2


def _fail_first(monkeypatch: pytest.MonkeyPatch, times: int, error: Exception) -> list[str]:
    real = Application.capture
    calls: list[str] = []

    def failing(application, repository, plan, source, listener):  # type: ignore[no-untyped-def]
        calls.append(source.name)
        if len(calls) <= times:
            raise error
        return real(application, repository, plan, source, listener)

    monkeypatch.setattr(Application, "capture", failing)
    return calls


def _leases(site: Site) -> list[str]:
    with site.application().open_repository() as repository:
        return list(repository.leases.names())


class TestHooks:
    @pytest.fixture(autouse=True)
    def _hooks(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("before", "after", "failed"):
            monkeypatch.setenv(
                f"BACKUP_HOOK_{name.upper()}", f"echo {name} $CHRONO_BACKUP_TYPE >> {site.root}/hooks.log"
            )

    @staticmethod
    def ran(site: Site) -> list[str]:
        return (site.root / "hooks.log").read_text().splitlines()

    def test_they_run_around_a_backup(self, site: Site) -> None:
        assert site.backup("full").success
        assert self.ran(site) == ["before full", "after full"]

    def test_a_failure_in_a_step_runs_each_once(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        _fail_first(monkeypatch, 9, StorageFull("no room", storage="local"))
        assert not site.backup("full").success
        assert self.ran(site) == ["before full", "failed full", "after full"]

    def test_one_that_fails_before_stops_the_backup(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKUP_HOOK_BEFORE", "echo it is locked; exit 3")
        result = site.backup("full")
        assert not result.success
        assert "it is locked" in failures(result)
        assert site.backups() == []
        assert _leases(site) == []


class TestLaunchesThatCanNotBe:
    @pytest.mark.parametrize("day", ["1999-01-01", "2025-12-31"])
    def test_a_day_before_the_first(self, site: Site, day: str) -> None:
        result = _launch_unchecked(site, day)
        assert not result.success
        assert "before the first day" in failures(result)

    def test_a_day_to_come(self, site: Site) -> None:
        day = (datetime.now(UTC).date() + timedelta(days=3)).isoformat()
        result = _launch_unchecked(site, day)
        assert not result.success
        assert "in the future" in failures(result)

    def test_no_repository(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKUP_LOCAL_PATH", str(site.root / "elsewhere"))
        site.application().storage(create=True).close()
        result = site.backup("full")
        assert not result.success
        assert "elsewhere" in failures(result)

    def test_a_storage_that_is_not_enabled(self, site: Site) -> None:
        result = site.backup("full", storage="gcs")
        assert not result.success
        assert "gcs" in failures(result)

    def test_backups_are_switched_off(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKUP_ENABLED", "false")
        result = site.backup("full")
        assert not result.success
        assert "BACKUP_ENABLED=false" in failures(result)


def _launch_unchecked(site: Site, day: str) -> dg.ExecuteInProcessResult:
    """As GraphQL and the launchpad do: Dagster does not check the partition."""
    job = site.definitions().resolve_job_def("full_backup_job")
    return job.execute_in_process(instance=site.instance, tags={"dagster/partition": day}, raise_on_error=False)


def test_no_secret_reaches_dagster(site: Site) -> None:
    assert site.backup("full").success
    site.configuration.unlink()
    site.backup("full")
    home = Path(site.instance.root_directory)
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"full_backup" in stored, "the search looks where events are"
    assert site.key.encode() not in stored


@pytest.mark.parametrize(("status", "left"), [("CANCELING", 0), ("STARTED", 1)])
def test_a_run_that_is_cancelled_between_steps_lets_go(site: Site, status: str, left: int) -> None:
    """Dagster tears resources down at a run's end; with step processes also at a step's, when nothing may be let go."""
    backups = BackupsResource()
    run = site.instance.create_run_for_job(site.definitions().resolve_job_def("full_backup_job"))
    with site.application().open_repository() as repository:
        backups.begin(plan_backup(repository, "full", ["files"]), "primary")
    backups.teardown_after_execution(_ended(run, dg.DagsterRunStatus(status)))
    assert len(_leases(site)) == left


def _ended(run: dg.DagsterRun, status: dg.DagsterRunStatus) -> dg.InitResourceContext:
    ended = SimpleNamespace(get_run_by_id=lambda _: run.with_status(status))
    return cast("dg.InitResourceContext", SimpleNamespace(instance=ended, run=run))
