"""The figures, computed from made-up histories, and the text that Prometheus reads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import UsageError
from chrono_backups.monitoring import exposition
from chrono_backups.monitoring.audit.log import AuditLog
from chrono_backups.monitoring.audit.runs import Outcome, Run, runs
from chrono_backups.monitoring.figures import Figures, figures
from chrono_backups.monitoring.health import CHECKS, HealthReport
from chrono_backups.monitoring.stored import Room
from chrono_backups.monitoring.wal import WalState
from chrono_backups.repository.records import Manifest
from chrono_backups_tests.monitoring.making import NOW, ago, drill, manifest, stored

DEPLOY = Path(__file__).parents[2] / "deploy"


def health(rooms: dict[str, Room], wal: WalState | None = None) -> HealthReport:
    return HealthReport(
        NOW, dict.fromkeys(CHECKS, "healthy"), {}, (stored(manifest("full", ago(days=1))),), rooms, wal, (), 0.1
    )


def history(days: int = 20) -> list[Manifest]:
    """One a day, each a little slower, 1 GB stored by the first and 10 MB a day then; newest first."""
    made = [manifest("full", ago(days=days), stored=10**9, took=100)]
    made += [
        manifest("full", ago(days=day), stored=10**7, took=300 if day <= days // 2 else 100)
        for day in range(days - 1, 0, -1)
    ]
    return made[::-1]


def measured(wal: WalState | None = None, ended: list[Run] | None = None) -> Figures:
    rooms = {"local": Room(10**9, 10**8, 2 * 10**9)}
    drills = [drill(ago(days=2)), drill(ago(days=9), proven=False)]
    return figures(NOW, health(rooms, wal), history(), drills, ended)


def run(outcome: Outcome, error: str = "", act: str = "backup") -> Run:
    return Run(act, "r", "", ago(hours=1), None, outcome, error)


def test_rates_know_of_failed_runs_where_the_audit_log_tells() -> None:
    without = measured()
    assert (without.recorded, without.success_rate, without.results) == (False, 1.0, {"done": 20})
    ended = [
        run("done"),
        run("done"),
        run("failed", "StorageUnavailable"),
        run("killed"),
        run("running"),
        run("failed", "X", "restore"),
    ]
    known = measured(ended=ended)
    assert known.recorded and known.success_rate == 0.5
    assert known.errors == {"StorageUnavailable": 1, "X": 1, "killed": 1}
    assert measured(ended=[]).success_rate is None


def test_durations_and_their_trend() -> None:
    full = measured().types["full"]
    assert (full.count, full.last_seconds) == (20, 300) and full.trend == 3.0
    assert 190 < full.average_seconds < 210


def test_growth_and_the_forecast() -> None:
    local = measured().storages["local"]
    assert local.growth_per_day == pytest.approx(2 * 19 * 10**7 / 20), "two sources; the first backup is no growth"
    assert local.full_at is not None and timedelta(days=5) < local.full_at - NOW < timedelta(days=6)
    young = figures(NOW, health({"local": Room(1, 1, 2)}), history(1), [], None)
    assert young.storages["local"].growth_per_day is None and young.storages["local"].full_at is None


def test_recovery_and_what_would_be_lost() -> None:
    recovery = measured().recovery
    assert (recovery.drills, recovery.proven, recovery.last_seconds, recovery.last_proven_at) == (
        2, 1, 180.0, ago(days=2) + timedelta(minutes=3),
    )  # fmt: skip
    assert measured().rpo == {"files": 86400.0, "configuration": 86400.0}


def test_runs_are_read_from_the_audit_log(tmp_path: Path) -> None:
    clock = FrozenClock(ago(days=3))
    log = AuditLog(tmp_path / "audit.log", retention_days=30, clock=clock)

    def write(phase: str, name: str, pid: int = 1, **more: object) -> None:
        log.append({"act": "backup", "phase": phase, "run": name, "from": {"host": "here", "pid": pid}, **more})

    write("begin", "too old")
    clock.advance(timedelta(days=2, hours=23))
    write("begin", "a")
    write("end", "a", result="done", backup="full_20260610_110000")
    write("begin", "b")
    write("end", "b", result="failed", error={"kind": "WrongKey"})
    write("begin", "c", pid=2)
    write("begin", "d", pid=3)
    found = runs(log.files(), ago(days=1), NOW, lambda host, pid: (host, pid) == ("here", 3))
    assert [(one.run, one.outcome, one.error) for one in found] == [
        ("a", "done", ""), ("b", "failed", "WrongKey"), ("c", "killed", ""), ("d", "running", ""),
    ]  # fmt: skip
    assert found[0].backup_id == "full_20260610_110000"


def test_the_text_is_what_prometheus_reads(tmp_path: Path) -> None:
    wal = WalState(True, 5, ago(seconds=10), ("x",), 9, NOW)
    text = exposition.exposition(measured(wal, [run("failed", 'odd"\\kind')]))
    assert 'chrono_backups_errors{kind="odd\\"\\\\kind"} 1' in text
    assert "chrono_backups_wal_behind_bytes 4\n" in text and "chrono_backups_wal_lag_seconds 10\n" in text
    sample = re.compile(r'chrono_backups_\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? -?\d+(\.\d+)?')
    lines = text.splitlines()
    assert text.endswith("\n") and all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    target = tmp_path / "chrono.prom"
    target.write_text("old")
    exposition.write(target, text)
    assert target.read_text() == text and target.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["chrono.prom"]
    with pytest.raises(UsageError, match="can't be written"):
        exposition.write(tmp_path / "none" / "chrono.prom", text)


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus"
)


@needs_promtool
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "rules", "chrono_backups.rules.yml"], "SUCCESS: 9 rules found"),
        (["test", "rules", "chrono_backups.rules.test.yml"], "SUCCESS"),
    ],
)
def test_promtool_accepts_the_rules(words: list[str], said: str) -> None:
    ran = subprocess.run(["promtool", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and said in ran.stdout, ran.stdout + ran.stderr


@needs_promtool
def test_promtool_accepts_the_metrics() -> None:
    text = exposition.exposition(measured(WalState(True, 5, ago(seconds=10), (), 9, NOW), [run("failed", "X")]))
    ran = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    wal = WalState(True, 5, ago(seconds=10), (), 9, NOW)
    text = exposition.exposition(measured(wal, [run("failed", "X")]))
    # Of a finding there is a sample only while there is one.
    known = {*re.findall(r"^# TYPE (\w+)", text, re.MULTILINE), "chrono_backups_findings"}
    rules = (DEPLOY / "prometheus" / "chrono_backups.rules.yml").read_text()
    asked = {name for line in rules.splitlines() if "expr:" in line for name in re.findall(r"chrono_backups_\w+", line)}
    dashboard = json.loads((DEPLOY / "grafana" / "chrono-backups.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked |= {name for query in queries for name in re.findall(r"chrono_backups_\w+", query)}
    assert asked <= known and len(queries) > 15
