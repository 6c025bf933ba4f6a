"""No secret in anything that Dagster is shown: events, metadata, failures, definitions; nor in what its runs write."""

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from chrono_backups_tests.canaries import closed_ports, found_below, found_in, is_masked, secrets
from chrono_backups_tests.orchestration.site import Site


def test_no_canary_is_found_anywhere(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = site.key
    for name, value in {
        **secrets(),
        **{name: value for name, value in closed_ports().items() if "AZURE" not in name},  # its SDK is large
        "BACKUP_ENCRYPTION_KEY": kept,
        "BACKUP_PRIMARY_STORAGE": "local",
        "BACKUP_SOURCES": "files,configuration",
        "BACKUP_CONFIGURATION_PATHS": f"/nowhere/{secrets()['BACKUP_REDIS_PASSWORD']}",
        "BACKUP_AUDIT_ENABLED": "true",
        "BACKUP_AUDIT_LOG_FILE": str(site.root / "logs" / "audit.log"),
        "BACKUP_LOG_FILE": str(site.root / "logs" / "backup.log"),
        "BACKUP_HEALTH_CHECK_ENABLED": "true",
        "BACKUP_STATE_DIR": str(site.root / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("chrono_backups.orchestration.failures.FIRST_WAIT_SECONDS", 0)
    assert not site.backup("files_only").success, "the configuration is missing"
    assert not site.backup("configuration").success
    assert site.launch("retention", config={"dry_run": True}).success
    repository = site.definitions().get_repository_def()
    with dg.build_sensor_context(site.instance, repository_def=repository) as context:
        shown = [str(event) for event in repository.get_sensor_def("health").evaluate_tick(context).asset_events]
    shown.append(repr(RepositorySnap.from_def(repository)))
    for run in site.instance.get_runs():
        shown += [f"{entry}" for entry in site.instance.all_logs(run.run_id)]
        shown.append(str(run))
    streams = capfd.readouterr()
    text = "\n".join([*shown, streams.out, streams.err])
    assert len(text) > 10_000 and is_masked(text)
    assert found_in(text) == [] and kept not in text
    assert found_below(site.root / "logs") == {}
    assert is_masked((site.root / "logs" / "backup.log").read_text())
