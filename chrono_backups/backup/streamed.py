"""One source's capture into the repository, where the source pours out a stream in an order of its own.

Content is cut and handed in as it comes. What an entry needs to be listed is kept until the end, when the entries
are sorted into directories and the listing is written; a large file's extents go into the repository as soon as
they are known, so that memory grows with the number of entries and not with their size.

Of a file that comes as changes, or in stretches, the snapshot lists the whole: what came, laid over or put between the
extents that the earlier snapshot has for it. So every snapshot stands for itself, and a restore follows no chain.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from chrono_backups.backup.account import Account
from chrono_backups.backup.capture import Captured
from chrono_backups.backup.overlay import lay_over, put_together
from chrono_backups.backup.placement import Bundler, Stream, Streamer
from chrono_backups.backup.segments import EntryContent, Pending, SegmentQueue, store_rows
from chrono_backups.backup.small_files import Holdings, SmallFiles
from chrono_backups.errors import Damaged, EntryMissing, SourceError
from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.pipeline.chunking import MIN_CHUNK
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.listing import (
    MAX_DIRECT_EXTENTS,
    NO_HASH,
    NOTHING_EXTRA,
    Extent,
    Extra,
    Segment,
    encode_extents,
    order,
)
from chrono_backups.repository.listings import content_extents, needed_chunks, read_listing
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import Effective, Snapshot, Statistics
from chrono_backups.repository.writer import ChunkWriter
from chrono_backups.sources.base import Changes, StreamedCapture, StreamedEntry

_CHANGES_CHUNK = 128 * 1024
"""Bytes of changed blocks in one chunk: enough to compress well, few enough that no pile of dead ones is kept."""
_ENDLESS = 1 << 62
_REPORT_EVERY = 1024 * 1024
_ASKED_AT_ONCE = 65536
"""Chunks that are looked up together: enough to be quick, few enough to be small."""
_ROWS_AT_ONCE = 1024
_NOTHING = StreamedEntry(b"", 0).read_into
_MADE_DIRECTORY = stat.S_IFDIR | 0o700


class EarlierListing:
    """An earlier snapshot's entries by their paths, in any order."""

    def __init__(self, reader: ChunkReader, snapshot: Snapshot) -> None:
        """Raises ``Damaged`` where the listing can't be read."""
        self._reader = reader
        self._directories: dict[bytes, dict[bytes, tuple[Segment, int]]] = {}
        for segment in read_listing(reader, snapshot.listing):
            found = self._directories.setdefault(segment.path, {})
            found.update((name, (segment, i)) for i, name in enumerate(segment.names))

    def find(self, path: bytes) -> tuple[Segment, int] | None:
        """The segment that lists the entry, and its position there."""
        directory, _, name = path.rpartition(b"/")
        return self._directories.get(directory, {}).get(name)

    def extents(self, path: bytes) -> Iterator[Extent]:
        """Of the entry's content; none where there is no such file. Raises ``Damaged``."""
        found = self.find(path)
        return content_extents(self._reader, *found) if found is not None else iter(())

    def read(self, path: bytes) -> bytes:
        """A file's whole content. Raises ``Damaged``, ``EntryMissing``."""
        return b"".join(self.stream(path))

    def stream(self, path: bytes) -> Iterator[bytes | memoryview]:
        """A file's content piece by piece. Raises ``Damaged``, ``EntryMissing``."""
        if self.find(path) is None:
            raise EntryMissing(f"the earlier snapshot has no {path.decode(errors='replace')}")
        chunks = self._reader.stream(one.chunk_id for one in self.extents(path) if one.chunk_id is not None)
        for extent in self.extents(path):
            if extent.chunk_id is None:
                yield bytes(extent.length)
                continue
            content = next(chunks)
            if isinstance(content, Damaged):
                raise content
            yield memoryview(content)[extent.offset : extent.offset + extent.length]

    def missing(self, writer: ChunkWriter) -> bytes | None:
        """A chunk that some content needs and the repository does not hold for certain; None: it holds them all."""
        wanted: set[bytes] = set()
        listed = {id(segment): segment for found in self._directories.values() for segment, _ in found.values()}
        for segment in listed.values():
            for needed in needed_chunks(self._reader, segment):
                wanted |= needed
                if len(wanted) >= _ASKED_AT_ONCE:
                    if lacking := writer.lacking(wanted):
                        return lacking[0]
                    wanted.clear()
        return next(iter(writer.lacking(wanted)), None)


@dataclass(slots=True)
class _Taken:
    """An entry whose content is stored or under way."""

    entry: StreamedEntry
    size: int
    content: EntryContent
    content_hash: bytes = NO_HASH
    indirect: bool = False


