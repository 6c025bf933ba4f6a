""".env.example and docs/settings.md tell of every variable, and what they tell is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chrono_backups.errors import Problem, SettingsError
from chrono_backups.settings import Settings, load
from chrono_backups.variables import Variable, variables

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
KNOWN = {each.name: each for each in variables(Settings)}

# Every variable that the production guide, the decisions on it and the issues name.
REQUIRED = re.findall(
    r"\w+",
    """
    ENABLED SYSTEM_VERSION DEFAULT_TYPE COMPRESSION_TYPE COMPRESSION_LEVEL
    ENCRYPTION_ENABLED ENCRYPTION_KEY ENCRYPTION_KEY_FILE ENCRYPTION_KEY_COMMAND ENCRYPTION_ALGORITHM VERIFY_INTEGRITY
    LOCAL_ENABLED LOCAL_PATH LOCAL_MAX_SIZE_GB LOCAL_PERMISSIONS LOCAL_MIRROR_PATH
    MAX_PARALLEL_OPERATIONS BANDWIDTH_LIMIT_MBPS TIMEOUT_SECONDS MEMORY_LIMIT_GB
    RETENTION_DAYS KEEP_DAILY_FOR_DAYS KEEP_WEEKLY_FOR_WEEKS KEEP_MONTHLY_FOR_MONTHS KEEP_YEARLY_FOR_YEARS
    MIN_BACKUPS_TO_KEEP PRUNE_GRACE_HOURS
    SCHEDULE_FULL_BACKUPS SCHEDULE_INCREMENTAL_BACKUPS SCHEDULE_DIFFERENTIAL_BACKUPS SCHEDULE_DATABASE_ONLY
    SCHEDULE_FILES_ONLY SCHEDULE_CONFIGURATION SCHEDULE_RETENTION SCHEDULE_VERIFICATION SCHEDULE_DRILL
    AWS_ENABLED AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_BUCKET_NAME AWS_REGION AWS_PREFIX AWS_STORAGE_CLASS
    AWS_ENDPOINT_URL AWS_LOCK_DAYS AWS_LOCK_MODE AWS_SESSION_TOKEN CACHE_DIR
    GCS_ENABLED GCS_PROJECT_ID GCS_BUCKET_NAME GCS_CREDENTIALS_PATH GCS_STORAGE_CLASS GCS_ENDPOINT_URL GCS_LOCK_DAYS
    GCS_LOCK_MODE AZURE_SAS_TOKEN AZURE_LOCK_MODE
    AZURE_ENABLED AZURE_ACCOUNT_NAME AZURE_ACCOUNT_KEY AZURE_CONTAINER_NAME AZURE_TIER
    AZURE_ENDPOINT_URL AZURE_LOCK_DAYS
    SFTP_ENABLED SFTP_HOST SFTP_PORT SFTP_USERNAME SFTP_PASSWORD SFTP_PRIVATE_KEY_PATH SFTP_PRIVATE_KEY_PASSPHRASE
    SFTP_KNOWN_HOSTS SFTP_PATH SFTP_CONNECTIONS
    EMAIL_ENABLED EMAIL_RECIPIENTS EMAIL_FROM EMAIL_SMTP_HOST EMAIL_SMTP_PORT EMAIL_SMTP_USE_TLS EMAIL_SMTP_USERNAME
    EMAIL_SMTP_PASSWORD
    SLACK_ENABLED SLACK_WEBHOOK_URL SLACK_CHANNEL SLACK_USERNAME SLACK_ICON_EMOJI DISCORD_ENABLED DISCORD_WEBHOOK_URL
    PAGERDUTY_ENABLED PAGERDUTY_INTEGRATION_KEY PAGERDUTY_SEVERITY
    WEBHOOK_ENABLED WEBHOOK_URL WEBHOOK_SECRET WEBHOOK_TIMEOUT NOTIFY_URLS NOTIFY_ROUTES HEARTBEAT_URL
    NOTIFY_REPEAT_HOURS NOTIFY_DIGEST NOTIFY_TEMPLATES NOTIFY_NAME UI_URL STATE_DIR PAGERDUTY_URL EMAIL_SMTP_TLS
    EMAIL_SMTP_CA_FILE
    AUDIT_ENABLED AUDIT_LOG_ALL_OPERATIONS AUDIT_LOG_FILE AUDIT_RETENTION_DAYS
    HEALTH_CHECK_ENABLED HEALTH_CHECK_INTERVAL HEALTH_CHECK_STORAGE_CONNECTIVITY HEALTH_CHECK_DISK_SPACE
    HEALTH_CHECK_RECENT_BACKUPS HEALTH_CHECK_TIMEOUT HEALTH_OVERDUE_MINUTES HEALTH_MAX_AGE_HOURS
    HEALTH_DISK_WARNING_PERCENT HEALTH_DISK_CRITICAL_PERCENT HEALTH_REPLICA_HOURS HEALTH_DRILL_DAYS
    LOG_FILE LOG_MAX_SIZE_MB LOG_KEEP
    HEALTH_WAL_LAG_SECONDS HEALTH_SIZE_FACTOR
    FILES_PATHS CONFIGURATION_PATHS INCLUDE_PATTERNS EXCLUDE_PATTERNS SOURCES PRIMARY_STORAGE TIMEZONE FIRST_DAY
    HOOK_BEFORE HOOK_AFTER HOOK_FAILED
    POSTGRES_HOST POSTGRES_SERVER POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB POSTGRES_METHOD
    REDIS_HOST REDIS_PORT REDIS_PASSWORD MEILISEARCH_HOST MEILISEARCH_MASTER_KEY MEILISEARCH_DUMP_DIR
    MEILISEARCH_TASK_WAIT_SECONDS MEILISEARCH_BIN
    WAL_MAX_LAG_SECONDS MAX_SKEW_SECONDS DRILL_CHECKS DRILL_DIR POSTGRES_BIN_DIR POSTGRES_SLOT
    POSTGRES_CHECKPOINT POSTGRES_SSLMODE POSTGRES_SSLROOTCERT
    REDIS_USER REDIS_SENTINELS REDIS_SENTINEL_MASTER REDIS_SENTINEL_PASSWORD REDIS_TLS REDIS_TLS_CA REDIS_TLS_CERT
    REDIS_TLS_KEY REDIS_RESTORE_ADDRESS REDIS_RESTORE_PORT REDIS_BIN_DIR
    """,
)
OF_THE_APPLICATION = re.findall(
    r"\w+",
    """
    POSTGRES_SERVER POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB REDIS_HOST REDIS_PORT REDIS_PASSWORD
    MEILISEARCH_HOST MEILISEARCH_MASTER_KEY
    """,
)

_LINE = re.compile(r"^(?P<comment># )?(?P<name>BACKUP_\w+)=(?P<value>.*)$")


def blocks() -> dict[str, tuple[str, bool, str]]:
    """Per variable of the example: the comment above it, whether it is commented out, its line."""
    found: dict[str, tuple[str, bool, str]] = {}
    above: list[str] = []
    for line in EXAMPLE.splitlines():
        if match := _LINE.match(line):
            assert match["name"] not in found, f"{match['name']} is there twice"
            found[match["name"]] = (" ".join(above), bool(match["comment"]), f"{match['name']}={match['value']}")
            above = []
        else:
            above = [*above, line.removeprefix("# ").removeprefix("#   ")] if line else []
    return found


def problems(text: str, tmp_path: Path) -> list[Problem]:
    file = tmp_path / "env"
    file.write_text(text, encoding="utf-8")
    try:
        load({}, file)
    except SettingsError as error:
        return list(error.problems)
    return []


@pytest.fixture
def filled(tmp_path: Path) -> str:
    """The example as an operator fills it in."""
    for name in ("BACKUP_LOCAL_PATH", "BACKUP_FILES_PATHS", "BACKUP_CONFIGURATION_PATHS"):
        assert re.search(rf"^{name}=", EXAMPLE, re.MULTILINE)
    text = re.sub(r"^BACKUP_LOCAL_PATH=.*$", f"BACKUP_LOCAL_PATH={tmp_path}/b", EXAMPLE, flags=re.MULTILINE)
    return text.replace("\nBACKUP_FILES_PATHS=", "\nBACKUP_FILES_PATHS=/data").replace(
        "\nBACKUP_CONFIGURATION_PATHS=", "\nBACKUP_CONFIGURATION_PATHS=/app/.env"
    )


def test_every_required_variable_is_known() -> None:
    names = set(KNOWN) | {name for each in KNOWN.values() for name in each.also}
    assert {f"BACKUP_{name}" for name in REQUIRED} | set(OF_THE_APPLICATION) == names


def test_the_example_has_every_variable_with_its_meaning() -> None:
    assert set(blocks()) == set(KNOWN)
    for name, (comment, _, _) in blocks().items():
        each = KNOWN[name]
        assert each.about.replace("`", "") in comment, name
        assert all(also in comment for also in each.also), name


def test_the_example_works_when_copied_and_when_filled_in(tmp_path: Path, filled: str) -> None:
    assert problems(EXAMPLE, tmp_path) == []
    assert problems(filled, tmp_path) == []
    settings = load({}, tmp_path / "env")
    assert (settings.sources, settings.storages) == (("files", "configuration"), ("local",))


def test_what_the_example_sets_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(EXAMPLE)
    ours, default = load({}, tmp_path / "env").describe(), load({"BACKUP_LOCAL_PATH": "/app/backups"}).describe()
    assert ours == default


@pytest.mark.parametrize("name", sorted(name for name, (_, commented, _) in blocks().items() if commented))
def test_each_line_that_is_commented_out_is_right(name: str, tmp_path: Path, filled: str) -> None:
    told = problems(f"{filled}\n{blocks()[name][2]}\n", tmp_path)
    of_it = [problem for problem in told if problem.variable == name]
    if not told:
        found = load({}, tmp_path / "env").findings()
        wrong = [one.message for one in found if one.code == "notify-settings" and one.subject == name]
        assert all(message.endswith("channels that are enabled; pagerduty is not") for message in wrong)
    assert not of_it


def row(each: Variable) -> str:
    """The variable's row in docs/settings.md."""
    names = f"`{each.name}`" + (", else " + ", ".join(f"`{name}`" for name in each.also) if each.also else "")
    default = each.default_note or (f"`{each.default}`" if each.default else "none")
    return f"| {names} | {default} | {each.accepted}{'; secret' if each.secret else ''} | {each.about} |"


@pytest.mark.parametrize("name", KNOWN)
def test_the_page_has_each_variable(name: str) -> None:
    assert row(KNOWN[name]) in PAGE.splitlines()


def test_the_page_has_no_other_variable() -> None:
    names = {name for each in KNOWN.values() for name in (each.name, *each.also)}
    assert set(re.findall(r"BACKUP_\w+[A-Z]", PAGE)) <= names
