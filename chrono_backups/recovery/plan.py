"""What a restore will do, before it does anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrono_backups.errors import EntryMissing, InsufficientSpace, TargetNotEmpty, UsageError
from chrono_backups.recovery.browse import join
from chrono_backups.repository.listing import Segment
from chrono_backups.repository.listings import read_listing
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.configuration import FOLDER
from chrono_backups.sources.patterns import Selection

STAGING = ".chrono-restore-"
"""What the names of our temporary folders and files start with."""
IN_PLACE_BATCH = 256 * 1024 * 1024
"""Bytes written beside existing files before they take their place together."""
_CONFLICTS_SHOWN = 20
_TREES = frozenset({"files", "configuration"})
"""What has a place in a file system to go back to: what else is in place is a server's."""
_RESTORED: tuple[str, ...] = ("postgres", "redis", "meilisearch", "files", "configuration")


@dataclass(frozen=True)
class RestoreSource:
    """One source of the plan, and where it goes."""

    source: str
    snapshot_id: str
    destination: Path
    files: int
    directories: int
    others: int
    bytes: int


@dataclass(frozen=True)
class Elsewhere:
    """A directory of the backup that goes to a place of its own."""

    path: Path
    bytes_needed: int
    bytes_free: int
    conflicts: tuple[str, ...]


@dataclass(frozen=True)
class RestorePlan:
    """A restore, computed and not yet carried out."""

    backup_id: str
    target: Path
    in_place: bool
    sources: tuple[RestoreSource, ...]
    patterns: tuple[str, ...]
    bytes_needed: int
    bytes_free: int
    conflicts: tuple[str, ...]
    """Existing things that stand in the way; the restore is refused while there are any."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """What does not go below ``target``, and is not counted in ``bytes_needed``."""

    @property
    def files(self) -> int:
        return sum(one.files for one in self.sources)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.sources)

    def check(self) -> None:
        """Raises ``TargetNotEmpty`` or ``InsufficientSpace`` where the plan can't be carried out."""
        if self.conflicts:
            named = ", ".join(self.conflicts[:3]) + (", …" if len(self.conflicts) > 3 else "")
            if self.in_place:
                raise TargetNotEmpty(f"in the way: {named}", hint="Move it away, then restore again.")
            raise TargetNotEmpty(
                f"{self.target} is not empty: {named}",
                hint="Name an empty or new directory, or use --in-place to put data back where it was.",
            )
        for place in self.elsewhere:
            if place.conflicts:
                named = ", ".join(place.conflicts[:3])
                raise TargetNotEmpty(f"{place.path} is not empty: {named}", hint="Name an empty or new directory.")
        for path, needed, free in self._room():
            if needed > free:
                raise InsufficientSpace(
                    f"the restore needs {needed} bytes and {path} has {free} free",
                    hint="Free some space, name another place, or restore less with --source and --path.",
                )

    def _room(self) -> Iterator[tuple[Path, int, int]]:
        """Of each file system: a place in it, the bytes that it needs and those that it has."""
        places = [(self.target, self.bytes_needed, self.bytes_free)]
        places += [(one.path, one.bytes_needed, one.bytes_free) for one in self.elsewhere]
        together: dict[int, tuple[Path, int, int]] = {}
        for path, needed, free in places:
            device = os.stat(_existing(path)).st_dev
            first, before, room = together.get(device, (path, 0, free))
            together[device] = first, before + needed, room
        yield from together.values()

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "target": str(self.target),
            "in_place": self.in_place,
            "sources": [
                {
                    "source": one.source,
                    "destination": str(one.destination),
                    "files": one.files,
                    "directories": one.directories,
                    "others": one.others,
                    "bytes": one.bytes,
                }
                for one in self.sources
            ],
            "patterns": list(self.patterns),
            "bytes_needed": self.bytes_needed,
            "bytes_free": self.bytes_free,
            "conflicts": list(self.conflicts),
            "elsewhere": [
                {"path": str(one.path), "bytes_needed": one.bytes_needed, "bytes_free": one.bytes_free}
                for one in self.elsewhere
            ],
        }


@dataclass
class _Sum:
    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0
    growth: int = 0


def selected(segments: Iterator[Segment], selection: Selection) -> Iterator[tuple[Segment, list[int]]]:
    """Each segment with the positions of its selected entries; segments without any are left out."""
    for segment in segments:
        if selection.everything:
            yield segment, list(range(len(segment)))
            continue
        chosen = [
            position for position, name in enumerate(segment.names) if selection.takes(b"/" + join(segment.path, name))
        ]
        if chosen:
            yield segment, chosen


def restorable(segments: Iterator[Segment], source: str, *, in_place: bool) -> Iterator[Segment]:
    """The segments without those that have no place to go back to: what servers said of their configuration."""
    for segment in segments:
        made = segment.path.split(b"/")[0] == FOLDER or (not segment.path and segment.names == [FOLDER])
        if not (in_place and source == "configuration" and made):
            yield segment


