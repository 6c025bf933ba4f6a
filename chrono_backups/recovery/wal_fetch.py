"""Giving a server that recovers the WAL it asks for: ``restore_command``.

The server takes a file that can't be had for the end of the log, and opens for writing. So only what is certainly not
archived may be answered so: not what a storage does not give out just now, nor what is damaged, nor a hole in the log
behind which more is archived.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from chrono_backups.errors import ObjectMissing, RestoreError, UsageError
from chrono_backups.recovery.postgres.conf_files import effective
from chrono_backups.recovery.postgres.target import TARGETS
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import StoredWal, WalArchive
from chrono_backups.repository.wal_names import Lineage, Segment, history_timeline, is_segment
from chrono_backups.repository.wal_pages import segment_header

_CONTROL_FILE = "global/pg_control"


def data_directory(target: Path) -> Path:
    """Of the server whose ``pg_wal`` holds ``target``; by its words, as ``pg_wal`` may be a link."""
    return Path(os.path.dirname(os.path.dirname(os.path.abspath(target))))


def system_of(directory: Path) -> str | None:
    """The system identifier of the cluster in that data directory; None where there is none."""
    try:
        with (directory / _CONTROL_FILE).open("rb") as file:
            first = file.read(8)
    except OSError:
        return None
    number = int.from_bytes(first, "little")
    return str(number) if len(first) == 8 and number else None


def archive_for(repository: Repository, system_identifier: str | None, directory: Path) -> WalArchive:
    """The archive of the cluster that is named, or that lies in ``directory``, or the only one.

    Raises ``UsageError`` where that is not certain.
    """
    system = system_identifier or system_of(directory)
    if system is None:
        systems = sorted(WalArchive.systems(repository))
        if len(systems) > 1:
            raise UsageError(
                f"which cluster? WAL is archived of {', '.join(systems)}",
                hint="Name it with --system-identifier, or let the server run this in its data directory.",
            )
        system = systems[0] if systems else "0"
    return WalArchive(repository, system)


def find(archive: WalArchive, name: str, target: Path) -> StoredWal | bytes | None:
    """What is archived by that name: a segment, as far as it is stored, or a history; None for what is not.

    Raises ``RestoreError`` where the server must not go on without it; ``Damaged``; ``StorageError``.
    """
    timeline = history_timeline(name)
    if timeline is not None:
        with suppress(ObjectMissing):
            return archive.read_history(timeline)
    if timeline is not None or not is_segment(name):
        return None
    found: StoredWal | None = None
    with suppress(ObjectMissing):
        found = archive.read_segment(name)
    if found is not None and (found.whole or _stops_by_itself(data_directory(target))):
        return found
    if not _is_optional(archive, name, target):
        following = _stored_behind(archive, name)
        if following is not None:
            with suppress(ObjectMissing):  # it may have been stored meanwhile
                return archive.read_whole_segment(name)
            raise _gap(name, following, in_part=found is not None)
    return found


def _stops_by_itself(directory: Path) -> bool:
    """Whether the server in ``directory`` never takes the end of what it gets for the end of its recovery: it waits for
    more as a standby, and fails where it was given a target and has not reached it.
    """
    if (directory / "standby.signal").exists():
        return True
    known = effective(directory)
    return any(known.get(name) for name in TARGETS)


def _is_optional(archive: WalArchive, name: str, target: Path) -> bool:
    """Whether the server has the segment itself, or can get it from another one."""
    if (data_directory(target) / "standby.signal").exists():
        return True
    try:
        with (target.parent / name).open("rb") as file:
            header = segment_header(file.read(64))
    except (OSError, ValueError):
        return False
    number = Segment.parse(name, header.segment_size).number
    return header.position == number * header.segment_size and header.system_identifier == archive.system_identifier


def _stored_behind(archive: WalArchive, name: str) -> str | None:
    """A segment that is archived and follows on the missing one: on its timeline, or on one that leads on from it."""
    contents = archive.contents()
    stored = (*contents.segments, *contents.pieces)
    later = min((one for one in stored if one[:8] == name[:8].lower() and one > name.lower()), default=None)
    if later is not None:
        return later
    begun_later = [timeline for timeline in contents.histories if timeline > int(name[:8], 16)]
    size = archive.segment_size(contents) if begun_later else None
    if size is None:
        return None
    missing = Segment.parse(name, size)
    for timeline in begun_later:
        lineage = Lineage(timeline, archive.ancestors(timeline), size)
        of_it = [one for one in stored if int(one[:8], 16) == timeline]
        if of_it and lineage.segment(missing.number) == missing:
            return min(of_it)
    return None


def _gap(name: str, following: str, *, in_part: bool) -> RestoreError:
    missing = f"the end of {name}" if in_part else name
    return RestoreError(
        f"{missing} is missing from the archive, and {following.upper()} and what follows is there",
        hint="Recover to a target before the gap (`chrono-backups recovery-points`), or put the segment at hand "
        "into pg_wal.",
    )


def write(content: StoredWal | bytes, target: Path) -> None:
    """Put it at ``target``, whole or not at all. The server asks anew after a crash, so nothing is flushed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb", buffering=0) as file:
            left = memoryview(content if isinstance(content, bytes) else content.content)
            while left:
                left = left[file.write(left) :]
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
