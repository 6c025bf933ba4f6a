"""Where captured content will lie, before its chunks have ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chrono_backups.pipeline.chunking import MIN_CHUNK, ContentChunker, FixedChunker, closes_bundle
from chrono_backups.repository.listing import Extent
from chrono_backups.repository.writer import SLOT_SIZE, ChunkWriter, Ticket

ReadInto = Callable[[int, memoryview], int]
"""``Content.read_into``: fill the start of a buffer from an offset; bytes read, 0 at the end."""


@dataclass(slots=True, eq=False)
class Bundle:
    """A chunk that several small files share: known once its ticket is done."""

    ticket: Ticket | None = None
    number: int = 0
    _id: bytes | None = None

    def ready(self) -> bool:
        """Whether ``chunk_id`` answers at once."""
        return self.ticket is not None and self.ticket.done.is_set()

    def chunk_id(self, writer: ChunkWriter) -> bytes:
        """The chunk's id; waits for it. The bundle must be closed."""
        if self._id is None:
            assert self.ticket is not None
            self._id = writer.wait(self.ticket)[self.number]
        return self._id


class InBundle(NamedTuple):
    """A small file's content: a stretch of a bundle."""

    bundle: Bundle
    offset: int
    length: int


@dataclass(slots=True, eq=False)
class Stream:
    """A large entry's content: chunks in order, with holes between them."""

    pieces: list[tuple[Ticket, int, int] | int] = field(default_factory=list)
    """Ticket, number of its chunk, bytes; or the length of a hole."""
    expected: int = 0
    """How many pieces there will be once their slots are handed in."""
    _seen: int = 0
    """Pieces at the start that are known to have their ids."""

    def ready(self) -> bool:
        """Whether ``extents`` answers at once."""
        while self._seen < len(self.pieces):
            piece = self.pieces[self._seen]
            if not isinstance(piece, int) and not piece[0].done.is_set():
                return False
            self._seen += 1
        return self._seen == self.expected

    def extents(self, writer: ChunkWriter) -> list[Extent]:
        """Waits for the ids."""
        found = []
        last: Ticket | None = None
        ids: list[bytes] = []
        for piece in self.pieces:
            if isinstance(piece, int):
                found.append(Extent(None, 0, piece))
            else:
                ticket, number, length = piece
                if ticket is not last:
                    last, ids = ticket, writer.wait(ticket)
                found.append(Extent(ids[number], 0, length))
        return found


class Bundler:
    """Lays small files one after another into bundles."""

    def __init__(self, writer: ChunkWriter) -> None:
        self._writer = writer
        self._slot: bytearray | None = None
        self._view = memoryview(b"")
        self._start = 0
        self._at = 0
        self._bundle = Bundle()
        self._closed: list[Bundle] = []
        self._cuts: list[tuple[int, int]] = []

    def room(self) -> memoryview:
        """Where the next small file is to be read: more than ``MIN_CHUNK`` bytes."""
        if self._slot is None or self._at + MIN_CHUNK > SLOT_SIZE:
            self._next_slot()
        return self._view[self._at : self._at + MIN_CHUNK]

    def _next_slot(self) -> None:
        """Go on in a fresh slot; the bundle being filled moves there, so that its cut depends on content alone."""
        fresh = self._writer.slot()
        begun = self._at - self._start
        fresh[:begun] = self._view[self._start : self._at]
        if self._slot is not None:
            self._hand_in()
        self._slot, self._view = fresh, memoryview(fresh)
        self._start, self._at = 0, begun

    def place(self, size: int, content_hash: bytes) -> InBundle:
        """Keep the ``size`` bytes that were read into ``room``."""
        placed = InBundle(self._bundle, self._at - self._start, size)
        self._at += size
        if closes_bundle(self._at - self._start, size, content_hash):
            self._close()
        return placed

    def _close(self) -> None:
        self._bundle.number = len(self._cuts)
        self._cuts.append((self._start, self._at))
        self._closed.append(self._bundle)
        self._bundle = Bundle()
        self._start = self._at

    def _hand_in(self) -> None:
        assert self._slot is not None
        self._view.release()
        ticket = self._writer.store(self._slot, self._cuts)
        for bundle in self._closed:
            bundle.ticket = ticket
        self._slot, self._view = None, memoryview(b"")
        self._closed, self._cuts = [], []

    def flush(self) -> None:
        """Close what is open and hand it in."""
        if self._slot is None:
            return
        if self._at > self._start:
            self._close()
        self._hand_in()
        self._start = self._at = 0


