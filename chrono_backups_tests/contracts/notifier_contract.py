"""The duties of a ``Notifier``: subclass it, and say how to make one and what its receiver is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, ChronoBackupsError, MessageRejected
from chrono_backups.notifications.base import Notifier
from chrono_backups.notifications.rendering import Renderer
from chrono_backups_tests.notifications.messages import NOW, every_message, message, nasty_message

CANARY = "c4n4ry5ecret0f0ur0wn0123456789ab"
"""The secret of the channel, whatever it is: 32 characters."""


class ReceivingEnd(Protocol):
    """What the tests know of the other end."""

    def received(self) -> int:
        """How many messages it took."""

    def refuse(self, how: str) -> None:
        """From now on: ``busy``, ``unknown`` (we are not known there) or ``hostile`` (it quotes all that it gets)."""


class NotifierContract:
    """What holds for every channel."""

    @pytest.fixture
    def renderer(self, tmp_path: Path) -> Renderer:
        return Renderer()

    @pytest.fixture
    def clock(self) -> FrozenClock:
        return FrozenClock(NOW)

    def test_it_delivers_every_event_in_every_state(self, notifier: Notifier, end: ReceivingEnd) -> None:
        sent = [one for one in every_message() if notifier.takes(one)]
        for one in sent[:: max(1, len(sent) // 40)]:
            before = end.received()
            assert notifier.send(one) == ""
            assert end.received() > before

    def test_it_delivers_what_is_long_and_full_of_marks(self, notifier: Notifier, end: ReceivingEnd) -> None:
        assert notifier.send(nasty_message()) == ""
        assert end.received() == 1

    def test_a_busy_receiver_is_passing(self, notifier: Notifier, end: ReceivingEnd) -> None:
        end.refuse("busy")
        with pytest.raises(ChannelUnavailable):
            notifier.send(message())

    def test_a_receiver_that_does_not_know_us_is_our_mistake(self, notifier: Notifier, end: ReceivingEnd) -> None:
        end.refuse("unknown")
        with pytest.raises(ChannelRefused) as caught:
            notifier.send(message())
        assert "BACKUP_" in caught.value.hint

    def test_no_receiver_is_passing_and_says_where_to_look(self, unreachable: Notifier) -> None:
        with pytest.raises(ChannelUnavailable) as caught:
            unreachable.send(message())
        assert caught.value.channel == unreachable.name
        assert caught.value.hint

    def test_no_error_tells_the_secret(self, notifier: Notifier, unreachable: Notifier, end: ReceivingEnd) -> None:
        told: list[BaseException | None] = []
        for how in ("busy", "unknown", "hostile"):
            end.refuse(how)
            with pytest.raises((ChannelUnavailable, ChannelRefused, MessageRejected)) as caught:
                notifier.send(message())
            told.append(caught.value)
        with pytest.raises(ChronoBackupsError) as caught_too:
            unreachable.send(message())
        told.append(caught_too.value)
        while told:
            error = told.pop()
            if error is not None:
                assert CANARY not in f"{error!r} {error} {vars(error)}"
                told += [error.__cause__, error.__context__]
