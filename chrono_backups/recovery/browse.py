"""Looking into a backup without restoring it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from chrono_backups.errors import Damaged, EntryMissing
from chrono_backups.repository.listing import Segment, order
from chrono_backups.repository.listings import content_extents, read_below, read_listing
from chrono_backups.repository.records import Manifest, Snapshot
from chrono_backups.repository.repository import Repository

Kind = Literal["file", "directory", "symlink", "fifo", "device", "other"]

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_ZEROS = bytes(1024 * 1024)


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """One entry of a backup. ``path`` is absolute; ``mode`` is ``st_mode``; times in nanoseconds since 1970."""

    source: str
    path: bytes
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    link_target: bytes | None
    hard_link: bytes | None


@dataclass(frozen=True, slots=True)
class Difference:
    """How an entry differs between two backups. Sizes are None where it is not there."""

    source: str
    path: bytes
    change: Literal["added", "removed", "content", "attributes", "type"]
    old_size: int | None
    new_size: int | None


def kind_of(mode: int) -> Kind:
    """What an ``st_mode`` is of."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


def join(directory: bytes, name: bytes) -> bytes:
    """The path, relative to the source's root, of a directory's entry."""
    return directory + b"/" + name if directory else name


def _clean(path: str | bytes) -> bytes:
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return b"/".join(part for part in raw.split(b"/") if part not in {b"", b"."})


def _snapshots(repository: Repository, manifest: Manifest, source: str | None) -> list[Snapshot]:
    if source is not None and manifest.snapshot(source) is None:
        held = ", ".join(one.source for one in manifest.snapshots)
        raise EntryMissing(f"{manifest.backup_id} has no source {source}", hint=f"It has {held}.")
    chosen = [one for one in manifest.snapshots if source is None or one.source == source]
    return [repository.snapshot(one.snapshot_id) for one in chosen]


def _entry(source: str, segment: Segment, position: int) -> ListedEntry:
    extra = segment.extras.get(position)
    return ListedEntry(
        source,
        b"/" + join(segment.path, segment.names[position]),
        kind_of(segment.mode[position]),
        segment.size[position],
        segment.mode[position],
        segment.uid[position],
        segment.gid[position],
        segment.mtime[position],
        extra.link_target if extra else None,
        b"/" + extra.hard_link if extra and extra.hard_link else None,
    )


def entries(
    repository: Repository,
    backup_id: str,
    path: str | bytes = "/",
    *,
    source: str | None = None,
    recursive: bool = False,
) -> Iterator[ListedEntry]:
    """The entries of a directory, with ``recursive`` of all below it; or the one entry of a path.

    Raises ``BackupMissing``, ``EntryMissing`` or ``Damaged``.
    """
    wanted = _clean(path)
    found = False
    for snapshot in _snapshots(repository, repository.backup(backup_id), source):
        here = False
        for segment in read_below(repository.reader, snapshot.listing, wanted):
            if segment.path != wanted and not recursive:
                break
            here = True
            for position in range(len(segment)):
                yield _entry(snapshot.source, segment, position)
        if not here and wanted:
            place = _find(repository, snapshot, wanted)
            if place is not None:
                here = True
                if not stat.S_ISDIR(place[0].mode[place[1]]):
                    yield _entry(snapshot.source, *place)
        found = found or here
    if not found and wanted:
        raise _missing(backup_id, wanted)


def _find(repository: Repository, snapshot: Snapshot, path: bytes) -> tuple[Segment, int] | None:
    directory, _, name = path.rpartition(b"/")
    for segment in read_listing(repository.reader, snapshot.listing, directory):
        if segment.path != directory:
            return None
        if name in segment.names:
            return segment, segment.names.index(name)
    return None


def _missing(backup_id: str, path: bytes) -> EntryMissing:
    shown = (b"/" + path).decode("utf-8", "backslashreplace")
    return EntryMissing(f"{backup_id} has no {shown!r}", hint=f"See `chrono-backups ls {backup_id} --recursive`.")


