"""Writing and reading a snapshot's listing as a stream of segments."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from zlib import crc32

from chrono_backups.errors import Damaged
from chrono_backups.repository.listing import Extent, Segment, decode_extents, named_chunks, order, segments
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import ListingChunk
from chrono_backups.repository.writer import ChunkWriter, Ticket

_TARGET = 128 * 1024
"""A listing chunk is closed by the path of its last directory, about this size on average beyond the same
again; the same directories make the same chunks, whatever lies before them."""
_CEILING = 2 * 1024 * 1024


class ListingWriter:
    """Collects segments, in order, into listing chunks."""

    def __init__(self, writer: ChunkWriter) -> None:
        self._writer = writer
        self._buffer = bytearray()
        self._first_path = b""
        self._leading = False
        self._stored: list[tuple[bytes, Ticket]] = []

    def add(self, path: bytes, segment: bytes | memoryview, *, leading: bool = False) -> None:
        """The next segment. Segments come in the order of ``listing.order`` of their paths.

        Those of ``leading`` directories have chunks of their own: they change without what is protected.
        """
        if self._buffer and (leading != self._leading or len(self._buffer) + len(segment) > _CEILING):
            self._close()
        self._leading = leading
        if not self._buffer:
            self._first_path = path
        self._buffer += segment
        if len(self._buffer) >= _TARGET and crc32(path) * _TARGET < len(segment) << 32:
            self._close()

    def _close(self) -> None:
        self._stored.append((self._first_path, self._writer.store_listing(self._buffer)))
        self._buffer = bytearray()

    def finish(self) -> tuple[ListingChunk, ...]:
        """Store what is left; the listing's chunks in order."""
        if self._buffer:
            self._close()
        return tuple(ListingChunk(path, self._writer.wait(ticket)[0]) for path, ticket in self._stored)


def read_listing(reader: ChunkReader, chunks: Sequence[ListingChunk], start: bytes = b"") -> Iterator[Segment]:
    """The segments of a listing in order, from the first that may concern the directory ``start``.

    Raises ``Damaged`` naming the object that can't be read.
    """
    first = max(0, bisect_left([order(chunk.first_path) for chunk in chunks], order(start)) - 1)
    for content in reader.stream(chunk.chunk_id for chunk in chunks[first:]):
        if isinstance(content, Damaged):
            raise content
        for segment in segments(memoryview(content)):
            if order(segment.path) >= order(start):
                yield segment


def read_below(reader: ChunkReader, chunks: Sequence[ListingChunk], path: bytes) -> Iterator[Segment]:
    """The segments of the directory ``path`` and of all below it."""
    below = order(path + b"/") if path else b""
    for segment in read_listing(reader, chunks, path):
        key = order(segment.path)
        if key != order(path) and not key.startswith(below):
            return
        yield segment


def content_extents(reader: ChunkReader, segment: Segment, position: int) -> Iterator[Extent]:
    """The extents of an entry's content, in order, through its extent rows where it has such.

    Raises ``Damaged``.
    """
    direct = segment.extents(position)
    extra = segment.extras.get(position)
    if extra is None or not extra.indirect:
        yield from direct
        return
    for rows in reader.stream(extent.chunk_id for extent in direct if extent.chunk_id is not None):
        if isinstance(rows, Damaged):
            raise rows
        yield from decode_extents(rows)


def needed_chunks(reader: ChunkReader, segment: Segment) -> Iterator[set[bytes]]:
    """The ids of all chunks that a segment's entries need, those that hold extent rows among them, in several sets.

    Raises ``Damaged``.
    """
    yield set(segment.chunk_ids())
    indirect = [position for position, extra in segment.extras.items() if extra.indirect]
    stored = (one.chunk_id for position in indirect for one in segment.extents(position))
    for rows in reader.stream(chunk_id for chunk_id in stored if chunk_id is not None):
        if isinstance(rows, Damaged):
            raise rows
        yield named_chunks(rows)


class ListingCursor:
    """Walks a listing beside another walk in the same order. Damage ends it early."""

    def __init__(self, listing: Iterator[Segment]) -> None:
        self._listing = listing
        self.damage: Damaged | None = None
        """Why the rest of the listing can't be read."""
        self._next = self._advance()
        self._path: bytes | None = None
        self._found: list[Segment] = []

    def _advance(self) -> Segment | None:
        try:
            return next(self._listing, None)
        except Damaged as error:
            self.damage = error
            return None

    def directory(self, path: bytes) -> list[Segment]:
        """The segments of that directory; paths are asked for in order, one perhaps several times."""
        if path == self._path:
            return self._found
        wanted = order(path)
        while self._next is not None and order(self._next.path) < wanted:
            self._next = self._advance()
        self._path, self._found = path, []
        while self._next is not None and self._next.path == path:
            self._found.append(self._next)
            self._next = self._advance()
        return self._found
