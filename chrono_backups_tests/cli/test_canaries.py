"""No secret in anything that the command line says or writes: streams, log file, audit log, metrics, manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chrono_backups_tests.canaries import closed_ports, found_below, found_in, is_masked, secrets
from chrono_backups_tests.cli.conftest import Site


@pytest.fixture
def full_of_secrets(site: Site, tmp_path: Path) -> Site:
    """Every secret is set, and quoted where a message may quote it: a path that is not there has one in its name."""
    quoted = f"/nowhere/{secrets()['BACKUP_POSTGRES_PASSWORD']}"
    site.settings |= (
        secrets()
        | closed_ports()
        | {
            "BACKUP_CONFIGURATION_PATHS": quoted,
            "BACKUP_PRIMARY_STORAGE": "local",
            "BACKUP_STATE_DIR": str(tmp_path / "state"),
            "BACKUP_AUDIT_ENABLED": "true",
            "BACKUP_AUDIT_LOG_ALL_OPERATIONS": "true",
            "BACKUP_AUDIT_LOG_FILE": str(tmp_path / "logs" / "audit.log"),
            "BACKUP_LOG_FILE": str(tmp_path / "logs" / "backup.log"),
            "BACKUP_HEALTH_CHECK_TIMEOUT": "20",
        }
    )
    return site


def test_no_canary_is_found_anywhere(full_of_secrets: Site, tmp_path: Path) -> None:
    site = full_of_secrets
    said = []
    trees: dict[str, Any] = {"BACKUP_SOURCES": "files,configuration"}  # the stores are tried by `health`, in less time
    for words, code in (
        (("init", "--storage", "local"), 0),
        (("backup", "--storage", "local", "--debug"), 4),
        (("backup", "--storage", "local", "--type", "configuration", "--json"), 1),
        (("show", "latest", "--json"), 0),
        (("health", "--json"), 1),
        (("storage", "test", "local", "--set", "BACKUP_LOCAL_PATH=/nowhere/at/all"), None),
        (("audit", "show"), 0),
    ):
        ran = site.run(*words, code=code, **(trees if words[0] == "backup" else {}))
        said.append(f"{words}: {ran.text}\n{ran.err}")
        assert found_in(said[-1]) == [], said[-1]
    text = "\n".join(said)
    assert is_masked(text), "the tests' own bait was taken, and masked"
    assert found_below(tmp_path / "logs") == {}
    assert is_masked((tmp_path / "logs" / "backup.log").read_text())
    audited = [json.loads(line) for line in (tmp_path / "logs" / "audit.log").read_text().splitlines()]
    assert {"backup", "show", "health"} <= {one["act"] for one in audited}
    assert found_below(tmp_path / "state") == {}
