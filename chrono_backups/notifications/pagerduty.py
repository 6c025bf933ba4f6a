"""PagerDuty, by its Events API v2: an incident is triggered, joined by its key, and resolved when it is over."""

from __future__ import annotations

import json
from typing import Any

from chrono_backups.clock import Clock, to_text
from chrono_backups.errors import ChannelRefused, MessageRejected
from chrono_backups.notifications.http import post
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import PagerDutySettings

_KEY = "BACKUP_PAGERDUTY_INTEGRATION_KEY"
_SUMMARY = 1024
_RANK = ("info", "warning", "error", "critical")


class PagerDutyNotifier:
    """Triggers and resolves. A message that is repeated joins the incident that it made."""

    name = "pagerduty"

    def __init__(self, settings: PagerDutySettings, renderer: Renderer, clock: Clock) -> None:
        self._settings, self._renderer, self._clock = settings, renderer, clock

    def takes(self, message: Message) -> bool:
        """News would page somebody for nothing; a test is triggered, and resolved at once."""
        return bool(message.incident) or message.event == "test"

    def send(self, message: Message) -> str:
        """As ``Notifier.send``."""
        self._post(self.payload(message))
        if message.event == "test":
            self._post(self._resolved(message))
        return ""

    def _post(self, payload: dict[str, Any]) -> None:
        body = json.dumps(payload, ensure_ascii=False).encode()
        key = str(payload["routing_key"])
        try:
            post(self.name, self._settings.url, body, variable=_KEY, hide=[key])
        except MessageRejected as error:
            if "routing" not in error.message.lower():
                raise
            hint = f"{_KEY} is the key of an integration of the kind Events API v2."
            raise ChannelRefused(
                "PagerDuty does not know the integration's key", channel=self.name, hint=hint
            ) from error

    def payload(self, message: Message) -> dict[str, Any]:
        """What is posted: https://developer.pagerduty.com/docs/events-api-v2-overview."""
        if message.state == "resolved":
            return self._resolved(message)
        shown = self._renderer.render(message, self._clock.now())
        summary = f"{message.headline}: {message.what}"
        return {
            **self._addressed(message, "trigger"),
            "payload": {
                "summary": summary if len(summary) <= _SUMMARY else summary[: _SUMMARY - 1] + "…",
                "source": message.site.host or message.site.name,
                "severity": self._severity(message),
                "timestamp": to_text(message.since),
                "component": message.subject or message.event,
                "group": message.site.name,
                "class": message.event,
                "custom_details": {label: value for label, value in shown.facts if value != message.link},
            },
            "client": f"chrono-backups, {message.site.name}",
            **({"client_url": message.site.ui_url} if message.site.ui_url else {}),
            "links": [{"href": message.link, "text": "The run in Dagster"}] if message.link else [],
        }

    def _resolved(self, message: Message) -> dict[str, Any]:
        return self._addressed(message, "resolve")

    def _addressed(self, message: Message, action: str) -> dict[str, Any]:
        key = self._settings.integration_key
        assert key is not None  # settings do not enable the channel without it
        return {"routing_key": key.get_secret_value(), "event_action": action, "dedup_key": message.dedup_key}

    def _severity(self, message: Message) -> str:
        """The configured one for errors; what is less than an error is at most what it is."""
        if message.severity == "error":
            return self._settings.severity
        return min(self._settings.severity, message.severity, key=_RANK.index)
