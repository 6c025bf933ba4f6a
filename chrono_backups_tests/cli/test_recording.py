"""What the command line records: the audit log and the log file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.cli.terminal.output import Output
from chrono_backups_tests.backup.receiving import wait
from chrono_backups_tests.cli.conftest import COMMAND, KEY, OTHER_KEY, Site, environment


@pytest.fixture
def recorded(site: Site) -> Site:
    site.settings |= {
        "BACKUP_AUDIT_ENABLED": "true",
        "BACKUP_AUDIT_LOG_FILE": str(audit_log(site)),
        "BACKUP_LOG_FILE": str(site.root / "logs" / "backup.log"),
    }
    site.run("init")
    return site


def audit_log(site: Site) -> Path:
    return site.root / "logs" / "backup_audit.log"


def audited(site: Site) -> list[dict[str, Any]]:
    return [json.loads(line) for line in audit_log(site).read_text().splitlines()]


def logged(site: Site) -> str:
    return (site.root / "logs" / "backup.log").read_text()


def test_every_act_begins_and_ends_in_the_audit_log(recorded: Site) -> None:
    identifier = recorded.backup()
    recorded.run("restore", "latest", "--to", str(recorded.root / "out"))
    recorded.run("restore", "latest", "--to", str(recorded.root / "out"), code=5)
    recorded.run("list")
    recorded.run("prune", "--dry-run")
    lines = audited(recorded)
    told = [(one["act"], one.get("phase"), one.get("result")) for one in lines]
    assert told == [
        ("log-begun", None, None),
        ("init", "begin", None), ("init", "end", "done"),
        ("backup", "begin", None), ("backup", "end", "done"),
        ("restore", "begin", None), ("restore", "end", "done"),
        ("restore", "begin", None), ("restore", "end", "failed"),
    ]  # fmt: skip
    end = lines[-1]
    assert end["backup"] == identifier and end["on"]["to"].endswith("/out")
    assert end["error"]["kind"] == "TargetNotEmpty"
    assert end["who"]["user"] and end["who"]["trigger"] == "command line" and end["from"]["host"] and end["from"]["pid"]
    assert end["run"] == lines[-2]["run"] != lines[-3]["run"]
    shown = recorded.json("audit", "show", "--act", "restore", "--last", "2")
    assert shown == lines[-2:]
    assert identifier in recorded.run("audit", "show").text


def test_reading_is_recorded_where_it_is_asked_for(recorded: Site) -> None:
    recorded.backup()
    before = len(audited(recorded))
    recorded.run("get", "latest", str(recorded.data / "notes.txt"), BACKUP_AUDIT_LOG_ALL_OPERATIONS="true")
    (line,) = audited(recorded)[before:]
    assert (line["act"], line["phase"], line["result"]) == ("get", "end", "done")
    assert line["on"]["path"].endswith("notes.txt")


def test_backups_know_the_log_and_give_a_cut_one_away(recorded: Site) -> None:
    recorded.backup()
    recorded.run("forget")
    report = recorded.json("audit", "verify")
    assert report["ok"] and report["heads_checked"] == 1 and report["last_line"] == 7
    lines = audit_log(recorded).read_bytes().splitlines(keepends=True)
    audit_log(recorded).write_bytes(b"".join(lines[:3]))
    report = recorded.json("audit", "verify", code=3)
    assert [one["code"] for one in report["findings"]] == ["audit-log-cut"]
    assert recorded.json("audit", "verify", "--no-backups")["ok"], "the chain alone is sound"
    changed = lines[4].replace(b'"user"', b'"usex"')
    audit_log(recorded).write_bytes(b"".join([*lines[:4], changed, *lines[5:]]))
    ran = recorded.run("audit", "verify", code=3)
    assert "line 5: it is not what was written" in ran.text and "IT WAS CHANGED" in ran.text


def test_where_it_can_not_be_written_nothing_is_begun(recorded: Site) -> None:
    audit_log(recorded).unlink()
    audit_log(recorded).mkdir()
    error = recorded.json("backup", code=1)["error"]
    assert error["kind"] == "AuditUnwritable" and "BACKUP_AUDIT_ENABLED=false" in error["hint"]
    assert recorded.json("list") == [], "reading goes on, and there is no backup"
    assert recorded.json("backup", BACKUP_AUDIT_ENABLED="false")["status"] == "complete"


def test_an_end_that_can_not_be_recorded_is_no_success(recorded: Site) -> None:
    log = audit_log(recorded)
    ran = recorded.run("backup", code=1, BACKUP_HOOK_AFTER=f"rm {log} && mkdir {log}")
    assert "it was done (exit code 0), and its end is not recorded" in ran.err
    assert "full_" in ran.text, "what was done is told all the same"
    assert len(recorded.json("list")) == 1


def test_it_is_reported_after_it_is_recorded(recorded: Site, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert recorded.json("backup")["id"] == audited(recorded)[-1]["backup"]
    output = Output(json=True, quiet=False)
    output.hold()
    output.report({"id": "x"}, [])
    assert capsysbinary.readouterr().out == b""
    output.release()
    assert json.loads(capsysbinary.readouterr().out) == {"id": "x"}


def test_the_guides_patterns_find_what_they_are_for(recorded: Site) -> None:
    identifier = recorded.backup()
    recorded.run("backup", code=2, BACKUP_ENCRYPTION_KEY=OTHER_KEY)
    recorded.repository.rename(recorded.root / "away")
    recorded.run("backup", code=6)
    text = logged(recorded)

    def found(pattern: str, flags: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in text.splitlines() if re.search(pattern, line, flags)]

    (good,) = found("Backup completed successfully")
    assert good["backup"] == identifier and good["level"] == "info"
    assert [one["kind"] for one in found("Backup failed")] == ["WrongKey", "StorageUnavailable"]
    assert [one["kind"] for one in found("encrypt.*error", re.IGNORECASE)] == ["WrongKey"]
    assert {one["kind"] for one in found("storage.*error", re.IGNORECASE)} == {"StorageUnavailable"}
    for line in map(json.loads, text.splitlines()):
        assert line["run"] and line["act"] and line["time"].endswith("Z")


def test_findings_are_logged_with_the_ids(recorded: Site) -> None:
    configuration = str(recorded.data / "notes.txt")
    recorded.run("backup", code=4, BACKUP_FILES_PATHS="/nowhere/at/all", BACKUP_CONFIGURATION_PATHS=configuration)
    lines = [json.loads(line) for line in logged(recorded).splitlines()]
    told = [one for one in lines if one["level"] == "warning"]
    assert told and all(one["backup"].startswith("full_") for one in told)
    assert any("Backup completed in part" in one["message"] and "partial" in one["message"] for one in told)
    assert audited(recorded)[-1]["result"] == "partial" and "is missing" in audited(recorded)[-1]["detail"]


def test_a_log_file_that_can_not_be_written_costs_a_warning(recorded: Site) -> None:
    ran = recorded.run("backup", BACKUP_LOG_FILE=str(recorded.data))
    assert "the log file" in ran.err and "can't be written: is a directory" in ran.err


def test_the_log_file_is_put_aside(recorded: Site) -> None:
    small = {"BACKUP_LOG_MAX_SIZE_MB": "0.0005", "BACKUP_LOG_KEEP": "2"}
    for _ in range(4):
        recorded.run("forget", **small)  # type: ignore[arg-type]
    names = sorted(one.name for one in (recorded.root / "logs").iterdir() if one.name.startswith("backup.log"))
    assert [name for name in names if name != "backup.log"] == ["backup.log.1", "backup.log.2"]
    assert KEY not in logged(recorded) if "backup.log" in names else True


def test_what_can_not_be_written_is_found_beforehand(recorded: Site) -> None:
    assert not [one for one in recorded.json("validate")["findings"] if one["severity"] == "error"]
    wrong = {
        "BACKUP_AUDIT_LOG_FILE": str(recorded.data / "notes.txt" / "audit.log"),
        "BACKUP_LOG_FILE": str(recorded.data),
    }
    found = recorded.json("validate", code=2, **wrong)["findings"]
    told = {one["code"]: one for one in found}
    assert told["audit-unwritable"]["severity"] == "error" and told["audit-unwritable"]["hint"]
    assert told["log-unwritable"]["message"].endswith("it is no file")
    assert "audit-unwritable" in [one["code"] for one in recorded.json("health", code=1, **wrong)["findings"]]


def test_a_cancelled_run_is_recorded_as_one(recorded: Site) -> None:
    for number in range(20):
        (recorded.data / f"large-{number}").write_bytes(os.urandom(2_000_000))
    slow = environment({**recorded.settings, "BACKUP_BANDWIDTH_LIMIT_MBPS": "8"})
    running = subprocess.Popen([*COMMAND, "backup", "--quiet"], cwd=recorded.root, env=slow, stderr=subprocess.DEVNULL)
    wait(lambda: list(recorded.repository.glob("packs/*")))
    running.send_signal(signal.SIGTERM)
    assert running.wait(240) == 130
    begun, ended = audited(recorded)[-2:]
    assert (begun["phase"], ended["phase"], ended["result"]) == ("begin", "end", "cancelled")
    assert ended["backup"].startswith("full_")
    assert '"message": "Backup failed: ' in logged(recorded) and "cancelled" in logged(recorded)
    running = subprocess.Popen([*COMMAND, "backup", "--quiet"], cwd=recorded.root, env=slow, stderr=subprocess.DEVNULL)
    wait(lambda: audited(recorded)[-1]["phase"] == "begin")
    running.kill()
    running.wait(240)
    assert recorded.json("metrics")["runs"] == {"recorded": True, "cancelled": 1, "killed": 1}