class StreamCapture:
    """Carries one capture through."""

    def __init__(
        self,
        writer: ChunkWriter,
        reader: ChunkReader,
        keys: Keys,
        effective: Effective,
        earlier: EarlierListing | None,
        account: Account,
        *,
        wasteful: frozenset[bytes] = frozenset(),
    ) -> None:
        """``earlier``: needed where entries come as changes or in stretches; else by it small files are known that did
        not change.
        """
        self._writer = writer
        self._reader = reader
        self._keys = keys
        self._effective = effective
        self._earlier = earlier
        self._account = account
        self._tally = account.tally
        self._wasteful = wasteful
        self._bundler = Bundler(writer)
        self._small_files = SmallFiles(keys, self._bundler, Holdings(writer), wasteful)
        self._streamer = Streamer(writer)
        self._taken: dict[bytes, _Taken] = {}
        self._unsettled: deque[_Taken] = deque()
        self._done_bytes = 0
        self._reported = 0

    def run(self, capture: StreamedCapture) -> Captured:
        """All of it. When it returns every chunk is handed in; ``ChunkWriter.flush`` makes them durable."""
        for entry in capture.entries():
            if entry.path in self._taken and not entry.again:
                raise SourceError(f"the source gave {entry.path.decode(errors='replace')} twice")
            taken = self._taken[entry.path] = self._take(entry)
            if taken.entry.changes is None and taken.entry.stretches is None:
                taken.entry = _listed(entry)
            while self._unsettled and self._ready(self._unsettled[0]):
                self._settle(self._unsettled.popleft())
            self._report()
        self._streamer.flush()
        while self._unsettled:
            self._settle(self._unsettled.popleft())
        segments = SegmentQueue(
            self._writer, self._keys, self._bundler, self._streamer, count_use=self._effective == "full"
        )
        self._bundler.flush()
        for pending in self._pending():
            segments.add(pending)
            segments.write_ready()
        listing = segments.finish()
        wasteful = segments.wasteful() if self._effective == "full" else tuple(sorted(self._wasteful))
        return Captured(listing, self._account.findings(), self._tally, wasteful)

    def _report(self) -> None:
        if self._done_bytes - self._reported >= _REPORT_EVERY:
            self._reported = self._done_bytes
            self._account.report(self._done_bytes)

    # Entries as they come.

    def _take(self, entry: StreamedEntry) -> _Taken:
        if not stat.S_ISREG(entry.mode):
            return _Taken(entry, 0, [])
        self._tally.files_read += 1
        if entry.changes is not None:
            taken = _Taken(entry, entry.changes.size, self._stream(entry, _CHANGES_CHUNK))
            self._done_bytes += entry.changes.size - entry.size
            self._unsettled.append(taken)
        elif entry.stretches is not None:
            content = self._stream(entry, _CHANGES_CHUNK)
            self._tally.bytes_read += entry.stretches.kept  # the source read them, and found them unchanged
            self._done_bytes += entry.stretches.kept
            taken = _Taken(entry, entry.stretches.kept + entry.stretches.new, content)
            self._unsettled.append(taken)
        elif 0 <= entry.size < MIN_CHUNK:
            room = self._bundler.room()
            self._read_whole(entry, room[: entry.size])
            old = self._earlier.find(entry.path) if self._earlier is not None else None
            placed, content_hash = self._small_files.place(room, entry.size, old)
            taken = _Taken(entry, entry.size, placed, content_hash)
        else:
            before = self._tally.bytes_read
            stream = self._stream(entry, entry.block_size)
            taken = _Taken(entry, self._tally.bytes_read - before, stream)
            if taken.size != entry.size >= 0:
                raise SourceError(f"{_shown(entry)} ended after {taken.size} of {entry.size} bytes")
            self._unsettled.append(taken)
        return taken

    def _read_whole(self, entry: StreamedEntry, view: memoryview) -> None:
        at = 0
        while at < len(view):
            count = entry.read_into(view[at:])
            if not count:
                raise SourceError(f"{_shown(entry)} ended after {at} of {entry.size} bytes")
            at += count
        self._tally.bytes_read += at
        self._done_bytes += at

    def _stream(self, entry: StreamedEntry, block_size: int | None) -> Stream:
        def read_into(_offset: int, view: memoryview) -> int:
            count = entry.read_into(view)
            self._tally.bytes_read += count
            self._done_bytes += count
            self._report()
            return count

        length = entry.size if entry.size >= 0 else _ENDLESS
        return self._streamer.read(read_into, [(0, length)] if length else [], 0, block_size)

    # Large files, once their chunks have ids.

    @staticmethod
    def _ready(taken: _Taken) -> bool:
        assert isinstance(taken.content, Stream)
        return taken.content.ready()

    def _settle(self, taken: _Taken) -> None:
        """Give a large file its extents, stored as rows where they are many."""
        assert isinstance(taken.content, Stream)
        extents: Sequence[Extent] = taken.content.extents(self._writer)
        changes: Changes | None = taken.entry.changes
        if changes is not None:
            assert self._earlier is not None
            if not changes.blocks and self._list_as_before(taken, self._earlier):
                taken.entry = _listed(taken.entry)
                return
            extents = lay_over(self._earlier.extents(taken.entry.path), changes, extents)
        if taken.entry.stretches is not None:
            assert self._earlier is not None
            kept = self._earlier.extents(taken.entry.path)
            self._list_many(taken, put_together(kept, taken.entry.stretches, extents))
        else:
            self._list_many(taken, extents)
        taken.entry = _listed(taken.entry)

    @staticmethod
    def _list_as_before(taken: _Taken, earlier: EarlierListing) -> bool:
        """List a file in which nothing changed as the earlier snapshot does, extent rows and all; whether that can be.

        ``EarlierListing.missing`` has seen that they are there.
        """
        changes, found = taken.entry.changes, earlier.find(taken.entry.path)
        if changes is None or found is None:
            return False
        segment, position = found
        if not changes.size == changes.kept == segment.size[position]:
            return False
        taken.content, taken.content_hash = segment.extents(position), segment.content_hash(position)
        taken.indirect = segment.extras.get(position, NOTHING_EXTRA).indirect
        return True

    def _list_many(self, taken: _Taken, extents: Iterable[Extent]) -> None:
        """Keep an entry's extents, which may be very many: they are gone through once."""
        rows = bytearray()
        left = iter(extents)

        def noted() -> Iterator[Extent]:
            while some := list(islice(left, _ROWS_AT_ONCE)):
                rows.extend(encode_extents(some))
                yield from some

        coming = noted()
        direct = list(islice(coming, MAX_DIRECT_EXTENTS + 1))
        if len(direct) > MAX_DIRECT_EXTENTS:
            direct = store_rows(self._writer, chain(direct, coming))
            taken.indirect = True
        if rows:
            taken.content_hash = self._keys.content_hash(rows)
        taken.content = direct

    # The listing.

    def _pending(self) -> Iterator[Pending]:
        """Each directory's entries, in the order of the listing."""
        directories: dict[bytes, list[bytes]] = {}
        for path in list(self._taken):
            self._make_parents(path)
        for path in self._taken:
            directories.setdefault(path.rpartition(b"/")[0], []).append(path)
        for directory in sorted(directories, key=order):
            yield self._directory(directory, [self._taken.pop(path) for path in sorted(directories.pop(directory))])

    def _make_parents(self, path: bytes) -> None:
        parent = path.rpartition(b"/")[0]
        while parent and parent not in self._taken:
            self._taken[parent] = _Taken(StreamedEntry(parent, _MADE_DIRECTORY), 0, [])
            parent = parent.rpartition(b"/")[0]

    def _directory(self, path: bytes, taken: Sequence[_Taken]) -> Pending:
        columns = zip(*((one.entry.mode, one.entry.uid, one.entry.gid, one.size, one.entry.mtime_ns,
                         one.entry.mtime_ns, 0) for one in taken), strict=True)  # fmt: skip
        attributes = Attributes.build([one.entry.path.rpartition(b"/")[2] for one in taken], list(columns))
        self._account.count(attributes.mode, sum(attributes.size))
        pending = Pending(path, attributes, kept=list(range(len(taken))), entries=len(taken))
        for position, one in enumerate(taken):
            pending.contents.append(one.content)
            pending.hashes += one.content_hash
            extra = NOTHING_EXTRA
            if one.entry.link_target is not None:
                extra = Extra(link_target=one.entry.link_target)
            if one.indirect:
                extra = replace(extra, indirect=True)
            if extra:
                pending.extras[position] = extra
        return pending


def _listed(entry: StreamedEntry) -> StreamedEntry:
    """What is needed of an entry once its content is stored: without what read it."""
    return replace(entry, changes=None, stretches=None, read_into=_NOTHING)


def _shown(entry: StreamedEntry) -> str:
    return entry.path.decode("utf-8", "backslashreplace")


def expected(capture_bytes: int | None, earlier: Snapshot | None) -> Statistics | None:
    """By what progress is told: what the source says, else what the earlier snapshot held."""
    if capture_bytes is not None:
        return Statistics(bytes_total=capture_bytes)
    return earlier.statistics if earlier is not None else None
