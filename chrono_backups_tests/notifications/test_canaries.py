"""A canary in every secret setting: nobody hears it, whatever fails and however it is told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.events import Finding
from chrono_backups.notifications.incidents import Sighting
from chrono_backups.notifications.outcome import Ended
from chrono_backups.oversight import alerts, probe_channels
from chrono_backups.settings import Settings, load
from chrono_backups.variables import Variable, secret_values, variables
from chrono_backups_tests.notifications.messages import NOW
from chrono_backups_tests.servers.receivers import Posted, Reply, mailbox, receiver

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

SECRETS = [known for known in variables(Settings) if known.secret]
_KEY = "Q0FOQVJZLWVuY3J5cHRpb24ta2V5LW9mLTMyLWJ5dGU="


def canary(known: Variable, server: str) -> str:
    """A value that the variable takes, with something in it that is found nowhere else."""
    mark = f"canary-{known.name.lower().replace('_', '-')}"
    if known.name == "BACKUP_ENCRYPTION_KEY":
        return _KEY
    if known.name == "BACKUP_NOTIFY_URLS":
        return f"json://user:{mark}@{server.removeprefix('http://')}/{mark}"
    return f"{server}/{mark}" if "URL" in known.name else mark


def settings_with_canaries(server: str, mail_port: int, root: Path) -> dict[str, str]:
    texts = {known.name: canary(known, server) for known in SECRETS}
    for name in ("BACKUP_ENCRYPTION_KEY_COMMAND", "BACKUP_DRILL_CHECKS", "BACKUP_SFTP_PRIVATE_KEY_PASSPHRASE"):
        texts.pop(name, None)  # excluded by others, or of a form of their own
    return texts | {
        "BACKUP_LOCAL_PATH": str(root / "repository"),
        "BACKUP_AWS_ACCESS_KEY_ID": "somebody",
        "BACKUP_STATE_DIR": str(root / "state"),
        "BACKUP_EMAIL_ENABLED": "true",
        "BACKUP_EMAIL_RECIPIENTS": "a@example.com",
        "BACKUP_EMAIL_FROM": "b@example.com",
        "BACKUP_EMAIL_SMTP_HOST": "127.0.0.1",
        "BACKUP_EMAIL_SMTP_PORT": str(mail_port),
        "BACKUP_EMAIL_SMTP_USE_TLS": "false",
        "BACKUP_EMAIL_SMTP_USERNAME": "somebody",
        **{f"BACKUP_{name}_ENABLED": "true" for name in ("SLACK", "DISCORD", "PAGERDUTY", "WEBHOOK")},
        "BACKUP_PAGERDUTY_URL": server,
    }


def test_there_are_secrets_of_every_channel() -> None:
    names = " ".join(known.name for known in SECRETS)
    for part in (
        "EMAIL_SMTP_PASSWORD", "SLACK_WEBHOOK_URL", "DISCORD_WEBHOOK_URL", "PAGERDUTY_INTEGRATION_KEY", "WEBHOOK_URL",
        "WEBHOOK_SECRET", "NOTIFY_URLS", "HEARTBEAT_URL", "ENCRYPTION_KEY", "HOOK_BEFORE",
    ):  # fmt: skip
        assert part in names


def hostile(posted: Posted) -> Reply:
    """It quotes all that it was told."""
    return Reply(400, posted.path.encode() + str(posted.headers).encode() + posted.body)


@pytest.mark.parametrize("script", [hostile, lambda _: Reply(503), lambda _: None, lambda _: Reply()])
def test_nobody_hears_one(script: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiver(script) as server, mailbox(login=("somebody", "another")) as box:
        texts = settings_with_canaries(server.url, box.port, tmp_path)
        settings, clock = load(texts), FrozenClock(NOW)
        assert not [one for one in settings.findings() if one.code == "notify-settings"]
        secrets = {value for value in secret_values(settings) if value}
        telling = alerts(settings, clock)
        said: list[object] = [repr(settings), settings.describe(), probe_channels(settings, clock)]
        everything = " ".join(sorted(secrets))
        telling.ended(Ended("full backup", "backup-failed", how="failed", message=everything, hint=everything))
        telling.observe([Sighting(Finding("wal-gap", "error", everything, everything, everything))])
        for _ in range(4):
            report = telling.flush(60)
            said += [report.faults, report.complaints]
            telling.retry_now()
        for channel in telling.channels:
            try:
                said.append(telling.test(channel))
            except ChronoBackupsError as error:
                said += [error, repr(error), vars(error), error.__cause__, error.__context__]
        seen = telling.overview()
        said += [seen.incidents, seen.channels, caplog.text]
        said += [path.read_bytes().decode("latin-1") for path in (tmp_path / "state").iterdir()]
        said += [_content(posted) for posted in (*server.posted, *server.refused)]
        said += [mail.as_string() for mail in box.mails]
        text = "\n".join(map(str, said))
    marks = {part for secret in secrets for part in _marks(secret)}
    assert len(marks) >= len(SECRETS) - 4
    assert {mark for mark in marks if mark in text} == set()
    assert "[secret]" in text


def _marks(secret: str) -> list[str]:
    found = [word for word in secret.replace("/", " ").replace("@", " ").replace(":", " ").split() if "canary-" in word]
    return found or [secret]


def _content(posted: Posted) -> str:
    """What is told; PagerDuty's key is what its own receiver knows us by."""
    try:
        content = json.loads(posted.body)
    except ValueError:
        return posted.body.decode("latin-1")
    content.pop("routing_key", None)
    return json.dumps(content)