def plan_restore(
    repository: Repository,
    backup_id: str,
    target: Path | None,
    *,
    sources: Sequence[str] = (),
    patterns: Sequence[str] = (),
    in_place: bool = False,
    placed: Mapping[bytes, Path] | None = None,
    captures: Mapping[str, Manifest] | None = None,
) -> RestorePlan:
    """Compute a restore: to ``target``, a new or empty directory; or ``in_place``, to where it was.

    ``placed``: directory of the backup → where it goes instead. ``captures``: source → the backup whose capture of it
    is restored, where it is another one.

    Reads listings only and changes nothing. Raises ``BackupMissing``, ``EntryMissing`` where nothing is
    selected, ``UsageError``, ``Damaged``.
    """
    if in_place == (target is not None):
        raise UsageError("a restore goes either to a directory or in place", hint="Use --to DIR or --in-place.")
    manifest = repository.backup(backup_id)
    root = Path("/") if target is None else Path(os.path.abspath(target))
    selection = Selection(patterns)
    planned, growth, conflicts, apart = [], 0, list[str](), dict.fromkeys(placed or {}, 0)
    chosen = [one for one in captures if one in _RESTORED] if captures else _chosen(manifest, sources)
    for name in [one for one in chosen if not in_place or one in _TREES]:
        summary = (captures or {}).get(name, manifest).snapshot(name)
        assert summary is not None
        destination = root if in_place else root / name
        total = _Sum()
        snapshot = repository.snapshot(summary.snapshot_id)
        segments = restorable(read_listing(repository.reader, snapshot.listing), name, in_place=in_place)
        for segment, positions in selected(segments, selection):
            _add(total, segment, positions, apart)
            if in_place:
                _compare_in_place(total, segment, positions, conflicts)
        if total.files or total.directories or total.others:
            planned.append(
                RestoreSource(
                    name, summary.snapshot_id, destination, total.files, total.directories, total.others, total.bytes
                )
            )
            growth += total.growth if in_place else total.bytes
    if not planned:
        raise EntryMissing(
            f"nothing in {manifest.backup_id} is selected by {', '.join([*sources, *patterns]) or 'that'}",
            hint=f"See `chrono-backups ls {manifest.backup_id} --recursive`.",
        )
    if not in_place:
        conflicts = _occupants(root)
    elif growth:
        growth += IN_PLACE_BATCH
    return RestorePlan(
        manifest.backup_id,
        root,
        in_place,
        tuple(planned),
        tuple(patterns),
        growth - sum(apart.values()),
        _free(root),
        tuple(conflicts),
        tuple(
            Elsewhere(path, apart[one], _free(path), tuple(_occupants(path))) for one, path in (placed or {}).items()
        ),
    )


def _chosen(manifest: Manifest, sources: Sequence[str]) -> list[str]:
    held = [one.source for one in manifest.snapshots]
    for name in sources:
        if name not in held:
            why = manifest.failures.get(name)
            message = f"{manifest.backup_id} has no source {name}" + (f": {why}" if why else "")
            raise EntryMissing(message, hint=f"It has {', '.join(held)}.")
    return [name for name in held if name in _RESTORED and (not sources or name in sources)]


def _add(total: _Sum, segment: Segment, positions: Sequence[int], apart: dict[bytes, int]) -> None:
    """Count a segment; ``apart`` has directories whose bytes are counted by themselves as well."""
    home = next((one for one in apart if segment.path == one or segment.path.startswith(one + b"/")), None)
    before = total.bytes
    for position in positions:
        mode = segment.mode[position]
        if stat.S_ISREG(mode):
            total.files += 1
            extra = segment.extras.get(position)
            if extra is None or extra.hard_link is None:
                total.bytes += segment.size[position]
        elif stat.S_ISDIR(mode):
            total.directories += 1
        else:
            total.others += 1
    if home is not None:
        apart[home] += total.bytes - before


def _compare_in_place(total: _Sum, segment: Segment, positions: Sequence[int], conflicts: list[str]) -> None:
    """Add how much the files will grow, and note directories where files go and the reverse."""
    for position in positions:
        path = b"/" + join(segment.path, segment.names[position])
        try:
            found = os.lstat(path)
        except OSError:
            total.growth += segment.size[position]
            continue
        total.growth += max(0, segment.size[position] - found.st_size) if stat.S_ISREG(found.st_mode) else 0
        if stat.S_ISDIR(found.st_mode) != stat.S_ISDIR(segment.mode[position]) and len(conflicts) < _CONFLICTS_SHOWN:
            conflicts.append(path.decode("utf-8", "backslashreplace"))


def _occupants(target: Path) -> list[str]:
    """What a target holds, staging of killed restores aside."""
    try:
        return sorted(name for name in os.listdir(target) if not name.startswith(STAGING))[:_CONFLICTS_SHOWN]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        return [f"{target} is no directory"]


def _free(target: Path) -> int:
    """Bytes free in the file system that ``target`` is or will be in."""
    found = os.statvfs(_existing(target))
    return found.f_bavail * found.f_frsize


def _existing(place: Path) -> Path:
    """``place``, or the nearest directory above it that is there."""
    while not place.exists():
        place = place.parent
    return place
