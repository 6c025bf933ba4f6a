"""One source's capture into the repository: scan beside the parent's listing, read what changed.

The walk of the source and the parent's listing go side by side, both in the order of paths. A directory
that is the same byte for byte as in the parent is taken over whole; of others, each entry is taken over
or read. Small files are laid into bundles, large ones cut by content. A directory's segment is written
once the chunks of all its files have their ids, in order, while later ones are already being read.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chrono_backups.backup.account import Account, Tally
from chrono_backups.backup.placement import Bundler, ReadInto, Streamer
from chrono_backups.backup.segments import EntryContent, Pending, SegmentQueue
from chrono_backups.backup.small_files import Holdings, SmallFiles
from chrono_backups.errors import Damaged
from chrono_backups.events import Finding, Listener
from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.pipeline.chunking import MIN_CHUNK
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.listing import (
    NO_HASH,
    NOTHING_EXTRA,
    Extra,
    Segment,
)
from chrono_backups.repository.listings import ListingCursor, content_extents
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import Effective, ListingChunk, Statistics
from chrono_backups.repository.writer import ChunkWriter
from chrono_backups.sources.base import PLAIN, Capture, Content, Description, Directory, Unreadable

_KIND = 0o170000
_AHEAD = 8
"""Directories that are scanned, and whose tiny files may be read, ahead of the one being written down."""
_RACY = 2_000_000_000
"""Nanoseconds before the parent's start: a file changed then may have changed again unseen, within the
coarsest time stamp that file systems keep, so it is read again."""


@dataclass(frozen=True)
class Parent:
    """What an earlier snapshot of the source offers: its listing, and how far it may be trusted."""

    cursor: ListingCursor
    started_ns: int
    wasteful: frozenset[bytes]

    @property
    def trusted_before(self) -> int:
        """An entry with a change time before this, in nanoseconds, is as the parent recorded it."""
        return self.started_ns - _RACY


@dataclass(frozen=True)
class Captured:
    """What a capture leaves to be recorded."""

    listing: tuple[ListingChunk, ...]
    findings: tuple[Finding, ...]
    tally: Tally
    wasteful: tuple[bytes, ...]


class _Old:
    """A parent's entry."""

    __slots__ = ("position", "segment")

    def __init__(self, segment: Segment, position: int) -> None:
        self.segment = segment
        self.position = position


@dataclass(slots=True)
class _Scanned:
    """A directory that waits for its turn to be written down."""

    directory: Directory
    old: Sequence[Segment] = ()
    taken_over: Pending | None = None


