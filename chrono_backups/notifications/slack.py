"""Slack, by an incoming webhook: blocks with a coloured bar."""

from __future__ import annotations

import json
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.notifications.http import post
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import SlackSettings

# Slack's limits of a block, in characters.
_HEADER, _SECTION, _FIELD, _FIELDS, _FALLBACK = 150, 3000, 2000, 10, 3000
_EMOJI = {"error": ":rotating_light:", "warning": ":warning:", "info": ":information_source:"}


class SlackNotifier:
    """Posts each message to the webhook's channel. Slack joins nothing: one that is repeated is there twice."""

    name = "slack"

    def __init__(self, settings: SlackSettings, renderer: Renderer, clock: Clock) -> None:
        self._settings, self._renderer, self._clock = settings, renderer, clock

    def takes(self, message: Message) -> bool:
        """Slack has a place for everything."""
        del message
        return True

    def send(self, message: Message) -> str:
        """As ``Notifier.send``."""
        url = self._settings.webhook_url
        assert url is not None  # settings do not enable the channel without it
        body = json.dumps(self.payload(message), ensure_ascii=False).encode()
        post(self.name, url.get_secret_value(), body, variable="BACKUP_SLACK_WEBHOOK_URL")
        return ""

    def payload(self, message: Message) -> dict[str, Any]:
        """What is posted: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks."""
        settings, shown = self._settings, self._renderer.render(message, self._clock.now())
        emoji = ":white_check_mark:" if message.state == "resolved" else _EMOJI[message.severity]
        fields = [
            {"type": "mrkdwn", "text": _cut(f"*{escaped(label)}*\n{escaped(value)}", _FIELD)}
            for label, value in shown.facts
            if value != message.link
        ]
        blocks: list[dict[str, Any]] = [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": _cut(f"{emoji} {message.headline}", _HEADER), "emoji": True},
            },
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": _cut(escaped(shown.chat) or escaped(message.headline), _SECTION)},
            },
        ]
        blocks += [
            {"type": "section", "fields": fields[start : start + _FIELDS]} for start in range(0, len(fields), _FIELDS)
        ]
        if message.link:
            button = {"type": "button", "text": {"type": "plain_text", "text": "Open the run"}, "url": message.link}
            blocks.append({"type": "actions", "elements": [button]})
        named = {"channel": settings.channel, "username": settings.username, "icon_emoji": settings.icon_emoji}
        return {
            **{name: value for name, value in named.items() if value},
            # Without a text beside the blocks, notifications on a phone are empty.
            "text": _cut(escaped(shown.subject), _FALLBACK),
            "attachments": [
                {"color": shown.colour, "fallback": _cut(escaped(shown.subject), _FALLBACK), "blocks": blocks}
            ],
        }


def escaped(text: str) -> str:
    """Slack's three characters of control: a file's name can't mention the whole channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
