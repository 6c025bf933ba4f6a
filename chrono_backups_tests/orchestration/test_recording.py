"""Dagster's runs in the audit log and the log file."""

import json
from pathlib import Path
from typing import Any

import pytest

from chrono_backups_tests.orchestration.site import Site, failures


@pytest.fixture
def log(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = site.root / "logs"
    monkeypatch.setenv("BACKUP_AUDIT_ENABLED", "true")
    monkeypatch.setenv("BACKUP_AUDIT_LOG_FILE", str(folder / "audit.log"))
    monkeypatch.setenv("BACKUP_LOG_FILE", str(folder / "backup.log"))
    return folder / "audit.log"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_runs_begin_and_end_in_the_audit_log(site: Site, log: Path) -> None:
    result = site.backup("full")
    assert result.success
    _, begun, ended = lines(log)
    assert (begun["act"], begun["phase"]) == ("backup", "begin")
    assert (ended["phase"], ended["result"], ended["run"]) == ("end", "done", result.run_id)
    (manifest,) = site.backups()
    assert ended["backup"] == manifest.backup_id
    assert ended["who"]["trigger"] == f"dagster run {result.run_id}"
    assert ended["on"]["partition"] == site.today() and ended["on"]["job"] == "full_backup_job"
    assert manifest.audit is not None and manifest.audit.line == 2 and manifest.audit.hash == begun["hash"]
    logged = lines(log.with_name("backup.log"))
    assert [one["message"] for one in logged] == [
        "Backup begins",
        f"Backup completed successfully: {manifest.backup_id}",
    ]
    assert logged[-1]["run"] == result.run_id and logged[-1]["backup"] == manifest.backup_id


def test_a_failed_run_and_a_partial_backup_say_so(site: Site, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_CONFIGURATION_PATHS", str(site.root / "gone"))
    assert not site.backup("full").success
    assert not site.backup("configuration").success
    partial, failed = [one for one in lines(log) if one.get("phase") == "end"]
    assert partial["result"] == "partial" and partial["backup"].startswith("full_")
    assert failed["result"] == "failed" and failed["error"]["kind"] == "BackupFailed"
    messages = [one["message"] for one in lines(log.with_name("backup.log"))]
    assert sum("Backup failed" in one for one in messages) == 1
    assert sum("Backup completed in part" in one for one in messages) == 1


def test_looking_is_not_recorded_and_a_dry_run_is_looking(site: Site, log: Path) -> None:
    site.backup("full")
    before = len(lines(log))
    assert site.launch("observe_sources").success
    assert site.launch("retention", config={"dry_run": True}).success
    assert site.launch("verification_job", site.today()).success
    assert len(lines(log)) == before
    assert site.launch("retention").success
    assert [one["act"] for one in lines(log)[before:]] == ["retention", "retention"]


def test_a_run_that_can_not_be_recorded_does_nothing(site: Site, log: Path) -> None:
    log.mkdir(parents=True)
    result = site.backup("full")
    assert not result.success and site.backups() == []
    events = site.instance.all_logs(result.run_id)
    said = failures(result) + "".join(f"{one.dagster_event} {one.user_message}" for one in events)
    assert "audit log" in said and "can't be written" in said
    assert site.launch("observe_sources").success
