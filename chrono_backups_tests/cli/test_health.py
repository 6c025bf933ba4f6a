"""``health``, as a probe runs it."""

from __future__ import annotations

import shutil
import time
from typing import Any

from chrono_backups_tests.cli.conftest import Site
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY
from chrono_backups_tests.servers.silent_server import SilentServer
from chrono_backups_tests.undisturbed import once_undisturbed

GUIDE = ["storage_backends", "database_connectivity", "disk_space", "recent_backups"]
# Where a test runs, a disk may be nearly full.
ROOMY: dict[str, Any] = {"BACKUP_HEALTH_DISK_WARNING_PERCENT": "100", "BACKUP_HEALTH_DISK_CRITICAL_PERCENT": "100"}
CALM: dict[str, Any] = {**ROOMY, "BACKUP_HEALTH_CHECK_TIMEOUT": "60"}
"""And as busy."""


def test_the_guides_document(ready: Site) -> None:
    empty = ready.json("health", code=1, **CALM)
    assert (empty["status"], empty["checks"]["recent_backups"]) == ("critical", "critical")
    assert empty["metrics"] == {
        "last_backup": None, "total_backups": 0, "storage_used_gb": 0.0, "average_backup_duration": None,
    }  # fmt: skip
    identifier = ready.backup()
    found = ready.json("health", **CALM)
    assert list(found)[:3] == ["status", "checks", "metrics"]
    assert list(found["checks"])[:4] == GUIDE
    assert found["status"] == "healthy" and not found["findings"]
    assert set(found["checks"].values()) == {"healthy", "disabled"}
    metrics = found["metrics"]
    assert metrics["last_backup"].replace("-", "").replace(":", "").replace("T", "_") == f"{identifier[5:]}Z"
    assert metrics["total_backups"] == 1 and metrics["storage_used_gb"] == 0.003
    assert metrics["average_backup_duration"].startswith("00:00:")


def test_codes_that_a_probe_understands(ready: Site) -> None:
    ready.backup()
    ready.repository.chmod(0o755)
    found = ready.json("health", code=4, **CALM)
    assert found["status"] == "warning" and found["checks"]["permissions"] == "warning"
    assert [one["code"] for one in found["findings"]] == ["readable-by-others"]
    ran = ready.run("health", "--tolerate-warnings", **CALM)
    assert f"chmod 0700 {ready.repository}" in ran.text
    shutil.rmtree(ready.repository)
    found = ready.json("health", code=1, **CALM)
    assert found["checks"]["storage_backends"] == "critical"
    assert found["checks"]["recent_backups"] == "unknown", "one fault is one finding"
    assert [one["code"] for one in found["findings"]] == ["storage-unavailable"]


def test_a_storage_whose_replicas_are_still_to_come_is_no_fault(ready: Site) -> None:
    mirror: dict[str, Any] = {"BACKUP_LOCAL_MIRROR_PATH": str(ready.root / "mirror"), **CALM}
    ready.run("init", "--storage", "local_mirror", **mirror)
    ready.backup()
    assert ready.json("health", **mirror)["status"] == "healthy"
    found = ready.json("health", code=4, BACKUP_HEALTH_REPLICA_HOURS="0", **mirror)
    assert [(one["code"], one["subject"]) for one in found["findings"]] == [("replica-missing", "local_mirror")]
    assert found["checks"]["replicas"] == "warning"


def test_what_is_switched_off_is_not_looked_at(ready: Site) -> None:
    switches: dict[str, Any] = {
        f"BACKUP_HEALTH_CHECK_{name}": "false" for name in ("STORAGE_CONNECTIVITY", "DISK_SPACE", "RECENT_BACKUPS")
    }
    found = ready.json("health", **switches)
    assert {found["checks"][name] for name in GUIDE if name != "database_connectivity"} == {"disabled"}


def test_a_storage_that_hangs_keeps_nobody_waiting(ready: Site) -> None:
    ready.backup()
    with SilentServer() as server:
        hanging: dict[str, Any] = {
            "BACKUP_AWS_ENABLED": "true", "BACKUP_AWS_BUCKET_NAME": "bucket", "BACKUP_AWS_ENDPOINT_URL": server.url,
            "BACKUP_AWS_ACCESS_KEY_ID": ACCESS_KEY, "BACKUP_AWS_SECRET_ACCESS_KEY": SECRET_KEY, **ROOMY,
        }  # fmt: skip

        def looked() -> None:
            began = time.monotonic()
            ready.run("list")
            alone = time.monotonic() - began
            began = time.monotonic()
            found = ready.json("health", code=1, **hanging)
            took = time.monotonic() - began
            assert server.connections, "it was asked"
            told = [(one["code"], one["subject"], one["severity"]) for one in found["findings"]]
            assert told == [("storage-hangs", "aws_s3", "error")]
            assert found["metrics"]["total_backups"] == 1, "what answers is told"
            # On a machine that is so busy that a listing takes two seconds, that time comes on top.
            assert took <= max(5, 3 + 2 * alone), f"it took {took:.1f} s, a listing {alone:.1f} s"

        once_undisturbed(looked)
