"""Alerts with channels of the tests' own, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.notifications.alerts import Alerts
from chrono_backups.notifications.base import Notifier
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import NotificationsSettings
from chrono_backups.notifications.state import State
from chrono_backups.redaction import redacted
from chrono_backups_tests.notifications.messages import NOW, SITE


class ChannelKilled(BaseException):
    """The process dies here."""


@dataclass
class Kept:
    """A channel that keeps what it gets; ``fault`` is raised instead, for each message, while it is set."""

    name: str
    messages: list[Message] = field(default_factory=list)
    fault: Callable[[Message], BaseException | None] = lambda _message: None
    after: Callable[[Message], None] = lambda _message: None
    """Called once the message was taken, before anybody can note it."""
    complaint: str = ""

    def takes(self, message: Message) -> bool:
        del message
        return True

    def send(self, message: Message) -> str:
        if (fault := self.fault(message)) is not None:
            raise fault
        self.messages.append(message)
        self.after(message)
        return self.complaint

    def down(self, error: ChronoBackupsError) -> None:
        self.fault = lambda _message: error

    def up(self) -> None:
        self.fault = lambda _message: None

    @property
    def told(self) -> list[tuple[str, str]]:
        """State and incident of each."""
        return [(message.state, message.incident) for message in self.messages]


class Office:
    """Alerts, made anew as often as a process starts, over one directory."""

    def __init__(self, directory: Path, *channels: Kept, secrets: Sequence[str] = (), **settings: Any) -> None:
        self.directory, self.clock, self.secrets = directory, FrozenClock(NOW), secrets
        self.channels = {channel.name: channel for channel in channels}
        self.settings = NotificationsSettings(**settings)

    def alerts(self) -> Alerts:
        notifiers: dict[str, Notifier] = dict(self.channels)
        return Alerts(
            self.settings,
            State(self.directory),
            SITE,
            Renderer(self.settings.templates),
            notifiers,
            clock=self.clock,
            redact=lambda text: redacted(text, self.secrets),
        )
