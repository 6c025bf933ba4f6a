"""Retention, restore and the rebuilding of history, launched as jobs."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from chrono_backups.events import Listener
from chrono_backups.recovery.whole.parts import PartReport, TreePart
from chrono_backups_tests.orchestration.site import Site, facts, failures
from chrono_backups_tests.orchestration.test_backfills import days_ago, take


def output(result: dg.ExecuteInProcessResult, step: str) -> dict[str, object]:
    """The metadata that a step's output shows."""
    for event in result.all_node_events:
        if event.is_successful_output and event.step_key == step:
            return {name: value.value for name, value in event.step_output_data.metadata.items()}
    raise AssertionError(f"{step} has no output")


class TestRetention:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RETENTION_DAYS", "KEEP_DAILY_FOR_DAYS", "KEEP_WEEKLY_FOR_WEEKS", "KEEP_MONTHLY_FOR_MONTHS",
                     "KEEP_YEARLY_FOR_YEARS", "PRUNE_GRACE_HOURS"):  # fmt: skip
            monkeypatch.setenv(f"BACKUP_{name}", "0")
        monkeypatch.setenv("BACKUP_MIN_BACKUPS_TO_KEEP", "1")

    def test_a_dry_run_shows_the_verdicts_and_changes_nothing(self, site: Site) -> None:
        old, new = take(site, days_ago(50)), take(site, days_ago(40))
        result = site.launch("retention", config={"dry_run": True})
        assert result.success, failures(result)
        verdicts = str(output(result, "plan_forget")["verdicts"])
        assert f"| {old.backup_id} | **forget** |" in verdicts
        assert f"| {new.backup_id} | keep |" in verdicts
        assert len(site.backups()) == 2

    def test_what_no_rule_keeps_is_forgotten_and_noted_on_its_asset(self, site: Site) -> None:
        old, new = take(site, days_ago(50)), take(site, days_ago(40))
        result = site.launch("retention")
        assert result.success, failures(result)
        assert [one.backup_id for one in site.backups()] == [new.backup_id]
        noted = [
            event.asset_observation_data.asset_observation
            for event in result.all_events
            if event.event_type_value == "ASSET_OBSERVATION"
        ]
        assert [one.metadata["forgotten"].value for one in noted] == [old.backup_id]
        assert noted[0].partition == days_ago(50).date().isoformat()

    def test_a_synthetic_points_backup_is_kept(self, site: Site) -> None:
        old = take(site, days_ago(50))
        take(site, days_ago(40))
        assert site.launch("full_backup_job", days_ago(45).date().isoformat()).success
        assert site.launch("retention").success
        assert old.backup_id in {one.backup_id for one in site.backups()}


class TestRestore:
    def test_what_was_backed_up_comes_back(self, site: Site) -> None:
        assert site.backup("full").success
        target = site.root / "restored"
        result = site.launch("restore_backup", config={"target": str(target)})
        assert result.success, failures(result)
        assert same(site.data, target / "files" / site.data.relative_to("/"))
        assert "files" in str(output(result, "plan_restore")["plan"])

    def test_a_dry_run_writes_nothing(self, site: Site) -> None:
        assert site.backup("full").success
        target = site.root / "restored"
        result = site.launch("restore_backup", config={"target": str(target), "dry_run": True})
        assert result.success, failures(result)
        assert not target.exists()

    def test_existing_data_is_not_touched(self, site: Site) -> None:
        assert site.backup("full").success
        target = site.root / "restored"
        assert site.launch("restore_backup", config={"target": str(target)}).success
        result = site.launch("restore_backup", config={"target": str(target)})
        assert not result.success
        assert str(target) in failures(result)

    def test_in_place_takes_a_safety_backup_first(self, site: Site) -> None:
        assert site.backup("full").success
        (site.data / "readme.txt").write_text("spoilt")
        result = site.launch("restore_backup", config={"in_place": True, "sources": ["files"]})
        assert result.success, failures(result)
        assert (site.data / "readme.txt").read_text().startswith("hello")
        newest = site.backups()[0]
        assert newest.trigger.startswith("safety backup")
        assert facts(site.materializations("files_only")[0])["backup_id"] == newest.backup_id

    def test_in_place_without_a_safety_backup(self, site: Site) -> None:
        assert site.backup("full").success
        config = {"in_place": True, "safety_backup": False}
        assert site.launch("restore_backup", config=config).success
        assert len(site.backups()) == 1

    def test_cancelled_it_says_what_is_old_and_what_is_new(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        assert site.backup("full").success
        (site.data / "readme.txt").write_text("spoilt")
        backup_id = site.backups()[0].backup_id

        def cancelled(part: TreePart, listener: Listener) -> PartReport:
            if part.source == "files":
                raise DagsterExecutionInterruptedError
            return executed(part, listener)

        executed = TreePart.execute
        monkeypatch.setattr(TreePart, "execute", cancelled)
        result = site.launch("restore_backup", config={"in_place": True, "safety_backup": False})
        assert not result.success
        said = [entry.user_message for entry in site.instance.all_logs(result.run_id)]
        told = [message for message in said if "files: each file holds either" in message]
        assert f"configuration: as in {backup_id}\n" in told[-1]
        assert (site.data / "readme.txt").read_text() == "spoilt"

    def test_a_target_is_needed(self, site: Site) -> None:
        assert site.backup("full").success
        result = site.launch("restore_backup", config={})
        assert not result.success
        assert "needs a target" in failures(result)


def same(one: Path, other: Path) -> bool:
    def content(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    return content(one) == content(other)


class TestHistory:
    def test_what_dagster_does_not_know_is_reported_once(self, site: Site) -> None:
        taken = take(site, days_ago(7))
        assert site.backup("configuration").success
        result = site.launch("rebuild_history")
        assert result.success, failures(result)
        (made,) = site.materializations("full")
        assert made.partition == days_ago(7).date().isoformat()
        assert (made.tags or {})["chrono/backup_id"] == taken.backup_id
        assert len(site.materializations("configuration")) == 1
        assert site.launch("rebuild_history").success
        assert len(site.materializations("full")) == 1

    def test_a_lost_history_comes_back(self, site: Site) -> None:
        assert site.backup("full").success
        assert site.backup("incremental").success
        with dg.instance_for_test() as fresh:
            site.instance = fresh
            assert site.launch("rebuild_history").success
            assert len(site.materializations("full")) == 1
            assert len(site.materializations("incremental")) == 1

    def test_backups_before_the_first_day_are_counted_not_shown(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take(site, days_ago(7))
        monkeypatch.setenv("BACKUP_FIRST_DAY", days_ago(3).date().isoformat())
        result = site.launch("rebuild_history")
        assert result.success
        assert output(result, "report_backups")["before_first_day"] == 1
        assert site.materializations("full") == []