class Streamer:
    """Reads large content into slots and cuts it."""

    def __init__(self, writer: ChunkWriter) -> None:
        self._writer = writer
        self._content_chunker = ContentChunker()
        self._slot: bytearray | None = None
        self._view = memoryview(b"")
        self._at = 0
        self._cuts: list[tuple[int, int]] = []
        self._open: list[tuple[Stream, int, int]] = []

    def read(self, read_into: ReadInto, parts: Sequence[tuple[int, int]], size: int, block: int | None) -> Stream:
        """Store the content's parts; between them are holes, and one up to ``size`` behind the last."""
        chunker = FixedChunker(block) if block else self._content_chunker
        stream = Stream()
        done = 0
        for start, length in parts:
            if start > done:
                self._expect(stream, -1, start - done)
            taken = self._read_part(stream, read_into, start, length, chunker)
            done = start + taken
            if taken < length:
                return stream
        if size > done:
            self._expect(stream, -1, size - done)
        return stream

    def _expect(self, stream: Stream, number: int, length: int) -> None:
        """A piece of the open slot: a chunk of it, or where ``number`` is -1 a hole that keeps its place."""
        stream.expected += 1
        self._open.append((stream, number, length))

    def _read_part(
        self, stream: Stream, read_into: ReadInto, start: int, length: int, chunker: ContentChunker | FixedChunker
    ) -> int:
        done = 0
        begun = self._begin()
        while True:
            wanted = min(SLOT_SIZE - self._at, length - done)
            count = read_into(start + done, self._view[self._at : self._at + wanted]) if wanted else 0
            self._at += count
            done += count
            ended = done == length or (wanted > 0 and count == 0)
            if not ended and self._at < SLOT_SIZE:
                continue
            window = self._view[begun : self._at]
            at = begun
            for end in chunker.cut(window, last=ended) if window else ():
                self._expect(stream, len(self._cuts), begun + end - at)
                self._cuts.append((at, begun + end))
                at = begun + end
            if ended:
                return done
            begun = self._next_slot(at)

    def _begin(self) -> int:
        if self._slot is None:
            self._slot = self._writer.slot()
            self._view, self._at = memoryview(self._slot), 0
        elif self._at > SLOT_SIZE - SLOT_SIZE // 8:
            self._next_slot(self._at)
        return self._at

    def _next_slot(self, carried_from: int) -> int:
        """Go on in a fresh slot with the bytes that are not cut yet; where they begin."""
        fresh = self._writer.slot()
        carried = self._at - carried_from
        fresh[:carried] = self._view[carried_from : self._at]
        self._hand_in()
        self._slot, self._view, self._at = fresh, memoryview(fresh), carried
        return 0

    def _hand_in(self) -> None:
        assert self._slot is not None
        self._view.release()
        ticket = self._writer.store(self._slot, self._cuts)
        for stream, number, length in self._open:
            stream.pieces.append(length if number < 0 else (ticket, number, length))
        self._slot, self._view = None, memoryview(b"")
        self._open, self._cuts = [], []

    def flush(self) -> None:
        """Hand in what was read."""
        if self._slot is not None:
            self._hand_in()
        for stream, _, hole in self._open:
            stream.pieces.append(hole)
        self._open = []
