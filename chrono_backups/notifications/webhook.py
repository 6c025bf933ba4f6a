"""A server of the operator's own: JSON, signed by HMAC-SHA256 over time and body.

Headers of a request (``docs/notifications.md`` shows how a receiver checks them)::

    X-Chrono-Event      the event, as backup-failed
    X-Chrono-Delivery   the message's name; the same where a message is sent again
    X-Chrono-Time       seconds since 1970, when it was signed
    X-Chrono-Signature  v1=<hexadecimal HMAC-SHA256 of "<time>.<body>" under BACKUP_WEBHOOK_SECRET>
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import quote

from chrono_backups.clock import Clock
from chrono_backups.notifications.http import post
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import WebhookSettings

VERSION = 1
"""Of the body's shape. Fields may join it; none goes or changes its meaning without a new version."""


class WebhookNotifier:
    """Posts each message as JSON."""

    name = "webhook"

    def __init__(self, settings: WebhookSettings, renderer: Renderer, clock: Clock) -> None:
        self._settings, self._renderer, self._clock = settings, renderer, clock

    def takes(self, message: Message) -> bool:
        """A webhook has a place for everything."""
        del message
        return True

    def send(self, message: Message) -> str:
        """As ``Notifier.send``."""
        url, secret = self._settings.url, self._settings.secret
        assert url is not None  # settings do not enable the channel without it
        body = json.dumps(self.payload(message), ensure_ascii=False).encode()
        moment = str(int(self._clock.now().timestamp()))
        headers = {
            "X-Chrono-Event": message.event,
            "X-Chrono-Delivery": quote(message.name, safe=":@#/"),
            "X-Chrono-Time": moment,
        }
        if secret is not None:
            headers["X-Chrono-Signature"] = signature(secret.get_secret_value(), moment, body)
        post(
            self.name,
            url.get_secret_value(),
            body,
            headers=headers,
            variable="BACKUP_WEBHOOK_URL",
            seconds=self._settings.timeout,
        )
        return ""

    def payload(self, message: Message) -> dict[str, Any]:
        """The message's fields, and its texts as people read them."""
        shown = self._renderer.render(message, self._clock.now())
        texts = {"headline": message.headline, "text": shown.text}
        return {"version": VERSION, **message.to_json(), "dedup_key": message.dedup_key, **texts}


def signature(secret: str, moment: str, body: bytes) -> str:
    """``v1=…``, of what was posted at that time."""
    return "v1=" + hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
