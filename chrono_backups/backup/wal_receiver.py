"""The WAL receiver: a service that streams a server's log from a replication slot into the archive.

What it confirms to the server is durably stored: whole segments as they fill, and in between pieces, every few seconds.
The server keeps all else. So it may be killed at any moment, and the network, the server or the storage may fail for
any time, and nothing is lost: it begins again at the start of the segment that is not stored whole.

Memory is bounded: while the storage does not keep up, nothing more is read from the server. It is told meanwhile that
we are alive, or it would end the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from chrono_backups.backup.wal_start import starts, stored_end
from chrono_backups.backup.wal_storing import Buffers, Counts, WalUploads
from chrono_backups.backup.wal_stream import WalStream
from chrono_backups.errors import (
    ChronoBackupsError,
    SlotBusy,
    SlotLost,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    StorageError,
    WalGap,
)
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import lsn_number, lsn_text
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import MOMENT_SIZE, Contents, WalArchive
from chrono_backups.repository.wal_names import Lineage, Segment, parse_history
from chrono_backups.sources.postgres import wal
from chrono_backups.sources.postgres.connection import EndOfStream, ReplicationConnection
from chrono_backups.sources.settings import PostgresSettings

_SILENCE = 60.0
"""Seconds without an answer after which a connection counts as lost."""
_STATUS_SECONDS = 10.0
_TELL_SECONDS = 0.5
_TICK = 0.25
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_BUSY_PATIENCE = 10.0
"""Seconds for the server to notice that a receiver that was killed is gone; then there is another one."""
_FAREWELL = 20.0
"""Seconds that storing may take once the end was asked for."""
_LET_GO = 10.0
"""Seconds that a server which shuts down is kept waiting for the storage. It waits for its receivers for ever."""
_ASKED_APART = 2.0
_REPLIES_APART = 0.05
"""A server that waits for us asks anew as soon as it is answered."""


@dataclass(frozen=True)
class ReceiverStatus:
    """How far the receiver is."""

    connected: bool
    timeline: int
    received: int
    stored: int
    """All WAL before is durable, and confirmed."""
    server_end: int
    lag_seconds: float
    """Age of the oldest byte that is received and not stored."""
    counts: Counts

    @property
    def lag_bytes(self) -> int:
        """What the server has and the archive has not."""
        return max(0, self.server_end - self.stored)


class _Ended(Exception):
    """It was asked to end, and has."""


class WalReceiver:
    """Receives until it is told to stop. For one thread."""

    def __init__(
        self,
        settings: PostgresSettings,
        repository: Repository,
        *,
        slot: str,
        stopping: Callable[[], bool],
        listener: Listener = silent,
        on_status: Callable[[ReceiverStatus], None] = lambda _: None,
        recreate_slot: bool = False,
        until_idle: bool = False,
    ) -> None:
        """``until_idle``: end once everything that the server had at the beginning is stored."""
        self._settings = settings
        self._repository = repository
        self._clock = repository.clock
        self._slot = slot
        self._stopping = stopping
        self._listener = listener
        self._on_status = on_status
        self._recreate = recreate_slot
        self._until_idle = until_idle
        self._goal: int | None = None
        self._piece_after = settings.wal_max_lag_seconds * 0.6
        self._status_seconds = _STATUS_SECONDS
        self._uploads = WalUploads()
        self._counts = Counts()
        self._stream: WalStream | None = None
        self._system: str | None = None
        self._stored = 0
        self._kept_from = 0
        """Where the slot keeps WAL from; 0 once the server has sent us something, which so is there."""
        self._server_end = 0
        self._rest = memoryview(b"")
        self._replied_at = self._told_at = self._heard_at = self._clock.monotonic()
        self._asked_from: float | None = None
        self._asked_at = 0.0
        self._answer_owed = False
        self._gone: dict[Segment, WalGap] = {}
        """Segments that the server was asked for and has no longer."""
        self._established = False
        self._down = False

    @property
    def status(self) -> ReceiverStatus:
        stream, now = self._stream, self._clock.monotonic()
        since = self._uploads.oldest or (stream.waiting_since if stream is not None else None)
        return ReceiverStatus(
            not self._down and self._established,
            stream.timeline if stream is not None else 0,
            stream.position if stream is not None else 0,
            self._stored,
            self._server_end,
            0.0 if since is None else now - since,
            self._counts,
        )

    def run(self) -> ReceiverStatus:
        """Receive until it is to stop; how far it came.

        Raises ``SourceError`` or ``RepositoryError`` for what no trying again can mend.
        """
        began, wait = self._clock.monotonic(), _FIRST_WAIT
        try:
            while not self._stopping():
                try:
                    with ReplicationConnection.open(self._settings, timeout=_SILENCE) as connection:
                        self._converse(connection)
                except WalGap as error:
                    if self._is_gone(error):
                        continue
                    raise
                except SlotBusy as error:
                    if not self._established and self._clock.monotonic() - began > _BUSY_PATIENCE:
                        raise
                    self._lost("wal-slot-busy", error)
                except SourceUnavailable as error:
                    self._lost("wal-disconnected", error)
                except StorageError as error:
                    self._lost("wal-not-stored", error)
                wait = min(wait * 2, _LONGEST_WAIT) if self._down else _FIRST_WAIT
                self._down = True
                self._pause(wait)
            self._drain(None)
        except _Ended:
            pass
        finally:
            self._uploads.close()
        return self.status

    def _is_gone(self, error: WalGap) -> bool:
        """Take note that the server has not the segment that was begun with; whether that is news."""
        stream = self._stream
        if stream is None or stream.segment in self._gone:
            return False
        self._gone[stream.segment] = error
        return True

    def _lost(self, code: str, error: ChronoBackupsError) -> None:
        if self._stream is not None:
            self._stream.store_piece()  # perhaps the server is gone for good
        if not self._down:
            self._listener(Finding(code, "warning", self._slot, error.message, error.hint))

    def _pause(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0 and not self._stopping():
            self._uploads.wait(min(left, _TICK))
            if not self._uploads.pending:
                self._clock.sleep(min(left, _TICK))
            self._settle()

    # Beginning.

    def _converse(self, connection: ReplicationConnection) -> None:
        """Stream until the connection is lost, or the end was asked for."""
        server = wal.identify(connection)
        if self._system not in (None, server.system_identifier):
            raise SourceError(
                f"the server is another cluster now: {server.system_identifier}, not {self._system}",
                source="postgres",
                hint="Start the receiver anew, if that is meant: its WAL goes into an archive of its own.",
            )
        self._system = server.system_identifier
        archive = WalArchive(self._repository, server.system_identifier)
        if self._stream is None:
            buffers = Buffers(MOMENT_SIZE + server.segment_size)
            self._stream = WalStream(archive, self._uploads, buffers, self._counts)
        self._status_seconds = min(_STATUS_SECONDS, (server.sender_timeout or 60.0) / 3)
        self._rest = memoryview(b"")
        content = wal.history(connection, server.timeline) if server.timeline > 1 else b""
        lineage = Lineage(server.timeline, parse_history(content), server.segment_size)
        try:
            try:
                self._open(connection, archive, lineage)
            except SlotLost:
                if not self._recreate:
                    raise
                self._recreate = False
                wal.drop_slot(connection, self._slot)
                self._open(connection, archive, lineage)
            if content:
                self._stream.store_history(server.timeline, content)
            while True:
                self._receive(connection, self._stream)
                self._next_timeline(connection, archive, server.segment_size)
        except SourceRefused as error:  # some refusals come once the stream has begun
            raise wal.explained(error, self._slot) from None

    def _open(self, connection: ReplicationConnection, archive: WalArchive, lineage: Lineage) -> None:
        """Begin to stream where it goes on."""
        self._kept_from, contents = self._reserved(connection), archive.contents()
        end = self._server_end = wal.identify(connection).position
        if self._until_idle and self._goal is None:
            self._goal = end
        ahead = stored_end(lineage, contents)
        if ahead > end:
            words = f"the archive holds WAL up to {lsn_text(ahead)}, and the server's ends at {lsn_text(end)}"
            if connection.in_standby:
                hint = "The server is a standby: it is waited for until it has replayed what is stored."
                raise SourceUnavailable(words, source="postgres", hint=hint)
            raise SourceError(words, source="postgres", hint=wal.AHEAD_HINT)
        assert self._stream is not None
        gone: WalGap | None = None
        for start in starts(lineage, contents, self._kept_from, end, self._stream.queued):
            if start.segment in self._gone:
                gone = self._gone[start.segment]
                continue
            self._start(connection, start.segment, contents)
            if gone is not None and start.gap is not None:
                message = f"WAL is missing from {start.gap[0]} to {start.gap[1]}: {gone.message}"
                self._listener(Finding("wal-gap", "error", self._slot, message, gone.hint))
            return
        assert gone is not None
        raise gone

    def _reserved(self, connection: ReplicationConnection) -> int:
        """Where the slot keeps WAL from; it is made where it is not there. Raises ``SlotLost``."""
        slot = wal.read_slot(connection, self._slot)
        if slot is None:
            wal.create_slot(connection, self._slot)
            message = "the replication slot was made: the server keeps WAL for us from now on"
            hint = "Drop it when no receiver is to run any more, or it fills the server's disk."
            self._listener(Finding("wal-slot-created", "info", self._slot, message, hint))
            slot = wal.read_slot(connection, self._slot)
        # Servers before 18 stream from a slot that they have invalidated, and keep nothing for it.
        if slot is None or slot.position is None:
            raise wal.slot_lost(self._slot, "the server keeps no WAL for it")
        return slot.position

    def _start(self, connection: ReplicationConnection, segment: Segment, contents: Contents) -> None:
        assert self._stream is not None
        size = self._stream.segment_size
        wal.start(connection, self._slot, segment.timeline, segment.start(size))
        name = segment.name(size).lower()
        stored = contents.reach(name)
        self._stream.begin(segment, stored, contents.pieces.get(name, ()))
        # What comes before may still be on its way to the storage: it counts in its turn.
        self._uploads.submit(segment.start(size) + stored, lambda: None)
        self._settle()
        self._reply(connection)

    def _next_timeline(self, connection: ReplicationConnection, archive: WalArchive, size: int) -> None:
        """The server left the timeline, or shuts down."""
        rows = connection.end_copy()
        if not rows or len(rows[0]) < 2:
            raise SourceUnavailable("the server ended the stream", source="postgres", hint="Look whether it runs.")
        assert self._stream is not None
        self._stream.store_piece()
        timeline, switch = int(rows[0][0] or 0), lsn_number(rows[0][1] or "")
        content = wal.history(connection, timeline)
        self._stream.store_history(timeline, content)
        message = f"the server went over to timeline {timeline} at {lsn_text(switch)}"
        self._listener(Finding("wal-timeline", "info", self._slot, message))
        segment = Segment.at(timeline, switch, size)
        self._start(connection, segment, archive.contents(segment.name(size).lower()))

    # Streaming.

    def _receive(self, connection: ReplicationConnection, stream: WalStream) -> None:
        """Until the server ends the stream."""
        if self._down:
            self._listener(Finding("wal-connected", "info", self._slot, "WAL is received again"))
        self._down, self._established = False, True
        self._heard_at, self._asked_from, self._answer_owed = self._clock.monotonic(), None, False
        while True:
            if len(self._rest):
                self._rest = stream.take(self._rest, self._clock.monotonic())
            message: bytes | memoryview | None = None
            if not len(self._rest) and stream.ready:
                try:
                    message = connection.receive(_TICK)
                except EndOfStream:
                    return
            else:
                self._uploads.wait(_TICK)
                self._heard_at = self._clock.monotonic()  # whatever it says, nobody listens
            if message is not None:
                self._heard_at = self._clock.monotonic()
                self._heard(stream, memoryview(message))
            self._beat(connection, stream)
            if self._stopping() or (self._goal is not None and stream.position >= self._goal):
                self._drain(connection)
                raise _Ended

    def _heard(self, stream: WalStream, message: memoryview) -> None:
        kind = message[0]
        if kind == wal.DATA:
            position, self._server_end, clock = wal.DATA_HEADER.unpack_from(message)
            if position != stream.position:
                words = f"the server sent WAL of {lsn_text(position)} where {lsn_text(stream.position)} was to follow"
                raise SourceUnavailable(words, source="postgres")
            stream.clock = clock
            self._gone.clear()
            self._kept_from = 0
            self._rest = stream.take(message[wal.DATA_HEADER.size :], self._clock.monotonic())
        elif kind == wal.ALIVE:
            self._server_end, clock, asked = wal.ALIVE_HEADER.unpack_from(message)
            if self._server_end == stream.position:
                stream.clock = clock
            if asked:
                self._asked(stream)

    def _asked(self, stream: WalStream) -> None:
        """The server wants to know how far we are: as a rule because it shuts down, and waits until all is stored."""
        now = self._clock.monotonic()
        if self._asked_from is None or now - self._asked_at > _ASKED_APART:
            self._asked_from = now
        self._asked_at = now
        self._answer_owed = True
        if stream.waiting_since is not None and not stream.storing:
            stream.store_piece()
        if now - self._asked_from > _LET_GO and self._stored < stream.position:
            message = f"the server shuts down, and the storage does not take WAL: {lsn_text(self._stored)} is stored"
            hint = "It is kept waiting no longer. What is not stored is kept by the server for the slot."
            raise SourceUnavailable(message, source="postgres", hint=hint)

    def _beat(self, connection: ReplicationConnection, stream: WalStream) -> None:
        """What is due by the clock."""
        now = self._clock.monotonic()
        if stream.waiting_since is not None and now - stream.waiting_since >= self._piece_after and not stream.storing:
            stream.store_piece()
        quiet = now - self._heard_at
        if quiet >= _SILENCE:
            message = f"PostgreSQL said nothing for {_SILENCE:g} seconds, though it was asked to"
            raise SourceUnavailable(message, source="postgres", hint="Look whether the server or the network hangs.")
        due = _REPLIES_APART if self._answer_owed else self._status_seconds
        if self._settle() or now - self._replied_at >= due:
            self._reply(connection, asked=quiet >= _SILENCE / 3)

    def _settle(self) -> bool:
        """Take note of what is stored by now; whether that is more than before."""
        position = self._uploads.settle()
        for finding in self._uploads.findings():
            self._listener(finding)
        now = self._clock.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            self._on_status(self.status)
        if position is None or position <= self._stored:
            return False
        self._stored = position
        return True

    def _reply(self, connection: ReplicationConnection, *, asked: bool = False) -> None:
        assert self._stream is not None
        self._replied_at, self._answer_owed = self._clock.monotonic(), False
        # A slot goes wherever it is told to, backwards too, and is lost where WAL is gone: a position before it is not
        # confirmed until the server has sent what we begin with.
        confirmed = 0 if self._stored < self._kept_from else self._stored
        connection.send(wal.reply(self._stream.position, confirmed, self._clock.now(), asked=asked))

    # Ending.

    def _drain(self, connection: ReplicationConnection | None) -> None:
        """Store what came, and let the server know."""
        stream, until = self._stream, self._clock.monotonic() + _FAREWELL
        if stream is not None:
            stream.store_piece()
        while self._uploads.pending and self._clock.monotonic() < until:
            self._uploads.wait(_TICK)
            if connection is not None and stream is not None:
                self._beat(connection, stream)
            else:
                self._settle()
        if self._uploads.pending:
            message = f"the newest WAL, behind {lsn_text(self._stored)}, is not stored"
            self._listener(
                Finding("wal-not-stored", "warning", self._slot, message, "The server keeps it for the slot.")
            )
        if connection is not None:
            with suppress(SourceError, EndOfStream):
                self._say_farewell(connection)

    def _say_farewell(self, connection: ReplicationConnection) -> None:
        """Confirm, and wait for the server to have read that: it would not, of a connection that is gone."""
        until = self._clock.monotonic() + _FAREWELL / 10
        self._reply(connection, asked=True)
        while self._clock.monotonic() < until:
            message = connection.receive(_TICK)
            if message is not None and message[0] == wal.ALIVE:
                return
