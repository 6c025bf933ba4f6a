"""Launches for past days: synthetic recovery points, replicas and proofs over a range."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from chrono_backups.backup.service import capture, commit, plan_backup
from chrono_backups.identifiers import BackupType
from chrono_backups.orchestration.days import end_of
from chrono_backups.repository.records import Manifest
from chrono_backups_tests.damaging import last_byte_changed
from chrono_backups_tests.orchestration.site import Site, checks, facts, failures


def take(site: Site, moment: datetime, backup_type: BackupType = "full") -> Manifest:
    """A backup taken at that moment, without Dagster."""
    application = site.application(moment)
    with application.open_repository() as repository:
        sources = application.sources(backup_type)
        planned = plan_backup(repository, backup_type, [source.name for source in sources])
        outcomes = [capture(repository, planned, source) for source in sources]
        return commit(repository, planned, outcomes, trigger="test")


def days_ago(count: int) -> datetime:
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=count)


class TestSyntheticPoints:
    def test_the_newest_backup_before_the_days_end_stands_for_it(self, site: Site) -> None:
        take(site, days_ago(9))
        expected = take(site, days_ago(7))
        take(site, days_ago(4))
        day = days_ago(5).date().isoformat()
        result = site.launch("full_backup_job", day)
        assert result.success, failures(result)
        (made,) = site.materializations("full")
        shown = facts(made)
        assert made.partition == day
        assert shown["synthetic"] is True
        assert shown["backup_id"] == expected.backup_id
        assert shown["stands_for"] == day
        assert all(checks(result).values())
        with site.application().open_repository() as repository:
            assert day in repository.pins()[expected.backup_id]

    def test_a_backup_that_lacks_a_source_does_not_stand_for_it(self, site: Site) -> None:
        complete = take(site, days_ago(8))
        take(site, days_ago(7), "configuration")
        day = days_ago(6).date().isoformat()
        assert site.launch("full_backup_job", day).success
        assert facts(site.materializations("full")[0])["backup_id"] == complete.backup_id

    def test_what_can_not_be_proven_fails_and_says_why(self, site: Site) -> None:
        take(site, days_ago(2))
        result = site.launch("full_backup_job", days_ago(5).date().isoformat())
        assert not result.success
        assert "can't prove what" in failures(result)
        assert site.materializations("full") == []

    def test_a_damaged_backup_stands_for_nothing(self, site: Site) -> None:
        take(site, days_ago(7))
        site.pack().unlink()
        result = site.launch("full_backup_job", days_ago(5).date().isoformat())
        assert not result.success
        assert "not whole" in failures(result)
        assert site.materializations("full") == []

    def test_days_end_in_the_operators_time_zone(self) -> None:
        assert end_of(date(2026, 6, 1), "Europe/Berlin") == datetime(2026, 6, 1, 22, tzinfo=UTC)
        # The day of the change to winter time has 25 hours.
        assert end_of(date(2026, 10, 25), "Europe/Berlin") == datetime(2026, 10, 25, 23, tzinfo=UTC)


class TestReplicas:
    def test_a_days_backups_are_copied_whole(self, site: Site) -> None:
        assert site.backup("full").success
        result = self.replicate(site, site.today())
        assert result.success, failures(result)
        shown = facts(site.materializations(dg.AssetKey("backup_replica"))[0])
        assert shown["backups"] == 1
        with site.application().open_repository("local_mirror") as replica:
            assert [one.backup_id for one in replica.backups()] == [one.backup_id for one in site.backups()]

    def test_a_past_day_is_backfilled(self, site: Site) -> None:
        taken = take(site, days_ago(7))
        take(site, days_ago(3))
        result = self.replicate(site, days_ago(7).date().isoformat())
        assert result.success, failures(result)
        with site.application().open_repository("local_mirror") as replica:
            assert [one.backup_id for one in replica.backups()] == [taken.backup_id]

    def test_a_day_without_backups_says_so(self, site: Site) -> None:
        assert self.replicate(site, days_ago(7).date().isoformat()).success
        assert facts(site.materializations(dg.AssetKey("backup_replica"))[0])["backups"] == 0

    @staticmethod
    def replicate(site: Site, day: str) -> dg.ExecuteInProcessResult:
        definitions = site.definitions()
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=site.instance,
            partition_key=dg.MultiPartitionKey({"day": day, "storage": "local_mirror"}),
            asset_selection=[dg.AssetKey("backup_replica")],
            raise_on_error=False,
        )

    def test_they_follow_a_proven_backup_by_themselves(self, site: Site) -> None:
        definitions = site.definitions()
        replica = dg.AssetKey("backup_replica")
        tick = dg.evaluate_automation_conditions(definitions, site.instance)
        assert tick.total_requested == 0
        assert site.backup("configuration").success
        tick = dg.evaluate_automation_conditions(definitions, site.instance, cursor=tick.cursor)
        assert tick.get_requested_partitions(replica) == {f"{site.today()}|local_mirror"}
        tick = dg.evaluate_automation_conditions(definitions, site.instance, cursor=tick.cursor)
        assert tick.total_requested == 0, "once for each backup"

    def test_a_backup_whose_checks_fail_is_held_back_and_no_other(self, site: Site) -> None:
        definitions = site.definitions()
        tick = dg.evaluate_automation_conditions(definitions, site.instance)
        (site.root / "data").rename(site.root / "away")
        assert not site.backup("full").success
        tick = dg.evaluate_automation_conditions(definitions, site.instance, cursor=tick.cursor)
        assert tick.total_requested == 0
        assert site.backup("configuration").success
        tick = dg.evaluate_automation_conditions(definitions, site.instance, cursor=tick.cursor)
        assert tick.total_requested == 1


class TestProofs:
    VERIFICATION = dg.AssetKey("verification")

    def test_a_day_is_proven(self, site: Site) -> None:
        assert site.backup("full").success
        assert site.backup("configuration").success
        result = site.launch("verification_job", site.today())
        assert result.success, failures(result)
        shown = facts(site.materializations(self.VERIFICATION)[0])
        assert (shown["backups"], shown["whole"], shown["depth"]) == (2, 2, "full")
        assert shown["bytes"] > 100_000
        assert checks(result) == {"bytes_verified": True}

    @pytest.mark.parametrize("depth", ["quick", "full"])
    def test_damage_is_found_and_told_to_the_backup(self, site: Site, depth: str) -> None:
        take(site, days_ago(7))
        pack = site.pack()
        if depth == "full":
            content = bytearray(pack.read_bytes())
            content[len(content) // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(content)
        else:
            pack.unlink()
        result = site.launch("verification_job", days_ago(7).date().isoformat(), {"depth": depth})
        assert not result.success
        assert site.materializations(self.VERIFICATION) == [], "a day that is not proven is not green"
        evaluations = result.get_asset_check_evaluations()
        assert [(one.asset_key.to_user_string(), one.passed) for one in evaluations] == [("full_backup", False)]
        assert pack.name in str(evaluations[0].description)

    def test_a_day_without_backups_says_so(self, site: Site) -> None:
        assert site.launch("verification_job", days_ago(7).date().isoformat()).success
        assert "nothing to prove" in facts(site.materializations(self.VERIFICATION)[0])["note"]


class TestChecks:
    @pytest.mark.parametrize("harm", ["flip", "delete"])
    def test_what_is_harmed_fails_the_check_alone(self, site: Site, harm: str) -> None:
        assert site.backup("full").success
        pack = site.pack()
        if harm == "flip":
            content = bytearray(pack.read_bytes())
            content[len(content) // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(content)
        else:
            pack.unlink()
        name = "bytes_verified" if harm == "flip" else "structure_verified"
        result = self.check(site, name)
        assert not result.success
        assert checks(result) == {name: False}

    def test_a_damaged_manifest_fails_every_check_of_its_backup_alone(self, site: Site) -> None:
        assert site.backup("full").success
        manifest = self.manifest(site, site.backups()[0].backup_id)
        manifest.write_bytes(last_byte_changed(manifest.read_bytes()))
        result = self.check(site, "structure_verified")
        assert not result.success
        assert checks(result) == {"structure_verified": False}
        assert site.backup("configuration").success, "another backup is none the worse"
        verified = site.launch("verification_job", site.today())
        assert not verified.success
        assert manifest.name in failures(verified)
        replicated = TestReplicas.replicate(site, site.today())
        assert not replicated.success
        assert manifest.name in failures(replicated)
        assert site.launch("rebuild_history").success

    @staticmethod
    def manifest(site: Site, backup_id: str) -> Path:
        (found,) = [path for path in (site.root / "repository").rglob(backup_id) if path.is_file()]
        found.chmod(0o600)
        return found

    @staticmethod
    def check(site: Site, name: str) -> dg.ExecuteInProcessResult:
        """What the UI's Execute button on a check does: no partition."""
        selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("full_backup"), name))
        job = dg.define_asset_job("check", selection=selection)
        definitions = dg.Definitions.merge(site.definitions(), dg.Definitions(jobs=[job]))
        return definitions.resolve_job_def("check").execute_in_process(instance=site.instance, raise_on_error=False)

    def test_a_size_that_is_odd_is_a_warning(self, site: Site) -> None:
        for number in (5, 4, 3):
            take(site, days_ago(number))
        for path in (site.data / "uploads").iterdir():
            path.unlink()
        result = site.backup("full")
        assert result.success
        assert checks(result)["size_plausible"] is False
