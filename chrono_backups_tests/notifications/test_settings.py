"""Settings of notifications: what is wrong costs a channel, is told by ``validate``, and never fails anything."""

from __future__ import annotations

import pytest

from chrono_backups.errors import SettingsError
from chrono_backups.settings import load
from chrono_backups.variables import secret_values

EMAIL = {
    "BACKUP_EMAIL_ENABLED": "true",
    "BACKUP_EMAIL_RECIPIENTS": "a@example.com",
    "BACKUP_EMAIL_FROM": "b@example.com",
    "BACKUP_EMAIL_SMTP_HOST": "mail",
}
SLACK = {"BACKUP_SLACK_ENABLED": "true", "BACKUP_SLACK_WEBHOOK_URL": "https://hooks.example.com/canary"}


def wrong(texts: dict[str, str]) -> dict[str, str]:
    """Variable → what is said of it."""
    return {one.subject: one.message for one in load(texts).findings() if one.code == "notify-settings"}


def test_the_guides_settings_work() -> None:
    settings = load(EMAIL | SLACK | {"BACKUP_NOTIFY_ROUTES": "error -> email, slack"})
    assert settings.notifications.channels == ("email", "slack")
    assert not [one for one in settings.findings() if one.code == "notify-settings"]


@pytest.mark.parametrize(
    ("texts", "variable", "said"),
    [
        ({"BACKUP_EMAIL_RECIPIENTS": "admin"}, "BACKUP_EMAIL_RECIPIENTS", "found 'admin'; accepted: email addresses"),
        ({"BACKUP_EMAIL_FROM": "x"}, "BACKUP_EMAIL_FROM", "an email address"),
        ({"BACKUP_EMAIL_SMTP_TLS": "ssl"}, "BACKUP_EMAIL_SMTP_TLS", "one of starttls, implicit"),
        ({"BACKUP_SLACK_WEBHOOK_URL": "canary"}, "BACKUP_SLACK_WEBHOOK_URL", "found a value of 6 characters"),
        ({"BACKUP_DISCORD_ENABLED": "1"}, "BACKUP_DISCORD_WEBHOOK_URL", "needed as BACKUP_DISCORD_ENABLED is true"),
        ({"BACKUP_PAGERDUTY_ENABLED": "1"}, "BACKUP_PAGERDUTY_INTEGRATION_KEY", "needed as BACKUP_PAGERDUTY_ENABLED"),
        ({"BACKUP_PAGERDUTY_SEVERITY": "dire"}, "BACKUP_PAGERDUTY_SEVERITY", "one of critical, error, warning, info"),
        ({"BACKUP_WEBHOOK_TIMEOUT": "0"}, "BACKUP_WEBHOOK_TIMEOUT", "a number"),
        ({"BACKUP_NOTIFY_REPEAT_HOURS": "-1"}, "BACKUP_NOTIFY_REPEAT_HOURS", "hours from 0 (never) to 8760"),
        ({"BACKUP_NOTIFY_ROUTES": "errors -> email"}, "BACKUP_NOTIFY_ROUTES", "the nearest to 'errors' is error"),
        ({"BACKUP_HEARTBEAT_URL": "hc.io/x"}, "BACKUP_HEARTBEAT_URL", "a URL that begins with http"),
        ({"BACKUP_UI_URL": "dagster"}, "BACKUP_UI_URL", "a URL that begins with http"),
    ],
)
def test_what_is_wrong_is_told_and_the_rest_works(texts: dict[str, str], variable: str, said: str) -> None:
    settings = load(EMAIL | texts)
    told = wrong(EMAIL | texts)
    assert list(told) == [variable] and said in told[variable]
    mail = variable.startswith("BACKUP_EMAIL")
    assert settings.notifications.channels == (() if mail else ("email",))


def test_a_channel_that_is_wrong_leaves_the_routes_as_they_are() -> None:
    texts = EMAIL | SLACK | {"BACKUP_EMAIL_RECIPIENTS": "x", "BACKUP_NOTIFY_ROUTES": "error -> email; warning -> slack"}
    assert list(wrong(texts)) == ["BACKUP_EMAIL_RECIPIENTS"]
    assert load(texts).notifications.routes == texts["BACKUP_NOTIFY_ROUTES"]


def test_beside_other_mistakes_it_is_one_of_them() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"BACKUP_EMAIL_RECIPIENTS": "x", "BACKUP_RETENTION_DAYS": "many"})
    assert {one.variable for one in caught.value.problems} == {"BACKUP_EMAIL_RECIPIENTS", "BACKUP_RETENTION_DAYS"}


def test_every_secret_is_known_as_one() -> None:
    texts = SLACK | {
        "BACKUP_NOTIFY_URLS": "tgram://token/chat  ntfy://topic",
        "BACKUP_HOOK_BEFORE": "curl -H 'Authorization: x'",
        "BACKUP_EMAIL_SMTP_PASSWORD": "pass word",
    }
    found = secret_values(load(texts))
    assert {"https://hooks.example.com/canary", "tgram://token/chat", "ntfy://topic", "pass word"} <= found
    assert "curl -H 'Authorization: x'" in found and "curl" not in found and "pass" not in found
