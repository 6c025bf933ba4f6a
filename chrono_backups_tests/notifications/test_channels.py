"""Each channel by the contract, against a receiver of the tests' own, with payloads as the vendors publish them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import SecretStr

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, MessageRejected
from chrono_backups.notifications.apprise import AppriseNotifier
from chrono_backups.notifications.base import Notifier
from chrono_backups.notifications.discord import DiscordNotifier
from chrono_backups.notifications.pagerduty import PagerDutyNotifier
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import DiscordSettings, PagerDutySettings, SlackSettings, WebhookSettings
from chrono_backups.notifications.slack import SlackNotifier
from chrono_backups.notifications.webhook import WebhookNotifier, signature
from chrono_backups_tests.contracts.notifier_contract import CANARY, NotifierContract
from chrono_backups_tests.notifications.messages import NASTY, every_message, message, nasty_message
from chrono_backups_tests.servers.receivers import Posted, Receiver, Reply, receiver

NOWHERE = "http://127.0.0.1:1"
"""Nobody listens there."""


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "schemas" / f"{name}.json").read_text())
    return found


def valid(payload: object, name: str) -> None:
    jsonschema.Draft202012Validator(schema(name)).validate(payload)


class HttpEnd:
    """An HTTP receiver as the contract sees it."""

    def __init__(self, server: Receiver, unknown: Reply) -> None:
        self.server, self.unknown = server, unknown

    def received(self) -> int:
        return len(self.server.posted)

    def refuse(self, how: str) -> None:
        def script(posted: Posted) -> Reply:
            if how == "hostile":
                return Reply(400, posted.path.encode() + b" " + posted.body)
            return Reply(503) if how == "busy" else self.unknown

        self.server.script = script


class HttpContract(NotifierContract):
    UNKNOWN = Reply(404, b"no_service")

    @pytest.fixture
    def server(self) -> Iterator[Receiver]:
        with receiver() as running:
            yield running

    @pytest.fixture
    def end(self, server: Receiver) -> HttpEnd:
        return HttpEnd(server, self.UNKNOWN)

    def make(self, url: str, renderer: Renderer, clock: FrozenClock) -> Notifier:
        raise AssertionError("a subclass says so")

    @pytest.fixture
    def notifier(self, server: Receiver, renderer: Renderer, clock: FrozenClock) -> Notifier:
        return self.make(server.url, renderer, clock)

    @pytest.fixture
    def unreachable(self, renderer: Renderer, clock: FrozenClock) -> Notifier:
        return self.make(NOWHERE, renderer, clock)

    @pytest.mark.parametrize("value", ["7", "Sun, 01 Mar 2037 12:00:00 GMT"])
    def test_it_tells_how_long_to_wait(self, value: str, notifier: Notifier, server: Receiver) -> None:
        server.script = lambda _: Reply(429, headers={"Retry-After": value})
        with pytest.raises(ChannelUnavailable) as caught:
            notifier.send(message())
        assert caught.value.retry_after is not None
        assert caught.value.retry_after == 7 or caught.value.retry_after > 10_000

    def test_a_connection_that_breaks_is_passing(self, notifier: Notifier, server: Receiver) -> None:
        server.script = lambda _: None
        with pytest.raises(ChannelUnavailable):
            notifier.send(message())


class TestSlack(HttpContract):
    def make(self, url: str, renderer: Renderer, clock: FrozenClock) -> SlackNotifier:
        address = SecretStr(f"{url}/services/T0/B0/{CANARY}")
        settings = SlackSettings(
            enabled=True, webhook_url=address, channel="#backups", username="BackupBot", icon_emoji=":floppy_disk:"
        )
        return SlackNotifier(settings, renderer, clock)

    def test_the_payload_is_what_slack_takes(self, renderer: Renderer, clock: FrozenClock) -> None:
        notifier = self.make(NOWHERE, renderer, clock)
        for one in (*every_message(), nasty_message()):
            valid(notifier.payload(one), "slack")

    def test_what_is_read_is_all_there(self, notifier: SlackNotifier, server: Receiver) -> None:
        notifier.send(message(link="https://dagster.example.com/runs/1", backup_id="full_20260301_110000"))
        (posted,) = server.posted
        text = json.dumps(posted.json, ensure_ascii=False)
        assert (posted.json["channel"], posted.json["username"], posted.json["icon_emoji"]) == (
            "#backups", "BackupBot", ":floppy_disk:",
        )  # fmt: skip
        for part in ("Backup failed: full backup", "local is full", "full_20260301_110000", "Make room.",
                     "2026-03-01 10:00 UTC (2 h ago)", "full_20260301_020000: all up to 2026-03-01 02:00 UTC",
                     "full_20260222_020000, by a drill", "https://dagster.example.com/runs/1"):  # fmt: skip
            assert part in text, part

    def test_nobody_is_mentioned_by_the_name_of_a_file(self, renderer: Renderer, clock: FrozenClock) -> None:
        assert NASTY.startswith("<!channel>")
        payload = self.make(NOWHERE, renderer, clock).payload(nasty_message())
        header = payload["attachments"][0]["blocks"].pop(0)
        assert header["text"]["type"] == "plain_text", "in which Slack looks for no mentions"
        assert "<!channel>" not in json.dumps(payload)


class TestDiscord(HttpContract):
    UNKNOWN = Reply(404, b'{"message": "Unknown Webhook", "code": 10015}')

    def make(self, url: str, renderer: Renderer, clock: FrozenClock) -> DiscordNotifier:
        settings = DiscordSettings(enabled=True, webhook_url=SecretStr(f"{url}/api/webhooks/1/{CANARY}"))
        return DiscordNotifier(settings, renderer, clock)

    def test_the_payload_is_what_discord_takes(self, renderer: Renderer, clock: FrozenClock) -> None:
        notifier = self.make(NOWHERE, renderer, clock)
        for one in (*every_message(), nasty_message()):
            payload = notifier.payload(one)
            valid(payload, "discord")
            (embed,) = payload["embeds"]
            fields = [field[part] for field in embed["fields"] for part in ("name", "value")]
            texts = [embed["title"], embed["description"], embed["footer"]["text"], *fields]
            assert sum(map(len, texts)) <= 6000, "Discord's limit of all texts together"
            assert payload["allowed_mentions"] == {"parse": []}


class TestPagerDuty(HttpContract):
    UNKNOWN = Reply(400, b'{"status": "invalid event", "errors": ["Invalid routing key"]}')

    def make(self, url: str, renderer: Renderer, clock: FrozenClock, severity: Any = "critical") -> PagerDutyNotifier:
        settings = PagerDutySettings(
            enabled=True, integration_key=SecretStr(CANARY), severity=severity, url=f"{url}/v2/enqueue"
        )
        return PagerDutyNotifier(settings, renderer, clock)

    def test_the_payload_is_what_pagerduty_takes(self, renderer: Renderer, clock: FrozenClock) -> None:
        notifier = self.make(NOWHERE, renderer, clock)
        for one in (*every_message(), nasty_message()):
            if notifier.takes(one):
                valid(notifier.payload(one), "pagerduty")

    def test_an_incident_is_triggered_joined_and_resolved(self, notifier: Notifier, server: Receiver) -> None:
        for state in ("opened", "reminder", "resolved"):
            notifier.send(message(state))
        actions = [posted.json["event_action"] for posted in server.posted]
        assert actions == ["trigger", "trigger", "resolve"]
        assert len({posted.json["dedup_key"] for posted in server.posted}) == 1

    def test_news_page_nobody_and_a_test_is_resolved_at_once(self, notifier: Notifier, server: Receiver) -> None:
        by_event = {one.event: one for one in every_message()}
        assert not notifier.takes(by_event["digest"]) and not notifier.takes(by_event["backup-succeeded"])
        notifier.send(by_event["test"])
        assert [posted.json["event_action"] for posted in server.posted] == ["trigger", "resolve"]

    def test_errors_are_as_severe_as_configured_and_warnings_no_more(
        self, renderer: Renderer, clock: FrozenClock
    ) -> None:
        def severity(configured: str, seen: str) -> str:
            notifier = self.make(NOWHERE, renderer, clock, configured)
            return str(notifier.payload(message(severity=seen))["payload"]["severity"])

        assert (severity("critical", "error"), severity("critical", "warning")) == ("critical", "warning")
        assert (severity("info", "error"), severity("info", "warning")) == ("info", "info")


class TestWebhook(HttpContract):
    def make(self, url: str, renderer: Renderer, clock: FrozenClock) -> WebhookNotifier:
        settings = WebhookSettings(enabled=True, url=SecretStr(f"{url}/hooks/{CANARY}"), secret=SecretStr(CANARY))
        return WebhookNotifier(settings, renderer, clock)

    def test_it_is_signed_over_time_and_body(self, notifier: Notifier, server: Receiver, clock: FrozenClock) -> None:
        notifier.send(message())
        (posted,) = server.posted
        moment = posted.headers["X-Chrono-Time"]
        assert int(moment) == int(clock.now().timestamp())
        assert posted.headers["X-Chrono-Signature"] == signature(CANARY, moment, posted.body)
        others = [signature(CANARY, str(int(moment) + 1), posted.body), signature(CANARY, moment, posted.body + b" "),
                  signature("another", moment, posted.body)]  # fmt: skip
        assert posted.headers["X-Chrono-Signature"] not in others

    def test_the_body_says_everything(self, notifier: Notifier, server: Receiver) -> None:
        sent = message(link="https://dagster.example.com/runs/1", backup_id="full_20260301_110000")
        notifier.send(sent)
        notifier.send(sent)
        first, again = server.posted
        assert first.headers["X-Chrono-Delivery"] == again.headers["X-Chrono-Delivery"]
        body = first.json
        assert (body["version"], body["event"], body["state"], body["severity"]) == (
            1, "backup-failed", "opened", "error",
        )  # fmt: skip
        assert body["standing"]["newest_id"] == "full_20260301_020000"
        assert body["what"] in body["text"] and body["since"] == "2026-03-01T10:00:00.000000Z"

    def test_without_a_secret_nothing_is_signed(self, server: Receiver, renderer: Renderer, clock: FrozenClock) -> None:
        settings = WebhookSettings(enabled=True, url=SecretStr(server.url))
        WebhookNotifier(settings, renderer, clock).send(message())
        assert "X-Chrono-Signature" not in server.posted[0].headers

    def test_a_redirect_is_not_followed(self, notifier: Notifier, server: Receiver) -> None:
        server.script = lambda _: Reply(307, headers={"Location": f"{server.url}/elsewhere"})
        with pytest.raises(ChannelRefused, match="redirect"):
            notifier.send(message())
        assert len(server.refused) == 1

    def test_a_message_that_is_not_taken_is_no_fault_of_the_channel(self, notifier: Notifier, server: Receiver) -> None:
        server.script = lambda _: Reply(422, b"too strange")
        with pytest.raises(MessageRejected, match="422: too strange"):
            notifier.send(message())


class TestApprise(NotifierContract):
    """By its plugin for a JSON webhook. It tells nothing of why, so that all is passing."""

    @pytest.fixture
    def server(self) -> Iterator[Receiver]:
        pytest.importorskip("apprise")
        with receiver() as running:
            yield running

    @pytest.fixture
    def end(self, server: Receiver) -> HttpEnd:
        return HttpEnd(server, Reply(404))

    @pytest.fixture
    def notifier(self, server: Receiver, renderer: Renderer, clock: FrozenClock) -> AppriseNotifier:
        return AppriseNotifier(1, f"json://user:{CANARY}@{server.url.removeprefix('http://')}/x", renderer, clock)

    @pytest.fixture
    def unreachable(self, renderer: Renderer, clock: FrozenClock) -> AppriseNotifier:
        return AppriseNotifier(2, f"json://user:{CANARY}@127.0.0.1:1/", renderer, clock)

    def test_a_receiver_that_does_not_know_us_is_our_mistake(self, notifier: Notifier, end: Any) -> None:
        end.refuse("unknown")
        with pytest.raises(ChannelUnavailable) as caught:
            notifier.send(message())
        assert "number 1 of BACKUP_NOTIFY_URLS" in caught.value.hint

    @pytest.mark.parametrize("url", ["nonsense", f"nosuch://{CANARY}", f"://{CANARY}"])
    def test_a_url_that_apprise_does_not_know_is_our_mistake(
        self, url: str, renderer: Renderer, clock: FrozenClock
    ) -> None:
        with pytest.raises(ChannelRefused, match="number 3") as caught:
            AppriseNotifier(3, url, renderer, clock).check()
        assert CANARY not in str(caught.value)
