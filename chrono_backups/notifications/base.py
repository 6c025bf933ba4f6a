"""The seam: a channel by which messages reach people."""

from __future__ import annotations

from typing import Protocol

from chrono_backups.notifications.message import Message


class Notifier(Protocol):
    """Sends messages by one channel.

    ``name`` is the channel's. ``send`` returns once the receiver has taken the message, or raises
    ``ChannelUnavailable`` (passing), ``ChannelRefused`` (our settings are wrong) or ``MessageRejected`` (this message
    can't be taken), and nothing else; it ends within two minutes. No error tells a secret: an address of a webhook is
    one. The same message sent again is recognised by the receiver wherever its protocol knows how.
    """

    @property
    def name(self) -> str:
        """As routes and people call the channel."""

    def takes(self, message: Message) -> bool:
        """Whether such a message has a place there; one that has not counts as delivered."""

    def send(self, message: Message) -> str:
        """Deliver it. What the receiver complained of although it took it; empty where all is well."""
