"""Through the front door: a served Dagster, real run processes, cancelled and backfilled as from the UI."""

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from chrono_backups.maintenance.verify import verify
from chrono_backups_tests.orchestration.site import Site
from chrono_backups_tests.orchestration.test_backfills import days_ago, take
from chrono_backups_tests.servers.ports import free_port
from chrono_backups_tests.servers.receivers import receiver
from demo.served import LOCATION, Served

MEGABYTE = 1_000_000


@pytest.fixture
def served(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for schedule in ("FULL_BACKUPS", "INCREMENTAL_BACKUPS", "CONFIGURATION", "RETENTION", "VERIFICATION"):
        monkeypatch.setenv(f"BACKUP_SCHEDULE_{schedule}", "off")
    with Served(
        site.root / "dagster_home", site.root, {**os.environ, "PYTHONWARNINGS": "ignore"}, free_port()
    ) as serving:
        yield serving


def test_a_cancelled_run_says_so_and_leaves_the_repository_whole(
    site: Site, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # 2 MB a second: files of 40 MB keep a capture busy for long enough to be cancelled in its midst.
    monkeypatch.setenv("BACKUP_BANDWIDTH_LIMIT_MBPS", "16")
    monkeypatch.setenv("BACKUP_AUDIT_ENABLED", "true")
    monkeypatch.setenv("BACKUP_AUDIT_LOG_FILE", str(site.root / "logs" / "audit.log"))
    for hook in ("AFTER", "FAILED"):
        monkeypatch.setenv(f"BACKUP_HOOK_{hook}", f"echo {hook} >> {site.root}/hooks.log")
    for number in range(10):
        (site.data / f"large-{number}").write_bytes(secrets.token_bytes(4 * MEGABYTE))
    served: Served = request.getfixturevalue("served")
    run = served.launch("full_backup_job", site.today())

    def stored() -> bool:
        assert not served.failures(run)
        files = (path for path in (site.root / "repository").rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files) > 5 * MEGABYTE

    served.until(stored, "the capture to be under way", 120)
    done = served.ask("mutation($run: String!) { terminateRun(runId: $run) { __typename } }", run=run)
    assert done["terminateRun"]["__typename"] == "TerminateRunSuccess"
    assert served.end_of(run) == "CANCELED"
    monkeypatch.delenv("BACKUP_BANDWIDTH_LIMIT_MBPS")

    begun, ended = [json.loads(line) for line in (site.root / "logs" / "audit.log").read_text().splitlines()][1:]
    assert (begun["run"], ended["run"], ended["result"]) == (run, run, "cancelled")
    assert site.backups() == []
    assert (site.root / "hooks.log").read_text().split() == ["FAILED", "AFTER"]
    with site.application().open_repository() as repository:
        assert repository.leases.names() == [], "the lease is let go"
        assert verify(repository, full=True).ok
    run = served.launch("configuration_backup_job", site.today())
    assert served.end_of(run) == "SUCCESS", "the next backup works at once"
    assert [one.type for one in site.backups()] == ["configuration"]


def test_a_range_of_days_is_proven_by_a_backfill_and_nothing_is_strewn_about(site: Site, served: Served) -> None:
    before = {path.name for path in site.root.iterdir()}
    for number in (3, 2):
        take(site, days_ago(number))
    days = [days_ago(number).date().isoformat() for number in (3, 2, 1)]
    launched = served.ask(
        """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            __typename ... on LaunchBackfillSuccess { backfillId } } }""",
        params={"partitionNames": days, "assetSelection": [{"path": ["verification"]}]},
    )["launchPartitionBackfill"]

    def status() -> str:
        found = served.ask(
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }",
            id=launched["backfillId"],
        )
        now = str(found["partitionBackfillOrError"]["status"])
        return now if now not in {"REQUESTED", "COMPLETING"} else ""

    assert served.until(status, "the backfill to end", 120) == "COMPLETED_SUCCESS"
    assert materialized(served, "verification") == sorted(days)
    assert {path.name for path in site.root.iterdir()} == before


def materialized(served: Served, asset: str) -> list[str]:
    """The partitions of an asset that were materialized, ascending."""
    found: dict[str, Any] = served.ask(
        """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) {
            ... on Asset { assetMaterializations { partition } } } }""",
        key={"path": [asset]},
    )
    return sorted(made["partition"] for made in found["assetOrError"]["assetMaterializations"])


@pytest.mark.soak
def test_a_daemon_that_is_killed_between_a_failure_and_its_alert_tells_it_after_its_restart(
    site: Site, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("BACKUP_HOOK_BEFORE", "echo the volume is busy; exit 3")
    monkeypatch.setenv("BACKUP_HEALTH_CHECK_ENABLED", "false")
    monkeypatch.setenv("BACKUP_STATE_DIR", str(site.root / "state"))
    with receiver() as server:
        monkeypatch.setenv("BACKUP_WEBHOOK_ENABLED", "true")
        monkeypatch.setenv("BACKUP_WEBHOOK_URL", server.url)
        served: Served = request.getfixturevalue("served")
        served.until(lambda: ticked(served, "ended_runs"), "the first tick of the sensor", 120)
        run = served.launch("full_backup_job", site.today())
        assert served.end_of(run) == "FAILURE"
        served.kill("dagster-daemon")
        told_before = len(server.posted)
        served.restart("dagster-daemon")
        served.until(lambda: server.posted, "the alert", 180)
        ticks = ticked(served, "notifications")
        served.until(lambda: ticked(served, "notifications") > ticks + 1, "two more ticks", 180)
        assert told_before <= 1
        (posted,) = server.posted
        assert posted.json["incident"] == "backup-failed:full backup" and "the volume is busy" in posted.json["what"]


def ticked(served: Served, sensor: str) -> int:
    """How often that sensor was evaluated."""
    found = served.ask(
        """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
            ... on Sensor { sensorState { ticks(limit: 500) { status } } } } }""",
        selector={**LOCATION, "sensorName": sensor},
    )
    return sum(tick["status"] != "STARTED" for tick in found["sensorOrError"]["sensorState"]["ticks"])
