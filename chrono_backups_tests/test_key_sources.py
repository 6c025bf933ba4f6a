"""Where the key comes from, and that no failure tells it."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from chrono_backups.errors import SettingsError
from chrono_backups.pipeline import settings as pipeline_settings
from chrono_backups.pipeline.settings import EncryptionSettings
from chrono_backups.settings import load

KEY = base64.urlsafe_b64encode(bytes(range(224, 256))).decode()  # has '_' and '-' in it
RAW = base64.urlsafe_b64decode(KEY)


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_each_place(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert load({"BACKUP_ENCRYPTION_KEY": f" {KEY} "}).encryption.load_key() == RAW
    assert load({"BACKUP_ENCRYPTION_KEY_FILE": str(file)}).encryption.load_key() == RAW
    assert load({"BACKUP_ENCRYPTION_KEY_COMMAND": f"cat '{file}' | cat"}).encryption.load_key() == RAW


def test_loading_settings_reads_no_key_and_runs_nothing(tmp_path: Path) -> None:
    load({"BACKUP_ENCRYPTION_KEY_FILE": "/nowhere/key", "BACKUP_LOCAL_PATH": str(tmp_path / "repository")})
    load({"BACKUP_ENCRYPTION_KEY_COMMAND": f"touch {tmp_path}/ran"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("key_file", "/nowhere/key", "'/nowhere/key', which can't be read (no such file or directory)"),
        ("key_file", "{tmp}", "'{tmp}', which can't be read (is a directory)"),
        ("key_file", "{tmp}/bad", "'{tmp}/bad', which holds no key (7 bytes)"),
        ("key_file", "{tmp}/long", "'{tmp}/long', which holds no key (more than 4096 bytes)"),
        ("key_command", "echo canary", "a command that printed no key (7 bytes)"),
        ("key_command", "echo canary; echo canary >&2; exit 3", "a command that failed with exit status 3"),
    ],
)
def test_failures_name_the_variable_and_no_secret(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], field: str, value: str, found: str
) -> None:
    (tmp_path / "bad").write_text("canary\n")
    (tmp_path / "long").write_text("canary" * 10_000)
    with pytest.raises(SettingsError) as caught:
        EncryptionSettings.model_validate({field: value.replace("{tmp}", str(tmp_path))}).load_key()
    (problem,) = caught.value.problems
    assert problem.variable == f"BACKUP_ENCRYPTION_{field.upper()}"
    assert problem.found == found.replace("{tmp}", str(tmp_path))
    assert "canary" not in f"{caught.value}{caught.value.hint}{capfd.readouterr()}"


def test_a_command_that_hangs_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_settings, "KEY_COMMAND_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(SettingsError, match=r"ran longer than 0\.3 s"):
        EncryptionSettings(key_command="sleep 600 | cat; true").load_key()
    assert time.monotonic() - began < 120
