"""From the outbox to the channels, all channels at once, for so many seconds at most."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from chrono_backups.clock import Clock
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, ChronoBackupsError, MessageRejected
from chrono_backups.notifications.base import Notifier
from chrono_backups.notifications.outbox import Outbox, Waiting
from chrono_backups.notifications.state import State


@dataclass
class Delivered:
    """What a round of delivery did."""

    sent: dict[str, int] = field(default_factory=dict)
    """Channel → messages."""
    faults: dict[str, str] = field(default_factory=dict)
    """Channel → why not all."""
    complaints: dict[str, str] = field(default_factory=dict)
    """Channel → what it complained of although it took all."""

    def add(self, later: Delivered) -> None:
        """With a later round."""
        for name, number in later.sent.items():
            self.sent[name] = self.sent.get(name, 0) + number
        self.faults |= later.faults
        self.complaints |= later.complaints


def deliver(state: State, notifiers: Mapping[str, Notifier], clock: Clock, seconds: float) -> Delivered:
    """Send what waits. Returns after ``seconds`` at the latest.

    What is under way then goes on while this process lives; if it does not, the message is sent again later.
    """
    report = Delivered()
    deadline = clock.monotonic() + seconds
    # Daemons: a channel that hangs must not keep the process from ending.
    threads = [
        threading.Thread(
            target=_Sender(state, notifier, clock, deadline, report).run, name=f"notify {name}", daemon=True
        )
        for name, notifier in notifiers.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    for name, thread in zip(notifiers, threads, strict=True):
        if thread.is_alive():
            report.faults.setdefault(name, f"no answer within {seconds:.0f} s")
    return report


class _Sender:
    """One channel's turn."""

    def __init__(self, state: State, notifier: Notifier, clock: Clock, deadline: float, report: Delivered) -> None:
        self._state, self._notifier, self._clock = state, notifier, clock
        self._deadline, self._report = deadline, report
        self._name = notifier.name
        self._holder = clock.random_bytes(8).hex()

    def run(self) -> None:
        try:
            self._run()
        except ChronoBackupsError as error:
            self._report.faults[self._name] = error.message

    def _run(self) -> None:
        while self._clock.monotonic() < self._deadline:
            waiting = self._claim()
            if waiting is None:
                break
            error = self._send(waiting)
            now = self._clock.now()
            self._note(waiting, error, now)
            if isinstance(error, ChannelUnavailable | ChannelRefused):
                break
        with self._state.transaction() as sql:
            Outbox(sql).let_go(self._name, self._holder)

    def _claim(self) -> Waiting | None:
        with self._state.transaction() as sql:
            outbox, now = Outbox(sql), self._clock.now()
            return outbox.next(self._name, now) if outbox.hold(self._name, self._holder, now) else None

    def _send(self, waiting: Waiting) -> ChronoBackupsError | None:
        if not self._notifier.takes(waiting.message):
            return None
        try:
            complaint = self._notifier.send(waiting.message)
        except (ChannelUnavailable, ChannelRefused, MessageRejected) as error:
            return error
        except Exception as error:
            # The type alone: what a library says may quote an address, and that may be a secret.
            return MessageRejected(f"unexpected {type(error).__name__} while sending", channel=self._name)
        if complaint:
            self._report.complaints[self._name] = complaint
        return None

    def _note(self, waiting: Waiting, error: ChronoBackupsError | None, now: datetime) -> None:
        with self._state.transaction() as sql:
            if error is None:
                Outbox(sql).done(waiting, now)
            else:
                Outbox(sql).failed(waiting, error, now)
        if error is None:
            self._report.sent[self._name] = self._report.sent.get(self._name, 0) + 1
        else:
            self._report.faults[self._name] = error.message
