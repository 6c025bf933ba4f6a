"""Discord, by a webhook: one embed a message."""

from __future__ import annotations

import json
from typing import Any

from chrono_backups.clock import Clock, to_text
from chrono_backups.notifications.http import post
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import DiscordSettings

# Discord's limits of an embed, in characters; all texts of one together may have 6,000.
_TITLE, _DESCRIPTION, _NAME, _VALUE, _FOOTER, _FIELDS, _ALL = 256, 2000, 256, 700, 200, 25, 6000


class DiscordNotifier:
    """Posts each message to the webhook's channel. Discord joins nothing: one that is repeated is there twice."""

    name = "discord"

    def __init__(self, settings: DiscordSettings, renderer: Renderer, clock: Clock) -> None:
        self._settings, self._renderer, self._clock = settings, renderer, clock

    def takes(self, message: Message) -> bool:
        """Discord has a place for everything."""
        del message
        return True

    def send(self, message: Message) -> str:
        """As ``Notifier.send``."""
        url = self._settings.webhook_url
        assert url is not None  # settings do not enable the channel without it
        body = json.dumps(self.payload(message), ensure_ascii=False).encode()
        post(self.name, url.get_secret_value(), body, variable="BACKUP_DISCORD_WEBHOOK_URL")
        return ""

    def payload(self, message: Message) -> dict[str, Any]:
        """What is posted: https://discord.com/developers/docs/resources/webhook#execute-webhook."""
        shown = self._renderer.render(message, self._clock.now())
        embed: dict[str, Any] = {
            "title": _cut(escaped(message.headline), _TITLE),
            "description": _cut(escaped(shown.chat) or escaped(message.headline), _DESCRIPTION),
            "color": int(shown.colour.removeprefix("#"), 16),
            "timestamp": to_text(message.at),
            "footer": {"text": _cut(f"chrono-backups · {message.event}", _FOOTER)},
        }
        if message.link:
            embed["url"] = message.link
        room = _ALL - sum(len(embed[part]) for part in ("title", "description")) - len(embed["footer"]["text"])
        fields = []
        for label, value in shown.facts[:_FIELDS]:
            name, text = _cut(label, _NAME), _cut(escaped(value) if value != message.link else value, _VALUE)
            room -= len(name) + len(text)
            if room >= 0:
                fields.append({"name": name, "value": text, "inline": False})
        # Nobody is mentioned, whatever a file is called.
        return {"embeds": [{**embed, "fields": fields}], "allowed_mentions": {"parse": []}}


def escaped(text: str) -> str:
    """Markdown's characters mean themselves: names of backups have underscores."""
    for character in "\\*_~`|>":
        text = text.replace(character, f"\\{character}")
    return text


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
