"""The part of the log that is being received: a segment's buffer, and what of it is on its way to the archive."""

from __future__ import annotations

from chrono_backups.backup.wal_storing import Buffers, Counts, WalUploads
from chrono_backups.repository.wal_archive import MOMENT_SIZE, WalArchive, moment_bytes
from chrono_backups.repository.wal_names import PieceName, Segment
from chrono_backups.sources.postgres.wal import moment


class _Pieces:
    """The pieces of one segment that are needed.

    A piece takes those before it in as a binary counter carries: so there are never more than a few, and each byte is
    stored anew a few times only.
    """

    def __init__(self, segment: str, stored: int, there: tuple[PieceName, ...]) -> None:
        self._segment = segment
        self._ends = [stored]
        self._there = list(there)

    @property
    def end(self) -> int:
        """Bytes from the segment's start that are stored or on their way."""
        return self._ends[-1]

    def next(self, end: int) -> tuple[PieceName, list[PieceName]]:
        """The piece that makes all up to ``end`` stored, and those that it makes needless."""
        number = len(self._ends)
        start = self._ends[number - (number & -number)]
        piece = PieceName(self._segment, start, end)
        needless = [one for one in self._there if one.start >= start and one.end <= end]
        self._there = [one for one in self._there if one not in needless] + [piece]
        self._ends.append(end)
        return piece, needless

    def all(self) -> list[PieceName]:
        """What the whole segment makes needless."""
        return self._there


class WalStream:
    """Takes the log byte by byte and hands it to ``uploads``: whole segments as they fill, pieces when asked to."""

    def __init__(self, archive: WalArchive, uploads: WalUploads, buffers: Buffers, counts: Counts) -> None:
        self._archive = archive
        self._uploads = uploads
        self._buffers = buffers
        self._counts = counts
        self._size = buffers.size - MOMENT_SIZE
        self._segment = Segment(0, 0)
        self._pieces = _Pieces("", 0, ())
        self._buffer: bytearray | None = None
        self._have = 0
        self._queued: set[str] = set()
        self._piece_under_way = False
        self.clock = 0
        """The server's with the newest byte, in microseconds since 2000."""
        self.waiting_since: float | None = None
        """When the oldest byte that is not handed over yet came."""

    def begin(self, segment: Segment, stored: int, there: tuple[PieceName, ...]) -> None:
        """Go on with that segment from its start; ``stored`` bytes of it are archived, in the pieces ``there``."""
        self._segment = segment
        self._have = 0
        self._pieces = _Pieces(self.name, stored, there)
        self.waiting_since = None

    @property
    def name(self) -> str:
        """Of the segment that is being received, as the archive calls it."""
        return self._segment.name(self._size).lower()

    @property
    def segment(self) -> Segment:
        """That is being received."""
        return self._segment

    @property
    def segment_size(self) -> int:
        return self._size

    @property
    def storing(self) -> bool:
        """Whether a piece is on its way: the next one waits for it, and is the larger."""
        return self._piece_under_way

    @property
    def timeline(self) -> int:
        return self._segment.timeline

    @property
    def position(self) -> int:
        """Of the next byte."""
        return self._segment.start(self._size) + self._have

    @property
    def ready(self) -> bool:
        """Whether there is a buffer for more."""
        if self._buffer is None:
            self._buffer = self._buffers.take()
        return self._buffer is not None

    def queued(self, name: str) -> bool:
        """Whether that segment is stored by us, or on its way."""
        return name in self._queued

    def take(self, data: memoryview, now: float) -> memoryview:
        """Take what there is room for; the rest of ``data``."""
        while len(data) and self.ready:
            assert self._buffer is not None
            count = min(len(data), self._size - self._have)
            start = MOMENT_SIZE + self._have
            self._buffer[start : start + count] = data[:count]
            self._have += count
            data = data[count:]
            if self.waiting_since is None and self._have > self._pieces.end:
                self.waiting_since = now
            if self._have == self._size:
                self._store_segment()
        return data

    def _store_segment(self) -> None:
        buffer, name, counts, archive = self._buffer, self.name, self._counts, self._archive
        assert buffer is not None
        buffer[:MOMENT_SIZE] = moment_bytes(moment(self.clock))
        needless = self._pieces.all()

        def store() -> None:
            archive.put_segment(name, buffer)
            archive.remove(needless)
            self._queued.discard(name)
            counts.segments += 1
            counts.bytes += len(buffer) - MOMENT_SIZE

        end = self._segment.next.start(self._size)
        self._uploads.submit(end, store, lambda: self._buffers.give(buffer), since=self.waiting_since)
        self._queued.add(name)
        self._buffer = None
        self.begin(self._segment.next, 0, ())

    def store_piece(self) -> bool:
        """Hand over what is not yet; whether there was anything."""
        if self._buffer is None or self._have <= self._pieces.end:
            return False
        piece, needless = self._pieces.next(self._have)
        content = moment_bytes(moment(self.clock)) + self._buffer[MOMENT_SIZE + piece.start : MOMENT_SIZE + piece.end]
        counts, archive = self._counts, self._archive

        def store() -> None:
            archive.put_piece(piece, content)
            archive.remove(needless)
            counts.pieces += 1

        def release() -> None:
            self._piece_under_way = False

        self._piece_under_way = True
        self._uploads.submit(self.position, store, release, since=self.waiting_since)
        self.waiting_since = None
        return True

    def store_history(self, timeline: int, content: bytes) -> None:
        """Hand over the history of a timeline."""
        archive = self._archive

        def store() -> None:
            archive.put_history(timeline, content)

        self._uploads.submit(self.position, store)
