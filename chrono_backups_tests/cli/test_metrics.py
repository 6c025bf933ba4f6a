"""``metrics``, as operators and collectors run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chrono_backups_tests.cli.conftest import Site


def test_figures_for_people_for_scripts_and_for_prometheus(ready: Site, tmp_path: Path) -> None:
    audit: dict[str, Any] = {"BACKUP_AUDIT_ENABLED": "true", "BACKUP_AUDIT_LOG_FILE": str(tmp_path / "audit.log")}
    ready.run("backup", **audit)
    ready.run("backup", code=1, BACKUP_HOOK_BEFORE="false", **audit)
    found = ready.json("metrics", **audit)
    assert (found["success_rate"], found["total_backups"]) == (0.5, 1)
    assert found["runs"] == {"recorded": True, "done": 1, "failed": 1}
    assert found["errors"] == {"BackupFailed": 1}
    assert found["backups"]["full"]["count"] == 1 and found["storages"]["local"]["used_bytes"] > 3_000_000
    assert found["rpo_seconds"]["files"] < 600
    assert ready.json("metrics")["runs"] == {"recorded": False, "done": 1}, (
        "without the audit log failures are not known"
    )
    assert "50.0% of 30 days" in ready.run("metrics", **audit).text
    text = ready.run("metrics", "--format", "prometheus", **audit).text
    assert "chrono_backups_success_ratio 0.5\n" in text
    file = tmp_path / "chrono.prom"
    ready.run("metrics", "--textfile", str(file), "--quiet", **audit)
    assert 'chrono_backups_runs{result="failed"} 1\n' in file.read_text()


def test_where_nothing_can_be_read_the_file_says_so(ready: Site, tmp_path: Path) -> None:
    ready.repository.rename(ready.root / "away")
    file = tmp_path / "chrono.prom"
    ready.run("metrics", "--textfile", str(file), code=4)
    text = file.read_text()
    assert "chrono_backups_health_status 2\n" in text
    assert 'chrono_backups_findings{code="storage-unavailable",severity="error",subject="local"} 1\n' in text
