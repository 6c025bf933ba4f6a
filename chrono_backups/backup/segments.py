"""Segments on their way into the listing: entries whose chunks are still under way wait here, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from chrono_backups.backup.placement import Bundle, Bundler, InBundle, Stream, Streamer
from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.listing import (
    HASH_SIZE,
    MAX_DIRECT_EXTENTS,
    NO_HASH,
    NOTHING_EXTRA,
    Extent,
    Extra,
    encode_extents,
    encode_segment,
)
from chrono_backups.repository.listings import ListingWriter
from chrono_backups.repository.records import ListingChunk
from chrono_backups.repository.writer import ChunkWriter, Ticket

_WAITING_MOST = 20_000
"""Entries that wait for chunk ids; beyond, what is open is closed to let them go."""
_SEGMENT_MOST = 1024 * 1024
"""Bytes of names, extents and extras after which a directory goes on in another segment."""
_EXTENT_WEIGHT = 48
_ROWS_LEAST = 128
_ROWS_MOST = 1024

EntryContent = list[Extent] | InBundle | Stream
"""Where an entry's content lies or will lie."""


@dataclass(slots=True)
class Pending:
    """A segment whose chunks are under way, or, where ``raw`` is set, one that is taken over."""

    path: bytes
    attributes: Attributes | None = None
    kept: list[int] = field(default_factory=list)
    hashes: bytearray = field(default_factory=bytearray)
    contents: list[EntryContent] = field(default_factory=list)
    extras: dict[int, Extra] = field(default_factory=dict)
    raw: memoryview | None = None
    leading: bool = False
    entries: int = 0
    """How many it lists, for the bound on what waits."""

    def ready(self) -> bool:
        """Whether it can be written without waiting. The last contents are the last to be ready."""
        seen: Bundle | None = None
        for content in reversed(self.contents):
            if isinstance(content, InBundle):
                if content.bundle is not seen and not content.bundle.ready():
                    return False
                seen = content.bundle
            elif isinstance(content, Stream) and not content.ready():
                return False
        return True


class SegmentQueue:
    """Writes segments in the order in which they were added, each when its chunks have their ids."""

    def __init__(
        self, writer: ChunkWriter, keys: Keys, bundler: Bundler, streamer: Streamer, *, count_use: bool
    ) -> None:
        """``count_use``: keep account of how much of each bundle is used."""
        self._writer = writer
        self._hash = keys.content_hash
        self._bundler = bundler
        self._streamer = streamer
        self._count_use = count_use
        self._used: dict[bytes, int] = {}
        self._waiting: deque[Pending] = deque()
        self._waiting_entries = 0
        self._listing = ListingWriter(writer)

    def add(self, pending: Pending) -> None:
        """The next segment."""
        self._waiting.append(pending)
        self._waiting_entries += pending.entries
        if self._waiting_entries > _WAITING_MOST:
            self.write_ready()
        if self._waiting_entries > _WAITING_MOST:
            self._flush()

    def _flush(self) -> None:
        """Hand in what is open, so that every entry's chunks are under way."""
        self._bundler.flush()
        self._streamer.flush()
        while self._waiting_entries > _WAITING_MOST:
            self._write(self._waiting.popleft())

    def write_ready(self) -> None:
        """Write what need not wait."""
        while self._waiting and self._waiting[0].ready():
            self._write(self._waiting.popleft())

    def _write(self, pending: Pending) -> None:
        self._waiting_entries -= pending.entries
        if pending.raw is not None:
            self._listing.add(pending.path, pending.raw, leading=pending.leading)
            return
        extents = [self._extents(one, i, pending) for i, one in enumerate(pending.contents)]
        assert pending.attributes is not None
        names = pending.attributes.names
        start = weight = 0
        for i, row in enumerate(extents):
            extra = pending.extras.get(i)
            weight += len(names[pending.kept[i]]) + _EXTENT_WEIGHT * len(row) + (extra.weight if extra else 0)
            if weight >= _SEGMENT_MOST or i + 1 == len(extents):
                self._write_segment(pending, extents, start, i + 1)
                start, weight = i + 1, 0

    def _write_segment(self, pending: Pending, extents: Sequence[Sequence[Extent]], start: int, end: int) -> None:
        """The entries from ``start`` to ``end``: all of them, unless they list so much that no chunk would hold it."""
        attributes = pending.attributes
        assert attributes is not None
        if end - start != len(attributes.names):
            attributes = attributes.select(pending.kept[start:end])
        segment = encode_segment(
            pending.path,
            b"\0".join(attributes.names),
            attributes.encode(),
            pending.hashes[start * HASH_SIZE : end * HASH_SIZE],
            extents[start:end],
            {i - start: extra for i, extra in pending.extras.items() if start <= i < end},
        )
        self._listing.add(pending.path, segment, leading=pending.leading)

    def _extents(self, content: EntryContent, position: int, pending: Pending) -> list[Extent]:
        if isinstance(content, InBundle):
            chunk_id = content.bundle.chunk_id(self._writer)
            extents = [Extent(chunk_id, content.offset, content.length)]
        elif isinstance(content, list):
            extents = content
        else:
            extents = content.extents(self._writer)
            self._set_hash(pending, position, extents)
            if len(extents) > MAX_DIRECT_EXTENTS:
                extents = store_rows(self._writer, extents)
                pending.extras[position] = replace(pending.extras.get(position, NOTHING_EXTRA), indirect=True)
            return extents
        if self._count_use and len(extents) == 1 and extents[0].chunk_id is not None:
            chunk_id = extents[0].chunk_id
            self._used[chunk_id] = self._used.get(chunk_id, 0) + extents[0].length
        return extents

    def _set_hash(self, pending: Pending, position: int, extents: list[Extent]) -> None:
        """A large file is known by its chunks: the same content is cut in the same places."""
        start = position * HASH_SIZE
        pending.hashes[start : start + HASH_SIZE] = self._hash(encode_extents(extents)) if extents else NO_HASH

    def wasteful(self) -> tuple[bytes, ...]:
        """The bundles of which less than half is used, where that was counted."""
        wasteful = []
        for chunk_id, used in self._used.items():
            place = self._writer.find(chunk_id)
            if place is not None and used * 2 < place.content_size:
                wasteful.append(chunk_id)
        return tuple(sorted(wasteful))

    def finish(self) -> tuple[ListingChunk, ...]:
        """Write all that waits; the chunks of the whole listing."""
        self._bundler.flush()
        self._streamer.flush()
        while self._waiting:
            self._write(self._waiting.popleft())
        return self._listing.finish()


def store_rows(writer: ChunkWriter, extents: Iterable[Extent]) -> list[Extent]:
    """Store extent rows in chunks cut by content, so that a change in a huge file stores few rows anew."""
    stored: list[tuple[Ticket, int]] = []
    open_rows: list[Extent] = []

    def close() -> None:
        rows = encode_extents(open_rows)
        stored.append((writer.store_listing(rows), len(rows)))
        open_rows.clear()

    for extent in extents:
        open_rows.append(extent)
        closes = (extent.chunk_id or b"\1")[0] == 0 and len(open_rows) >= _ROWS_LEAST
        if closes or len(open_rows) >= _ROWS_MOST:
            close()
    if open_rows:
        close()
    return [Extent(writer.wait(ticket)[0], 0, size) for ticket, size in stored]
