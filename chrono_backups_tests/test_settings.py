"""Settings: what is read, from where, and what each mistake is called."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from chrono_backups.errors import Problem, SettingsError
from chrono_backups.identifiers import BACKUP_TYPES
from chrono_backups.pipeline.settings import KEY_TEXT, CompressionSettings, EncryptionSettings
from chrono_backups.settings import Settings, load
from chrono_backups.storage.settings import LocalSettings
from chrono_backups.variables import variables

KEY = base64.urlsafe_b64encode(bytes(range(224, 256))).decode()  # has '_' and '-' in it
SOURCES = "names separated by ',' of postgres, redis, meilisearch, files, configuration"
MODE = "an octal mode from 0700 to 0777 that leaves the owner every right, such as 0700"
URL = "a URL that begins with http:// or https://"
GIGABYTES = "gigabytes (of 1000000000 bytes), a number above 0"
ABSOLUTE = "an absolute path without '..'"
ONE_KEY = "only one of BACKUP_ENCRYPTION_KEY, BACKUP_ENCRYPTION_KEY_FILE and BACKUP_ENCRYPTION_KEY_COMMAND"


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(texts: dict[str, str], env_file: Path | None = None) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(texts, env_file)
    return list(caught.value.problems)


# One variable each: its bad value, how the value is shown, what is said to be accepted.
BAD = [
    ("BACKUP_ENABLED", "maybe", "'maybe'", "true or false"),
    ("BACKUP_DEFAULT_TYPE", "weekly", "'weekly'", f"one of {', '.join(BACKUP_TYPES)}"),
    ("BACKUP_TIMEZONE", "Mars/Olympus", "'Mars/Olympus'", "an IANA time zone such as Europe/Berlin"),
    ("BACKUP_TIMEZONE", "../../etc/passwd", "'../../etc/passwd'", "an IANA time zone such as Europe/Berlin"),
    ("BACKUP_TIMEZONE", "America", "'America'", "an IANA time zone such as Europe/Berlin"),
    ("BACKUP_FIRST_DAY", "2024-02-30", "'2024-02-30'", "a date as 2024-01-31"),
    ("BACKUP_FIRST_DAY", "1704067200", "'1704067200'", "a date as 2024-01-31"),
    ("BACKUP_SOURCES", "files,postgre", "'files,postgre'", SOURCES),
    ("BACKUP_SOURCES", ",", "','", SOURCES),
    ("BACKUP_SOURCES", "files", "'files'", "sources that are configured; files is not: set BACKUP_FILES_PATHS"),
    ("BACKUP_PRIMARY_STORAGE", "local_mirror", "'local_mirror'", "an enabled storage; local_mirror is not"),
    ("BACKUP_FILES_PATHS", "/data:uploads", "'/data:uploads'", "absolute paths without '..', separated by ':'"),
    ("BACKUP_FILES_PATHS", "/data/../etc", "'/data/../etc'", "absolute paths without '..', separated by ':'"),
    ("BACKUP_COMPRESSION_TYPE", "lz4", "'lz4'", "one of zstd, gzip, none"),
    ("BACKUP_COMPRESSION_LEVEL", "0", "'0'", "a whole number from 1 to 22 for BACKUP_COMPRESSION_TYPE=zstd"),
    ("BACKUP_COMPRESSION_LEVEL", "fast", "'fast'", "a whole number: 1 to 22 for zstd, 1 to 9 for gzip, unset for none"),
    ("BACKUP_ENCRYPTION_ALGORITHM", "AES-128", "'AES-128'", "one of AES-256-GCM, CHACHA20-POLY1305"),
    ("BACKUP_ENCRYPTION_ALGORITHM", KEY, "a value of 44 characters", "one of AES-256-GCM, CHACHA20-POLY1305"),
    ("BACKUP_ENCRYPTION_KEY", "hunter2hunter", "a value of 13 characters", KEY_TEXT),
    ("BACKUP_ENCRYPTION_KEY", KEY[:-4], "a value of 40 characters", KEY_TEXT),
    ("BACKUP_ENCRYPTION_KEY", KEY.replace("_", "/"), "a value of 44 characters", KEY_TEXT),
    ("BACKUP_ENCRYPTION_KEY", "ключ", "a value of 4 characters", KEY_TEXT),
    ("BACKUP_ENCRYPTION_KEY_FILE", "key.txt", "'key.txt'", ABSOLUTE),
    ("BACKUP_ENCRYPTION_KEY_FILE", KEY, "a value of 44 characters", ABSOLUTE),
    ("BACKUP_LOCAL_ENABLED", "true", "nothing", f"{ABSOLUTE}, needed as BACKUP_LOCAL_ENABLED is true"),
    ("BACKUP_LOCAL_PATH", "backups", "'backups'", ABSOLUTE),
    ("BACKUP_LOCAL_MAX_SIZE_GB", "100GB", "'100GB'", GIGABYTES),
    ("BACKUP_LOCAL_MAX_SIZE_GB", "-1", "'-1'", GIGABYTES),
    ("BACKUP_LOCAL_MAX_SIZE_GB", "inf", "'inf'", GIGABYTES),
    ("BACKUP_LOCAL_PERMISSIONS", "0855", "'0855'", MODE),
    ("BACKUP_LOCAL_PERMISSIONS", "0600", "'0600'", MODE),
    ("BACKUP_LOCAL_PERMISSIONS", "rwx", "'rwx'", MODE),
    ("BACKUP_AWS_ENDPOINT_URL", "minio:9000", "'minio:9000'", URL),
    ("BACKUP_KEEP_DAILY_FOR_DAYS", "-3", "'-3'", "a whole number from 0 to 36500"),
    ("BACKUP_AZURE_TIER", "Archive", "'Archive'", "one of Hot, Cool, Cold"),
    ("BACKUP_SFTP_PORT", "65536", "'65536'", "a whole number from 1 to 65535"),
    ("BACKUP_MAX_PARALLEL_OPERATIONS", "0", "'0'", "a whole number from 1 to 1000"),
    ("BACKUP_MAX_PARALLEL_OPERATIONS", "2.5", "'2.5'", "a whole number from 1 to 1000"),
    ("BACKUP_BANDWIDTH_LIMIT_MBPS", "nan", "'nan'", "megabits per second, a number from 0 (no limit) to 1000000000"),
    ("BACKUP_TIMEOUT_SECONDS", "1h", "'1h'", "a whole number from 1 to 1000000000"),
    ("BACKUP_MEMORY_LIMIT_GB", "0", "'0'", GIGABYTES),
    ("BACKUP_MIN_BACKUPS_TO_KEEP", "0", "'0'", "a whole number from 1 to 100000"),
    ("BACKUP_RETENTION_DAYS", "99999999999", "'99999999999'", "a whole number from 0 to 36500"),
    ("BACKUP_SCHEDULE_FULL_BACKUPS", "0 2 * *", "'0 2 * *'",
     "five fields: minute, hour, day of the month, month, day of the week; not 4"),
    ("BACKUP_SCHEDULE_RETENTION", "61 5 * * *", "'61 5 * * *'",
     "in the field minute: 0-59, *, rising ranges, steps and lists, not '61'"),
    ("BACKUP_HEALTH_CHECK_INTERVAL", "often", "'often'", "a whole number from 1 to 86400"),
    ("BACKUP_LOCAL_PAHT", "canary", "an unknown variable", "a known variable; the nearest is BACKUP_LOCAL_PATH"),
    ("BACKUP_ZZZZZZZZZZZZZZZZ", "canary", "an unknown variable", "a known variable"),
    ("POSTGRES_PORT", "five", "'five'", "a whole number from 1 to 65535"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "found", "accepted"), BAD)
def test_a_bad_value_is_one_problem_that_names_it(name: str, value: str, found: str, accepted: str) -> None:
    named = "BACKUP_LOCAL_PATH" if name == "BACKUP_LOCAL_ENABLED" else name
    assert problems({name: value}) == [Problem(named, found, accepted)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"BACKUP_ENCRYPTION_KEY": KEY, "BACKUP_ENCRYPTION_KEY_FILE": "/run/key"},
         Problem("BACKUP_ENCRYPTION_KEY_FILE", "'/run/key'", ONE_KEY)),
        ({"BACKUP_ENCRYPTION_KEY_FILE": "/run/key", "BACKUP_ENCRYPTION_KEY_COMMAND": "pass show key"},
         Problem("BACKUP_ENCRYPTION_KEY_COMMAND", "a value of 13 characters", ONE_KEY)),
        ({"BACKUP_COMPRESSION_TYPE": "gzip", "BACKUP_COMPRESSION_LEVEL": "10"},
         Problem("BACKUP_COMPRESSION_LEVEL", "'10'", "a whole number from 1 to 9 for BACKUP_COMPRESSION_TYPE=gzip")),
        ({"BACKUP_COMPRESSION_TYPE": "none", "BACKUP_COMPRESSION_LEVEL": "1"},
         Problem("BACKUP_COMPRESSION_LEVEL", "'1'", "unset: BACKUP_COMPRESSION_TYPE=none has no levels")),
        ({"BACKUP_LOCAL_PATH": "/b", "BACKUP_LOCAL_MIRROR_PATH": "/b/mirror"},
         Problem("BACKUP_LOCAL_MIRROR_PATH", "'/b/mirror'",
                 "a directory apart from BACKUP_LOCAL_PATH, neither in it nor around it")),
        ({"BACKUP_LOCAL_PATH": "/b", "BACKUP_LOCAL_ENABLED": "false", "BACKUP_PRIMARY_STORAGE": "local"},
         Problem("BACKUP_PRIMARY_STORAGE", "'local'", "an enabled storage; local is not")),
        ({"BACKUP_HEALTH_DISK_WARNING_PERCENT": "90", "BACKUP_HEALTH_DISK_CRITICAL_PERCENT": "85"},
         Problem("BACKUP_HEALTH_DISK_CRITICAL_PERCENT", "'85'",
                 "a number of at least BACKUP_HEALTH_DISK_WARNING_PERCENT")),
        ({"BACKUP_AWS_ACCESS_KEY_ID": "AKIA"},
         Problem("BACKUP_AWS_SECRET_ACCESS_KEY", "nothing", "set together with BACKUP_AWS_ACCESS_KEY_ID, or neither")),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(texts: dict[str, str], expected: Problem) -> None:
    assert problems(texts) == [expected]


def test_every_problem_is_told_at_once_and_in_one_message() -> None:
    texts = {
        name: value for name, value, found, _ in BAD
        if found != "nothing" and name not in {"BACKUP_PRIMARY_STORAGE", "BACKUP_SOURCES"}
    } | {"BACKUP_GCS_ENABLED": "yes"}  # fmt: skip
    told = problems(texts)
    assert {problem.variable for problem in told} == set(texts) - {"BACKUP_GCS_ENABLED"} | {"BACKUP_GCS_BUCKET_NAME"}
    with pytest.raises(SettingsError, match=rf"^{len(told)} settings are wrong") as caught:
        load(texts)
    assert all(str(problem) in str(caught.value) for problem in told)


def test_variables_of_features_that_are_off_ask_for_nothing() -> None:
    settings = load(
        {
            "BACKUP_AWS_ENABLED": "false", "BACKUP_AWS_BUCKET_NAME": "bucket", "BACKUP_AWS_LOCK_DAYS": "0",
            "BACKUP_SLACK_WEBHOOK_URL": "https://hooks.example.com/x", "BACKUP_AUDIT_LOG_FILE": "/app/logs/audit.log",
            "BACKUP_HEALTH_CHECK_ENABLED": "false", "BACKUP_HEALTH_CHECK_DISK_SPACE": "true",
            "BACKUP_HEALTH_CHECK_INTERVAL": "60", "POSTGRES_PORT": "5433", "POSTGRES_SERVER": "db",
            "BACKUP_SOURCES": "files", "BACKUP_FILES_PATHS": "/data",
        }
    )  # fmt: skip
    assert settings.aws_s3.bucket_name == "bucket"
    assert settings.health.interval == 60
    assert settings.sources == ("files",)


def test_defaults_are_the_guides() -> None:
    settings = load({})
    assert settings == Settings()
    assert (settings.enabled, settings.default_type, settings.verify_integrity) == (True, "full", True)
    assert (settings.timezone, settings.first_day) == ("UTC", date(2024, 1, 1))
    assert (settings.compression.type, settings.compression.level) == ("zstd", None)
    assert settings.encryption.enabled
    assert settings.encryption.load_key() is None
    assert settings.limits.max_parallel_operations == 3
    assert list(settings.retention.model_dump().values()) == [30, 7, 4, 12, 5, 3, 24]
    crons = [settings.schedules.cron(backup_type) for backup_type in BACKUP_TYPES]
    assert crons == ["0 2 * * 0", "0 3 * * 1-6", None, "0 */6 * * *", None, "0 4 * * *"]
    assert (settings.sources, settings.storages) == ((), ())
    with pytest.raises(SettingsError, match="BACKUP_LOCAL_PATH"):
        _ = settings.primary_storage


def test_variables_of_a_run_are_no_settings() -> None:
    assert load({"BACKUP_DEBUG": "1", "BACKUP_NEW_ENCRYPTION_KEY": "canary", "OTHER": "x"}) == Settings()


def test_values_become_what_the_code_works_with() -> None:
    settings = load(
        {
            "BACKUP_LOCAL_PATH": " /backups ",
            "BACKUP_LOCAL_MIRROR_PATH": "/mnt/nas",
            "BACKUP_LOCAL_MAX_SIZE_GB": "1.5",
            "BACKUP_LOCAL_PERMISSIONS": "755",
            "BACKUP_FILES_PATHS": "/data: /up loads:",
            "BACKUP_TIMEZONE": "Asia/Tokyo",
            "BACKUP_EXCLUDE_PATTERNS": "*.tmp, *.cache",
            "BACKUP_CONFIGURATION_PATHS": "/app/.env",
            "BACKUP_BANDWIDTH_LIMIT_MBPS": "50",
            "BACKUP_MEMORY_LIMIT_GB": "2",
            "BACKUP_PRIMARY_STORAGE": "local_mirror",
            "BACKUP_SCHEDULE_FULL_BACKUPS": " @weekly",
            "BACKUP_SCHEDULE_DATABASE_ONLY": "Off",
            "BACKUP_SCHEDULE_FILES_ONLY": "*/30  8-18 * JAN-MAR mon,FRI",
            "BACKUP_FIRST_DAY": "2025-03-01",
            "BACKUP_ENCRYPTION_ENABLED": "no",
            "BACKUP_HOOK_BEFORE": "lvcreate -s",
            "BACKUP_COMPRESSION_TYPE": "gzip",
            "BACKUP_COMPRESSION_LEVEL": "9",
        }
    )
    assert settings.local.enabled
    assert (settings.local.path, settings.local.max_size, settings.local.permissions) == (
        Path("/backups"), 1_500_000_000, 0o755,
    )  # fmt: skip
    assert settings.storages == ("local_mirror", "local")
    assert settings.primary_storage == "local_mirror"
    assert settings.files.paths == (Path("/data"), Path("/up loads"))
    assert settings.files.exclude_patterns == ("*.tmp", "*.cache")
    assert settings.sources == ("files", "configuration")
    assert settings.limits.bandwidth == 6_250_000
    assert settings.limits.memory == 2_000_000_000
    assert settings.schedules.cron("full") == "@weekly"
    assert settings.schedules.cron("database_only") is None
    assert settings.schedules.cron("files_only") == "*/30 8-18 * JAN-MAR mon,FRI"
    assert settings.hooks.before == "lvcreate -s"
    assert not settings.encryption.enabled
    assert load({"BACKUP_BANDWIDTH_LIMIT_MBPS": "0"}).limits.bandwidth is None
    assert load({"BACKUP_FILES_PATHS": "/d/\udcff"}).files.paths == (Path("/d/\udcff"),)  # a byte that is no UTF-8


def test_the_applications_own_names_are_taken_and_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    application = {
        "POSTGRES_SERVER": "db",
        "POSTGRES_PORT": "tcp://10.0.0.9:5433",
        "POSTGRES_USER": "app",
        "POSTGRES_PASSWORD": "p",
        "POSTGRES_DB": "chrono",
        "REDIS_HOST": "cache",
        "REDIS_PORT": "6380",
        "REDIS_PASSWORD": "r",
        "MEILISEARCH_HOST": "http://search:7700",
        "MEILISEARCH_MASTER_KEY": "m",
        "SECRET_KEY": "x",
        "DEBUG": "not-a-bool",
    }
    settings = load(application)
    assert settings.sources == ("postgres", "redis", "meilisearch", "configuration")
    assert settings.postgres.model_dump(include={"host", "port", "user", "db"}) == {
        "host": "db", "port": 5433, "user": "app", "db": "chrono",
    }  # fmt: skip
    assert settings.postgres.password == SecretStr("p")
    assert (settings.redis.host, settings.redis.port, settings.redis.password) == ("cache", 6380, SecretStr("r"))
    assert (settings.meilisearch.host, settings.meilisearch.master_key) == ("http://search:7700", SecretStr("m"))
    own = {"BACKUP_POSTGRES_USER": "backup", "BACKUP_POSTGRES_SERVER": "replica", "BACKUP_REDIS_PASSWORD": "own"}
    settings = load(application | own)
    assert (settings.postgres.user, settings.postgres.host, settings.postgres.db) == ("backup", "replica", "chrono")
    assert settings.redis.password == SecretStr("own")
    assert load(application | {"BACKUP_SOURCES": "redis"}).sources == ("redis",)


class TestEnvFile:
    def test_environment_comes_first_and_empty_means_unset(self, tmp_path: Path) -> None:
        lines = (
            "\ufeffBACKUP_KEEP_DAILY_FOR_DAYS=9",
            "BACKUP_RETENTION_DAYS=10",
            'export BACKUP_LOCAL_PATH="/from file"  # why',
            "BACKUP_HOOK_AFTER=echo $HOME ${X}",
            "BACKUP_TIMEZONE=",
            "OTHER=1",
            "nonsense here",
        )
        (tmp_path / ".env").write_text("\n".join(lines))
        settings = load({"BACKUP_RETENTION_DAYS": "20", "BACKUP_LOCAL_PATH": " "})
        assert settings.retention.retention_days == 20
        assert settings.retention.keep_daily_for_days == 9  # past the byte order mark
        assert settings.local.path == Path("/from file")
        assert settings.hooks.after == "echo $HOME ${X}"
        assert settings.timezone == "UTC"

    def test_the_named_file_is_read_instead(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("BACKUP_RETENTION_DAYS=10\n")
        (tmp_path / "other").write_text("BACKUP_KEEP_DAILY_FOR_DAYS=9\n")
        retention = load({}, tmp_path / "other").retention
        assert (retention.retention_days, retention.keep_daily_for_days) == (30, 9)

    def test_a_directory_called_env_is_no_settings_file(self, tmp_path: Path) -> None:
        (tmp_path / ".env").mkdir()
        assert load({}) == Settings()

    def test_a_named_file_that_cant_be_read_is_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / "latin").write_bytes(b"BACKUP_HOOK_AFTER=\xe9\n")
        accepted = "a readable file of NAME=value lines"
        for name, reason in (("none", "no such file or directory"), ("latin", "it is not UTF-8")):
            (told,) = problems({}, tmp_path / name)
            assert told == Problem("--env-file", f"'{tmp_path / name}', which can't be read ({reason})", accepted)

    def test_a_line_that_dotenv_would_skip_is_a_problem(self, tmp_path: Path) -> None:
        file = tmp_path / "env"
        file.write_text('A=1\nBACKUP_FILES_PATHS="/data\nBACKUP_LOCAL_PATH /b\n')
        assert problems({}, file) == [
            Problem(name, f"line {line} of '{file}', which can't be read", "NAME=value, with quotes closed")
            for name, line in (("BACKUP_FILES_PATHS", 2), ("BACKUP_LOCAL_PATH", 3))
        ]


def test_drill_checks_are_read_with_the_settings_and_a_file_of_them_when_it_is_needed() -> None:
    (told,) = problems({"BACKUP_DRILL_CHECKS": "a: sql 'x' == 1\nb: sql 'y' == secret"})
    assert "line 2 of the drill checks: what is asked" in told.accepted
    assert "secret" not in f"{told}"
    assert load({"BACKUP_DRILL_CHECKS": "/not/there"}).drill_checks == "/not/there"


def test_no_secret_in_any_text() -> None:
    secret = [each for each in variables(Settings) if each.secret]
    assert len(secret) >= 19
    texts = {name: f"https://canary.example/{name}" for each in secret for name in (each.name, *each.also)}
    with pytest.raises(SettingsError) as caught:  # the key is none
        load(texts)
    error = caught.value
    assert "canary" not in f"{error!r} {error} {error.hint} {error.problems} {error.__context__} {error.__cause__}"

    texts = {each.name: f"https://canary.example/{each.name}" for each in secret} | {"BACKUP_ENCRYPTION_KEY": KEY}
    texts["BACKUP_AWS_ACCESS_KEY_ID"] = "AKIA"
    texts["BACKUP_DRILL_CHECKS"] = "a: sql 'select canary' == 1"
    del texts["BACKUP_ENCRYPTION_KEY_COMMAND"]
    settings = load(texts)
    described = settings.describe()
    shown = f"{settings!r} {settings} {json.dumps(described)} {settings.findings()}"
    assert "canary" not in shown
    assert KEY not in shown
    assert described["encryption"]["BACKUP_ENCRYPTION_KEY"] == "set"
    assert described["encryption"]["BACKUP_ENCRYPTION_KEY_COMMAND"] == "not set"
    with pytest.raises(ValidationError) as refused:
        EncryptionSettings.model_validate({"key": "canary", "key_command": "canary"})
    assert "canary" not in str(refused.value)


def test_describe_shows_every_variable_and_what_follows_from_them() -> None:
    described = load({"BACKUP_LOCAL_PATH": "/b", "BACKUP_FILES_PATHS": "/data"}).describe()
    assert json.loads(json.dumps(described)) == described
    shown = {name for section in described.values() for name in section}
    assert {each.name for each in variables(Settings)} | {"sources", "storages", "primary_storage"} == shown
    assert described["local"]["BACKUP_LOCAL_PERMISSIONS"] == "0700"
    assert described["files"]["BACKUP_FILES_PATHS"] == ["/data"]
    assert described["effective"] == {"sources": ["files"], "storages": ["local"], "primary_storage": "local"}


def test_findings() -> None:
    assert [finding.code for finding in load({}).findings()] == [
        "settings.no_storage", "settings.no_source", "settings.no_key",
    ]  # fmt: skip
    good = {"BACKUP_LOCAL_PATH": "/b", "BACKUP_FILES_PATHS": "/data", "BACKUP_ENCRYPTION_KEY": KEY}
    assert load(good).findings() == ()
    (wide,) = load(good | {"BACKUP_LOCAL_PERMISSIONS": "0755"}).findings()
    assert (wide.code, wide.severity) == ("settings.readable_by_others", "warning")
    (unnamed,) = load(good | {"BACKUP_SOURCES": "files,configuration"}).findings()
    assert unnamed.code == "settings.source_without_paths"


def test_models_are_frozen_and_take_no_stray_names() -> None:
    with pytest.raises(ValidationError):
        load({}).local.path = Path("/elsewhere")
    with pytest.raises(ValidationError):
        LocalSettings.model_validate({"pth": "/b"})
    with pytest.raises(ValidationError):
        CompressionSettings(type="none", level=3)


def test_loading_imports_nothing_heavy() -> None:
    code = "import sys; from chrono_backups.settings import load; load({}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"dagster", "dotenv", "urllib.request", "email_validator", "difflib"} & set(loaded)
