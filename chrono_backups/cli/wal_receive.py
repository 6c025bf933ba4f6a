"""``wal-receive``: the service that archives a PostgreSQL server's log as it is written."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.output import say
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.errors import UsageError
from chrono_backups.events import Finding, Progress

if TYPE_CHECKING:
    from chrono_backups.backup.wal_receiver import ReceiverStatus

DESCRIPTION = """\
Stream the write-ahead log (WAL) of the PostgreSQL server into the archive, as a service that runs until it is stopped.
A replication slot, made where it is missing, has the server keep what is not stored yet; what is confirmed is stored.
So it may be killed at any moment. Parts of a segment are stored after BACKUP_WAL_MAX_LAG_SECONDS. SIGTERM and Ctrl-C
store the rest and end with exit code 0.
"""
_LINE_SECONDS = 60.0


def register(subparsers: Subparsers) -> None:
    """The words of ``wal-receive``."""
    parser = add_verb(
        subparsers,
        "wal-receive",
        DESCRIPTION,
        [
            ("", "until it is stopped; one for each server"),
            ("--until-idle", "fetch what there is, and end: from cron"),
            ("--recreate-slot", "after the server gave the slot up"),
        ],
    )
    parser.add_argument("--slot", metavar="NAME", help="the replication slot (default: BACKUP_POSTGRES_SLOT)")
    parser.add_argument("--until-idle", action="store_true", help="end once all that the server has is stored")
    parser.add_argument(
        "--recreate-slot", action="store_true", help="make a slot anew that the server invalidated, though WAL is lost"
    )
    add_storage_option(parser, "archive to this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Receive until the end was asked for."""
    if context.settings.postgres.host is None:
        raise UsageError("no PostgreSQL server is configured", hint="Set BACKUP_POSTGRES_HOST.")
    from chrono_backups.assembly import Application  # noqa: PLC0415 - as in the context
    from chrono_backups.backup.wal_receiver import WalReceiver  # noqa: PLC0415 - its driver is large

    shown = _Shown(context)
    # A storage is asked twice only: what comes of it is to be said soon, and it is tried again for ever.
    application = Application(context.settings, clock=context.clock, attempts=2)
    with application.open_repository(arguments.storage) as repository, _until_asked() as asked:
        receiver = WalReceiver(
            context.settings.postgres,
            repository,
            slot=arguments.slot or context.settings.postgres.slot,
            stopping=asked.is_set,
            listener=shown.tell,
            on_status=shown.status,
            recreate_slot=arguments.recreate_slot,
            until_idle=arguments.until_idle,
        )
        status = receiver.run()
    shown.clear()
    context.output.report(_document(status), [f"stored  up to {_lsn(status.stored)}, {_amount(status)}"])
    return DONE


@contextmanager
def _until_asked() -> Iterator[Event]:
    """Set once the end is asked for; asked again, it is at once."""
    asked = Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt(signal.Signals(number).name)
        asked.set()

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Shown:
    """One redrawn line on a terminal; elsewhere a line a minute."""

    def __init__(self, context: Context) -> None:
        self._output = context.output
        self._clock = context.clock
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._drawn = False
        self._said_at = float("-inf")
        self._output.before_message = self.clear

    def tell(self, event: Progress | Finding) -> None:
        """A finding, at once."""
        if isinstance(event, Finding):
            (self._output.message if event.severity == "info" else self._output.error)(finding_line(event))

    def status(self, status: ReceiverStatus) -> None:
        """How far it is."""
        if self._output.quiet or not status.received:
            return
        now = self._clock.monotonic()
        if self._terminal:
            say(f"\r{_line(status)}\x1b[K")
            self._drawn = True
        elif now - self._said_at >= _LINE_SECONDS:
            self._said_at = now
            self._output.message(_line(status))

    def clear(self) -> None:
        """Wipe the line."""
        if self._drawn:
            say("\r\x1b[K")
            self._drawn = False


def _line(status: ReceiverStatus) -> str:
    lag = f"lag {quantities.size(status.lag_bytes)}, {quantities.duration(status.lag_seconds)}"
    state = "" if status.connected else "  (not connected)"
    return f"timeline {status.timeline}  stored {_lsn(status.stored)}  {lag}  {_amount(status)}{state}"


def _amount(status: ReceiverStatus) -> str:
    counts = status.counts
    return f"{quantities.count(counts.segments, 'segment')}, {quantities.count(counts.pieces, 'piece')}"


def _lsn(position: int) -> str:
    from chrono_backups.identifiers import lsn_text  # noqa: PLC0415 - the help does without

    return lsn_text(position)


def _document(status: ReceiverStatus) -> dict[str, Any]:
    return {
        "timeline": status.timeline,
        "received_lsn": _lsn(status.received),
        "stored_lsn": _lsn(status.stored),
        "server_lsn": _lsn(status.server_end),
        "lag_bytes": status.lag_bytes,
        "segments": status.counts.segments,
        "pieces": status.counts.pieces,
        "bytes": status.counts.bytes,
    }
