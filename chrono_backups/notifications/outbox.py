"""Messages that wait for their channels. Each channel gets its messages in the order in which they were put in.

A channel is held by one sender at a time. Before a message is sent that is noted, and when it was taken that is: so a
crash in between is seen, and the message is sent again once the hold ran out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chrono_backups.clock import to_text
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, ChronoBackupsError
from chrono_backups.notifications.message import Message

HOLD = timedelta(minutes=3)
"""Longer than any channel may take over a message."""
_KEPT = timedelta(days=7)
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=30), timedelta(minutes=15)
_LONGEST_ASKED = timedelta(hours=1)
"""A longer Retry-After is not believed."""


@dataclass(frozen=True)
class Waiting:
    """A message that a channel is to get."""

    number: int
    channel: str
    message: Message
    attempts: int
    """How often it was tried. More than none after a crash: the receiver may have it."""


@dataclass(frozen=True)
class ChannelState:
    """How a channel does."""

    name: str
    waiting: int
    failures: int
    """In a row."""
    refused: bool
    failing_since: str
    fault: str
    hint: str
    not_before: str


class Outbox:
    """Of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def put(self, message: Message, channels: Sequence[str]) -> None:
        """Have ``channels`` get the message. One of that name that is there already is the same one.

        A reminder takes the place of an earlier one that its channel did not get yet.
        """
        row = (message.name, message.incident, message.state, json.dumps(message.to_json()), to_text(message.at))
        done = self._sql.execute(
            "INSERT OR IGNORE INTO message (name, incident, state, body, at) VALUES (?, ?, ?, ?, ?)", row
        )
        if done.rowcount != 1:
            return
        if message.state == "reminder":
            self._sql.execute(
                "DELETE FROM delivery WHERE done_at IS NULL AND attempts = 0 AND message IN"
                " (SELECT number FROM message WHERE incident = ? AND state = 'reminder')",
                (message.incident,),
            )
        self._sql.executemany(
            "INSERT INTO delivery (message, channel) VALUES (?, ?)", [(done.lastrowid, channel) for channel in channels]
        )

    def hold(self, channel: str, holder: str, now: datetime) -> bool:
        """Whether ``holder`` may send by that channel now: nobody else does, and it is not to be left alone."""
        self._sql.execute("INSERT OR IGNORE INTO channel (name) VALUES (?)", (channel,))
        done = self._sql.execute(
            "UPDATE channel SET holder = ?, held_until = ? WHERE name = ? AND (held_until <= ? OR holder = ?)"
            " AND not_before <= ?",
            (holder, to_text(now + HOLD), channel, to_text(now), holder, to_text(now)),
        )
        return done.rowcount == 1

    def let_go(self, channel: str, holder: str) -> None:
        """Let others send."""
        self._sql.execute("UPDATE channel SET held_until = '' WHERE name = ? AND holder = ?", (channel, holder))

    def next(self, channel: str, now: datetime) -> Waiting | None:
        """The oldest message that the channel is to get now, noted as tried. Of an incident never a later one first."""
        row = self._sql.execute(
            "SELECT number, body, attempts FROM delivery JOIN message ON number = message"
            " WHERE channel = :channel AND done_at IS NULL AND not_before <= :now AND NOT EXISTS ("
            "   SELECT 1 FROM delivery AS earlier JOIN message AS told ON told.number = earlier.message"
            "   WHERE earlier.channel = :channel AND earlier.done_at IS NULL AND earlier.not_before > :now"
            "   AND told.incident = message.incident AND told.incident != '' AND told.number < message.number)"
            " ORDER BY number LIMIT 1",
            {"channel": channel, "now": to_text(now)},
        ).fetchone()
        if row is None:
            return None
        self._sql.execute(
            "UPDATE delivery SET attempts = attempts + 1 WHERE message = ? AND channel = ?", (row["number"], channel)
        )
        return Waiting(row["number"], channel, Message.from_json(json.loads(row["body"])), row["attempts"])

    def done(self, sent: Waiting, now: datetime) -> None:
        """The channel took it."""
        self._sql.execute(
            "UPDATE delivery SET done_at = ?, fault = '' WHERE message = ? AND channel = ?",
            (to_text(now), sent.number, sent.channel),
        )
        self._sql.execute(
            "UPDATE channel SET failures = 0, refused = 0, failing_since = '', fault = '', hint = '', not_before = ''"
            " WHERE name = ?",
            (sent.channel,),
        )

    def failed(self, tried: Waiting, error: ChronoBackupsError, now: datetime) -> None:
        """It was not taken: try again later. What is the channel's own trouble keeps all its messages waiting."""
        of_channel = isinstance(error, ChannelUnavailable | ChannelRefused)
        failures = self._failures(tried.channel) + 1
        wait = min(_FIRST_WAIT * 2 ** min((failures if of_channel else tried.attempts + 1) - 1, 10), _LONGEST_WAIT)
        if isinstance(error, ChannelUnavailable) and error.retry_after is not None:
            wait = max(wait, min(timedelta(seconds=error.retry_after), _LONGEST_ASKED))
        later = to_text(now + wait)
        self._sql.execute(
            "UPDATE channel SET failures = ?, refused = ?, fault = ?, hint = ?, not_before = ?,"
            " failing_since = CASE failing_since WHEN '' THEN ? ELSE failing_since END WHERE name = ?",
            (
                failures, not isinstance(error, ChannelUnavailable), error.message, error.hint,
                later if of_channel else "", to_text(now), tried.channel,
            ),
        )  # fmt: skip
        self._sql.execute(
            "UPDATE delivery SET fault = ?, not_before = ? WHERE message = ? AND channel = ?",
            (error.message, "" if of_channel else later, tried.number, tried.channel),
        )

    def _failures(self, channel: str) -> int:
        row = self._sql.execute("SELECT failures FROM channel WHERE name = ?", (channel,)).fetchone()
        return 0 if row is None else int(row["failures"])

    def channels(self, names: Iterable[str]) -> list[ChannelState]:
        """How each of these does."""
        return [self._state(name) for name in names]

    def _state(self, name: str) -> ChannelState:
        waiting = self._sql.execute(
            "SELECT count(*) FROM delivery WHERE channel = ? AND done_at IS NULL", (name,)
        ).fetchone()[0]
        row = self._sql.execute("SELECT * FROM channel WHERE name = ?", (name,)).fetchone()
        if row is None:
            return ChannelState(name, waiting, 0, False, "", "", "", "")
        return ChannelState(
            name, waiting, row["failures"], bool(row["refused"]), row["failing_since"], row["fault"], row["hint"],
            row["not_before"],
        )  # fmt: skip

    def retry_now(self, names: Iterable[str]) -> None:
        """Have these channels, and what they did not take, tried without further waiting."""
        for name in names:
            self._sql.execute("UPDATE channel SET not_before = '' WHERE name = ?", (name,))
            self._sql.execute("UPDATE delivery SET not_before = '' WHERE channel = ? AND done_at IS NULL", (name,))

    def tidy(self, channels: Sequence[str], now: datetime) -> int:
        """Forget what all got and is old, and what waits for a channel that was switched off long ago.

        How many of the latter there were.
        """
        old = to_text(now - _KEPT)
        marks = ", ".join("?" * len(channels))
        given_up = self._sql.execute(
            f"DELETE FROM delivery WHERE done_at IS NULL AND channel NOT IN ({marks})"  # noqa: S608 - question marks
            " AND message IN (SELECT number FROM message WHERE at < ?)",
            (*channels, old),
        ).rowcount
        self._sql.execute(
            "DELETE FROM message WHERE at < ? AND NOT EXISTS"
            " (SELECT 1 FROM delivery WHERE message = number AND done_at IS NULL)",
            (old,),
        )
        return given_up
