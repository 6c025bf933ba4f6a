"""Who hears of it when the program fails, as from cron; and the verb that tries the channels out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chrono_backups_tests.cli.conftest import Site
from chrono_backups_tests.servers.receivers import Mailbox, Receiver, Reply, mailbox, receiver

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

SECRET = "hush-hush-hush-hush"


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def told(ready: Site, server: Receiver) -> Site:
    """A site with a webhook."""
    ready.settings |= {
        "BACKUP_WEBHOOK_ENABLED": "true",
        "BACKUP_WEBHOOK_URL": f"{server.url}/{SECRET}",
        "BACKUP_WEBHOOK_SECRET": SECRET,
        "BACKUP_STATE_DIR": str(ready.root / "state"),
        "BACKUP_HEARTBEAT_URL": f"{server.url}/ping/{SECRET}",
    }
    return ready


def messages(server: Receiver) -> list[tuple[str, str]]:
    return [(one.json["state"], one.json["incident"]) for one in server.posted if one.method == "POST"]


def pings(server: Receiver) -> int:
    return sum(one.method == "GET" for one in server.posted)


def test_a_backup_that_fails_is_told_and_that_it_works_again(told: Site, server: Receiver) -> None:
    told.run("backup", "--quiet")
    assert (messages(server), pings(server)) == ([], 1)
    for _ in range(2):
        told.run("backup", "--quiet", code=1, BACKUP_HOOK_BEFORE="echo the volume is busy; exit 3")
    assert messages(server) == [("opened", "backup-failed:full backup")]
    body = server.posted[-1].json
    assert "the volume is busy" in body["what"] and body["standing"]["newest_id"]
    told.run("backup", "--quiet")
    assert messages(server)[1:] == [("resolved", "backup-failed:full backup")]
    assert pings(server) == 2
    assert SECRET not in (told.root / "state" / "notifications.sqlite3").read_bytes().decode("latin-1")


def test_a_partial_backup_a_storage_that_is_gone_and_damage_are_told(told: Site, server: Receiver) -> None:
    told.run("backup", "--quiet")
    told.run("backup", "--quiet", code=4, BACKUP_CONFIGURATION_PATHS=str(told.root / "missing.env"))
    assert messages(server) == [("opened", "backup-partial:full backup")]
    assert pings(server) == 1, "a partial backup is no heartbeat"
    pack = max((path for path in told.repository.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    whole = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(whole[:-60] + bytes(60))
    told.run("verify", "--full", "--quiet", code=3)
    assert messages(server)[1:] == [("opened", "verify-failed:local")]
    pack.write_bytes(whole)
    told.run("verify", "--full", "--quiet")
    assert messages(server)[2:] == [("resolved", "verify-failed:local")]
    told.repository.rename(told.root / "away")
    told.run("backup", "--quiet", code=6)
    assert messages(server)[3:] == [("opened", "storage-unavailable:local")]


def test_what_is_nobody_elses_business_is_not_told(told: Site, server: Receiver) -> None:
    told.run("backup", "--type", "nonsense", code=2)
    told.run("prune", "--dry-run")
    told.run("forget", "--dry-run")
    told.run("list")
    told.run("backup", code=2, BACKUP_RETENTION_DAYS="many")
    assert server.posted == []
    assert not (told.root / "state").exists()


def test_a_channel_that_is_down_costs_a_warning_and_no_backup(told: Site, server: Receiver) -> None:
    dead: dict[str, Any] = {"BACKUP_SLACK_ENABLED": "true", "BACKUP_SLACK_WEBHOOK_URL": f"http://127.0.0.1:1/{SECRET}"}
    ran = told.run("backup", "--json", BACKUP_NOTIFY_ROUTES="backup-succeeded -> slack, webhook", **dead)
    assert ran.json["status"] == "complete"
    assert "warning: notifying by slack: http://127.0.0.1:1 can't be reached" in ran.err
    assert SECRET not in ran.err
    assert [one.json["event"] for one in server.posted if one.method == "POST"] == ["backup-succeeded"]
    listed = told.json("notify", "list", **dead)
    assert {one["name"]: one["waiting"] for one in listed["channels"]} == {"slack": 1, "webhook": 0}
    assert SECRET not in json.dumps(listed)


def test_a_channel_that_hangs_delays_the_end_by_seconds(told: Site, server: Receiver) -> None:
    let_go = threading.Event()
    server.script = lambda _: Reply() if let_go.wait(120) else None
    began = time.monotonic()
    ran = told.run("backup", code=1, BACKUP_HOOK_BEFORE="exit 3")
    took = time.monotonic() - began
    let_go.set()
    assert took < 60, "it waits ten seconds for the channel, and the receiver would for two minutes"
    assert "no answer within 10 s" in ran.err


def test_state_that_can_not_be_kept_costs_a_warning_and_no_backup(told: Site) -> None:
    (told.root / "file").write_text("")
    ran = told.run("backup", BACKUP_STATE_DIR=str(told.root / "file" / "state"))
    assert "nobody could be notified: incidents and messages can't be kept" in ran.err


def test_wrong_settings_of_a_channel_cost_the_channel_and_no_backup(told: Site, server: Receiver) -> None:
    wrong: dict[str, Any] = {
        "BACKUP_EMAIL_ENABLED": "true",
        "BACKUP_EMAIL_RECIPIENTS": "nobody",
        "BACKUP_NOTIFY_ROUTES": "backup-faild -> webhook",
        "BACKUP_NOTIFY_DIGEST": "noon",
    }
    told.run("backup", "--quiet", **wrong)
    assert pings(server) == 1
    ran = told.run("validate", code=2, **wrong)
    for words in ("BACKUP_EMAIL_RECIPIENTS: found 'nobody'; accepted: email addresses", "nearest to 'backup-faild' is",
                  "BACKUP_EMAIL_SMTP_HOST", "a time of day as 08:00", "`notify test`"):  # fmt: skip
        assert words in ran.text, words
    ran = told.run("notify", "test", **wrong)
    assert ran.text == "webhook: sent\n"
    assert "BACKUP_EMAIL_RECIPIENTS" in ran.err


def test_health_from_cron_tells_what_is_overdue_and_that_it_came(told: Site, server: Receiver) -> None:
    roomy: dict[str, Any] = {f"BACKUP_HEALTH_DISK_{one}_PERCENT": "100" for one in ("WARNING", "CRITICAL")}
    roomy["BACKUP_HEALTH_CHECK_TIMEOUT"] = "60"
    for _ in range(2):
        told.run("health", "--notify", "--quiet", code=1, **roomy)
    assert messages(server) == [("opened", "no-backup:local")]
    told.run("backup", "--quiet")
    told.run("health", "--notify", "--quiet", code=0, **roomy)
    assert messages(server)[1:] == [("resolved", "no-backup:local")]


class TestTheVerb:
    def test_it_tries_every_channel_and_says_what_is_wrong(self, told: Site, server: Receiver) -> None:
        with mailbox(login=("me", "right")) as box:
            settings: dict[str, Any] = {
                "BACKUP_EMAIL_ENABLED": "true",
                "BACKUP_EMAIL_RECIPIENTS": "a@example.com",
                "BACKUP_EMAIL_FROM": "b@example.com",
                "BACKUP_EMAIL_SMTP_HOST": "127.0.0.1",
                "BACKUP_EMAIL_SMTP_PORT": str(box.port),
                "BACKUP_EMAIL_SMTP_USE_TLS": "false",
                "BACKUP_EMAIL_SMTP_USERNAME": "me",
            }
            ran = told.run("notify", "test", BACKUP_EMAIL_SMTP_PASSWORD=SECRET, code=2, **settings)
            assert "email: FAILED: the mail server 127.0.0.1" in ran.text and "refused the login" in ran.text
            assert "hint: Correct BACKUP_EMAIL_SMTP_USERNAME and BACKUP_EMAIL_SMTP_PASSWORD." in ran.text
            assert "webhook: sent" in ran.text and SECRET not in ran.text + ran.err
            shown = told.json("notify", "test", "email", BACKUP_EMAIL_SMTP_PASSWORD="right", **settings)
            assert shown == {"channels": [{"channel": "email", "ok": True, "message": "sent", "hint": ""}]}
            _is_a_test(box)
        assert [one.json["event"] for one in server.posted] == ["test"]

    def test_what_waits_is_sent_at_once_when_asked(self, told: Site, server: Receiver) -> None:
        server.script = lambda posted: Reply(503) if posted.method == "POST" else Reply()
        told.run("backup", code=1, BACKUP_HOOK_BEFORE="exit 3")
        listed = told.run("notify", "list").text
        assert "backup-failed" in listed and "answered 503; tried again at" in listed
        server.script = lambda _: Reply()
        assert told.run("notify", "flush").text == "webhook: 1 message sent\nnothing is left to send\n"
        assert messages(server) == [("opened", "backup-failed:full backup")]

    def test_without_a_channel_and_with_an_unknown_one_it_says_so(self, told: Site) -> None:
        ran = told.run("notify", "test", code=2, BACKUP_WEBHOOK_ENABLED="false")
        assert "no channel is enabled" in ran.err
        ran = told.run("notify", "test", "slack", code=2)
        assert "slack is not enabled" in ran.err and "Enabled: webhook." in ran.err

    def test_templates_are_checked_by_validate_and_cost_no_message(self, told: Site, server: Receiver) -> None:
        templates = told.root / "templates"
        templates.mkdir()
        (templates / "backup-failed.txt").write_text("{{ message.nonsense }}")
        (templates / "message.html").write_text("{% if %}")
        (templates / "backup-faild.txt").write_text("never used")
        with_them: dict[str, Any] = {"BACKUP_NOTIFY_TEMPLATES": str(templates)}
        ran = told.run("validate", code=2, **with_them)
        assert "nonsense" in ran.text and "message.html" in ran.text and "(line 1)" in ran.text
        assert "backup-faild.txt: no event has this name" in ran.text
        told.run("backup", code=1, BACKUP_HOOK_BEFORE="exit 3", **with_them)
        assert ("opened", "backup-failed:full backup") in messages(server)
        assert ("opened", "template-broken:backup-failed.txt") in messages(server)


def _is_a_test(box: Mailbox) -> None:
    (mail,) = box.mails
    assert "Test message" in mail["Subject"]