def read_file(
    repository: Repository, backup_id: str, path: str | bytes, *, source: str | None = None
) -> Iterator[bytes | bytearray | memoryview]:
    """The content of one file, piece by piece.

    Raises ``EntryMissing`` before the first piece, also for what is no regular file; ``Damaged``.
    """
    wanted = _clean(path)
    manifest = repository.backup(backup_id)
    for snapshot in _snapshots(repository, manifest, source):
        place = _find(repository, snapshot, wanted)
        if place is not None:
            segment, position = place
            kind = kind_of(segment.mode[position])
            if kind != "file":
                shown = (b"/" + wanted).decode("utf-8", "backslashreplace")
                raise EntryMissing(f"{shown!r} is a {kind}, not a file")
            return _content(repository, segment, position)
    raise _missing(manifest.backup_id, wanted)


def _content(repository: Repository, segment: Segment, position: int) -> Iterator[bytes | bytearray | memoryview]:
    extents = list(content_extents(repository.reader, segment, position))
    contents = repository.reader.stream(extent.chunk_id for extent in extents if extent.chunk_id is not None)
    for extent in extents:
        if extent.chunk_id is None:
            left = extent.length
            while left:
                piece = min(left, len(_ZEROS))
                yield memoryview(_ZEROS)[:piece]
                left -= piece
            continue
        content = next(contents)
        if isinstance(content, Damaged):
            raise content
        yield memoryview(content)[extent.offset : extent.offset + extent.length]


def diff(repository: Repository, older_id: str, newer_id: str) -> Iterator[Difference]:
    """What changed from one backup to another, source by source, in the order of paths.

    A source that only one of them has is not compared. Raises ``BackupMissing``, ``Damaged``.
    """
    older, newer = repository.backup(older_id), repository.backup(newer_id)
    for summary in newer.snapshots:
        before = older.snapshot(summary.source)
        if before is not None:
            old = repository.snapshot(before.snapshot_id)
            new = repository.snapshot(summary.snapshot_id)
            yield from _differences(repository, summary.source, old, new)


def _differences(repository: Repository, source: str, old: Snapshot, new: Snapshot) -> Iterator[Difference]:
    left, right = (_flat(repository, snapshot) for snapshot in (old, new))
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None
            yield Difference(source, b"/" + one[1], "removed", one[2].size[one[3]], None)
            one = next(left, None)
        elif one is None or two[0] < one[0]:
            yield Difference(source, b"/" + two[1], "added", None, two[2].size[two[3]])
            two = next(right, None)
        else:
            found = _compare(source, one, two)
            if found is not None:
                yield found
            one, two = next(left, None), next(right, None)


_Place = tuple[tuple[bytes, bytes], bytes, Segment, int]


def _flat(repository: Repository, snapshot: Snapshot) -> Iterator[_Place]:
    for segment in read_listing(repository.reader, snapshot.listing):
        for position, name in enumerate(segment.names):
            yield (order(segment.path), name), join(segment.path, name), segment, position


def _compare(source: str, one: _Place, two: _Place) -> Difference | None:
    old, i, new, j = one[2], one[3], two[2], two[3]
    sizes = (old.size[i], new.size[j])
    if stat.S_IFMT(old.mode[i]) != stat.S_IFMT(new.mode[j]):
        return Difference(source, b"/" + two[1], "type", *sizes)
    before, after = old.extras.get(i), new.extras.get(j)
    if sizes[0] != sizes[1] or old.content_hash(i) != new.content_hash(j):
        return Difference(source, b"/" + two[1], "content", *sizes)
    attributes = [(one.mode[at], one.uid[at], one.gid[at], one.mtime[at]) for one, at in ((old, i), (new, j))]
    links = [
        (extra.link_target, extra.xattrs, extra.device) if extra else (None, {}, None) for extra in (before, after)
    ]
    if attributes[0] != attributes[1] or links[0] != links[1]:
        return Difference(source, b"/" + two[1], "attributes", *sizes)
    return None
