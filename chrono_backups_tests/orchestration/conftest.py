"""A small site to protect, its settings in the environment, and a Dagster instance."""

import base64
import secrets
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from chrono_backups_tests.orchestration.site import Site, wait_for_a_whole_day


@pytest.fixture(autouse=True)
def _a_whole_day() -> None:
    wait_for_a_whole_day()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    data, configuration = tmp_path / "data", tmp_path / "app.env"
    (data / "uploads").mkdir(parents=True)
    for number in range(5):
        (data / "uploads" / f"{number}.bin").write_bytes(secrets.token_bytes(20_000))
    (data / "readme.txt").write_text("hello\n" * 100)
    configuration.write_text("MODE=production\n")
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    for name, value in {
        "BACKUP_LOCAL_PATH": str(tmp_path / "repository"),
        "BACKUP_LOCAL_MIRROR_PATH": str(tmp_path / "mirror"),
        "BACKUP_FILES_PATHS": str(data),
        "BACKUP_CONFIGURATION_PATHS": str(configuration),
        "BACKUP_ENCRYPTION_KEY": key,
        "BACKUP_FIRST_DAY": "2026-01-01",
        "BACKUP_TIMEOUT_SECONDS": "1234",
        "BACKUP_MAX_PARALLEL_OPERATIONS": "7",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with dg.instance_for_test() as instance:
        made = Site(tmp_path, data, configuration, key, instance)
        made.application().create_repository().close()
        yield made