class TreeCapture:
    """Carries one capture through. ``effective`` decides whether unchanged entries are read."""

    def __init__(
        self,
        writer: ChunkWriter,
        reader: ChunkReader,
        keys: Keys,
        effective: Effective,
        parent: Parent | None,
        *,
        subject: str,
        listener: Listener,
        expected: Statistics | None = None,
    ) -> None:
        """``expected``: those of the parent, by which progress is told."""
        self._writer = writer
        self._reader = reader
        self._effective = effective
        self._parent = parent
        self._subject = subject
        self._account = Account(subject, listener, expected)
        self._tally = self._account.tally
        self._read_before = 0
        """Bytes read for directories that are in ``bytes_total`` already."""
        self._links: dict[tuple[int, int], tuple[bytes, EntryContent, bytes, Extra | None]] = {}
        self._holds = Holdings(writer)
        self._bundler = Bundler(writer)
        self._small_files = SmallFiles(keys, self._bundler, self._holds, parent.wasteful if parent else frozenset())
        self._streamer = Streamer(writer)
        count_use = effective == "full"
        self._segments = SegmentQueue(writer, keys, self._bundler, self._streamer, count_use=count_use)

    def run(self, capture: Capture) -> Captured:
        """All of it. When it returns every chunk is handed in; ``ChunkWriter.flush`` makes them durable."""
        ahead: deque[_Scanned] = deque()
        try:
            for directory in capture.directories():
                scanned = _Scanned(directory)
                ahead.append(scanned)
                self._look(scanned)
                if len(ahead) > _AHEAD:
                    self._proceed(ahead.popleft())
            while ahead:
                self._proceed(ahead.popleft())
        finally:
            for scanned in ahead:
                scanned.directory.close()
        listing = self._segments.finish()
        damage = self._parent.cursor.damage if self._parent else None
        if damage is not None:
            message = f"the earlier listing can't be read any further, so the rest was read anew: {damage}"
            self._account.find(Finding("parent-damaged", "error", self._subject, message, damage.hint))
        return Captured(listing, self._account.findings(), self._tally, self._wasteful())

    def _look(self, scanned: _Scanned) -> None:
        """Compare a directory with the parent's; have read ahead what is sure to be read."""
        directory = scanned.directory
        if self._parent is not None:
            scanned.old = self._parent.cursor.directory(directory.path)
        scanned.taken_over = self._take_over(directory, scanned.old)
        if scanned.taken_over is None:
            directory.read_ahead(self._sure_to_read(directory, scanned.old))

    def _proceed(self, scanned: _Scanned) -> None:
        try:
            self._segments.add(scanned.taken_over or self._take(scanned.directory, scanned.old))
        finally:
            scanned.directory.close()
        self._read_before = self._tally.bytes_read
        self._segments.write_ready()
        self._report()

    def _sure_to_read(self, directory: Directory, old: Sequence[Segment]) -> list[int]:
        """The small files that will be read whatever the parent says, in order."""
        if directory.linked or (old and self._effective != "full"):
            return []
        columns = enumerate(zip(directory.attributes.mode, directory.attributes.size, strict=True))
        return [i for i, (mode, size) in columns if size < MIN_CHUNK and mode & _KIND == stat.S_IFREG]

    def _report(self) -> None:
        tally = self._tally
        self._account.report(tally.bytes_total + tally.bytes_read - self._read_before)

    # Unchanged directories.

    def _take_over(self, directory: Directory, old: Sequence[Segment]) -> Pending | None:
        """The parent's segment that lists exactly this, if nothing in it needs a look."""
        if not old or self._parent is None or self._effective == "full" or directory.linked:
            return None
        names = b"\0".join(directory.attributes.names)
        block = directory.attributes.encode()
        for segment in old:
            if (
                segment.names_block == names
                and segment.attributes_block == block
                and max(segment.ctime) < self._parent.trusted_before
                and all(map(self._holds, segment.chunk_ids()))
                and not any(extra.hard_link or extra.indirect for extra in segment.extras.values())
            ):
                self._account.count(segment.mode, sum(segment.size))
                return Pending(directory.path, raw=segment.raw, leading=directory.leading, entries=len(segment))
        return None

    # Directories with changes.

    def _take(self, directory: Directory, old: Sequence[Segment]) -> Pending:
        before = {name: _Old(segment, i) for segment in old for i, name in enumerate(segment.names)}
        pending = Pending(directory.path, directory.attributes, leading=directory.leading)
        for position, name in enumerate(directory.attributes.names):
            try:
                content, content_hash, extra = self._entry(directory, position, before.get(name))
            except Unreadable as error:
                self._account.find(error.finding)
                continue
            if extra is not None:
                pending.extras[len(pending.kept)] = extra
            pending.kept.append(position)
            pending.contents.append(content)
            pending.hashes += content_hash
        attributes = directory.attributes
        again = {i for i, extra in pending.extras.items() if extra.hard_link is not None}
        self._account.count(
            (attributes.mode[position] for position in pending.kept),
            sum(attributes.size[position] for i, position in enumerate(pending.kept) if i not in again),
        )
        pending.entries = len(pending.kept)
        return pending

    def _entry(self, directory: Directory, position: int, old: _Old | None) -> tuple[EntryContent, bytes, Extra | None]:
        if old is not None and self._unchanged(directory.attributes, position, old):
            kept = self._kept(old)
            if directory.attributes.mode[position] & _KIND != stat.S_IFREG:
                return [], NO_HASH, kept
            if self._effective != "full" and self._holds_content(old) and position not in directory.linked:
                return old.segment.extents(old.position), old.segment.content_hash(old.position), kept
        if directory.attributes.mode[position] & _KIND != stat.S_IFREG:
            return [], NO_HASH, _extra(directory.describe(position))
        if position in directory.linked:
            return self._linked(directory, position, old)
        return self._read(directory, position, old)

    def _unchanged(self, now: Attributes, i: int, old: _Old) -> bool:
        segment, j = old.segment, old.position
        return (
            now.ctime[i] == segment.ctime[j]
            and now.inode[i] == segment.inode[j]
            and now.size[i] == segment.size[j]
            and now.mtime[i] == segment.mtime[j]
            and now.mode[i] == segment.mode[j]
            and self._parent is not None
            and now.ctime[i] < self._parent.trusted_before
        )

    def _kept(self, old: _Old) -> Extra | None:
        return old.segment.extras.get(old.position)

    def _holds_content(self, old: _Old) -> bool:
        direct = old.segment.extents(old.position)
        if not all(extent.chunk_id is None or self._holds(extent.chunk_id) for extent in direct):
            return False
        kept = self._kept(old)
        if kept is None or not kept.indirect:
            return True
        try:
            rows = content_extents(self._reader, old.segment, old.position)
            return all(extent.chunk_id is None or self._holds(extent.chunk_id) for extent in rows)
        except Damaged:
            return False

    def _linked(
        self, directory: Directory, position: int, old: _Old | None
    ) -> tuple[EntryContent, bytes, Extra | None]:
        """One name of a file that has several: its content is taken once, at the first name."""
        identity = directory.linked[position]
        first = self._links.get(identity)
        if first is not None:
            path, first_content, content_hash, extra = first
            return first_content, content_hash, replace(extra or NOTHING_EXTRA, hard_link=path)
        usable = (
            old is not None
            and self._effective != "full"
            and self._unchanged(directory.attributes, position, old)
            and self._holds_content(old)
        )
        content: EntryContent
        if usable and old is not None:
            content = old.segment.extents(old.position)
            content_hash = old.segment.content_hash(old.position)
            kept = self._kept(old)
            extra = replace(kept, hard_link=None) if kept else None
        else:
            content, content_hash, extra = self._read(directory, position, old)
        path = directory.path + b"/" + directory.attributes.names[position]
        self._links[identity] = (path.lstrip(b"/"), content, content_hash, extra)
        return content, content_hash, extra

    # Content.

    def _read(self, directory: Directory, position: int, old: _Old | None) -> tuple[EntryContent, bytes, Extra | None]:
        if directory.attributes.size[position] < MIN_CHUNK:
            room = self._bundler.room()
            size, description, finding = directory.read_small(position, room)
            if finding is not None:
                self._account.find(finding)
            if size >= 0:
                self._tally.files_read += 1
                self._tally.bytes_read += size
                known = (old.segment, old.position) if old is not None else None
                content, content_hash = self._small_files.place(room, size, known)
                return content, content_hash, _extra(description)
        extra = _extra(directory.describe(position))
        opened = directory.open(position)
        try:
            self._tally.files_read += 1
            stream = self._streamer.read(self._reading(opened), opened.parts(), opened.size(), opened.block_size)
        finally:
            finding = opened.close()
        if finding is not None:
            self._account.find(finding)
        return stream, NO_HASH, extra

    def _reading(self, content: Content) -> ReadInto:
        def read_into(offset: int, view: memoryview) -> int:
            count = content.read_into(offset, view)
            self._tally.bytes_read += count
            self._report()
            return count

        return read_into

    def _wasteful(self) -> tuple[bytes, ...]:
        """Bundles that this capture uses less than half of; what the parent knew, where this one did not look."""
        if self._effective == "full":
            return self._segments.wasteful()
        return tuple(sorted(self._parent.wasteful)) if self._parent else ()


def _extra(description: Description) -> Extra | None:
    if description is PLAIN:
        return None
    return Extra(description.link_target, None, description.device, description.xattrs)
