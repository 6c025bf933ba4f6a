"""Any other service, by its Apprise URL. Each URL is a channel of its own: ``apprise-1``, ``apprise-2``, …"""

from __future__ import annotations

import logging
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import ChannelRefused, ChannelUnavailable
from chrono_backups.notifications.http import hush
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer

_VARIABLE = "BACKUP_NOTIFY_URLS"


class AppriseNotifier:
    """Hands each message to Apprise. It tells little of what went wrong, so that all trouble counts as passing."""

    def __init__(self, number: int, url: str, renderer: Renderer, clock: Clock) -> None:
        self.name = f"apprise-{number}"
        self._number, self._url = number, url
        self._renderer, self._clock = renderer, clock

    def takes(self, message: Message) -> bool:
        """Apprise has a place for everything."""
        del message
        return True

    def send(self, message: Message) -> str:
        """As ``Notifier.send``."""
        apprise = self._library()
        service = self._service(apprise)
        shown = self._renderer.render(message, self._clock.now())
        kinds = {"error": "failure", "warning": "warning", "info": "info"}
        kind = "success" if message.state == "resolved" else kinds[message.severity]
        try:
            services = apprise.Apprise(servers=service)
            taken = services.notify(body=shown.text, title=shown.subject, notify_type=kind, body_format="text")
        except Exception as error:  # a plugin may raise anything, and quote its URL
            failure = ChannelUnavailable(
                f"{self._what(service)} failed: {type(error).__name__}", channel=self.name, hint=self._hint()
            )
        else:
            if taken:
                return ""
            failure = ChannelUnavailable(
                f"{self._what(service)} did not take the message", channel=self.name, hint=self._hint()
            )
        raise failure

    def check(self) -> None:
        """Raises ``ChannelRefused`` where the URL is none that Apprise knows."""
        self._service(self._library())

    def _hint(self) -> str:
        return f"Is the URL number {self._number} of {_VARIABLE} right? It is tried again by itself."

    def _what(self, service: Any) -> str:
        return f"the service {getattr(service, 'service_name', 'of this URL')}"

    def _library(self) -> Any:
        try:
            import apprise  # noqa: PLC0415 - an extra, and large
        except ImportError as error:
            hint = "Install the extra: pip install 'chrono-backups[apprise]'."
            raise ChannelRefused("Apprise is not installed", channel=self.name, hint=hint) from error
        hush()
        # What it logs itself may quote the URL.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        return apprise

    def _service(self, apprise: Any) -> Any:
        service = apprise.Apprise.instantiate(self._url, suppress_exceptions=True)
        if service is None:
            scheme = self._url.partition("://")[0] if "://" in self._url else ""
            known = f" (it begins with {scheme}://)" if scheme.isalnum() and len(scheme) <= 20 else ""
            raise ChannelRefused(
                f"the URL number {self._number} is none that Apprise knows{known}",
                channel=self.name,
                hint=f"Correct {_VARIABLE}: URLs separated by spaces, as https://appriseit.com/services/ has them.",
            )
        return service
