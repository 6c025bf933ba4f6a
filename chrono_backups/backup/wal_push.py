"""Archiving one file of a server's log: ``archive_command``.

What is stored counts as archived, so that the server may remove it: nothing is taken for stored that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from chrono_backups.errors import SourceError, UsageError
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive, moment_bytes
from chrono_backups.repository.wal_names import (
    PieceName,
    Segment,
    history_timeline,
    is_backup_label,
    is_segment,
    parse_history,
    partial_segment,
)
from chrono_backups.repository.wal_pages import SegmentHeader, filled_size, segment_header

Outcome = Literal["stored", "present", "not needed"]


@dataclass(frozen=True)
class Pushed:
    """What became of a file."""

    name: str
    outcome: Outcome
    system_identifier: str | None


def push(repository: Repository, path: Path, system_identifier: str | None) -> Pushed:
    """Store a file that the server is done with.

    A history does not tell which cluster it is of: ``system_identifier`` has to. Raises ``SourceError`` where the
    file is not what its name says, ``RepositoryError`` where the archive holds another one of that name,
    ``UsageError`` for any other file.
    """
    name = path.name
    if is_backup_label(name):  # it notes that a base backup was taken; no recovery asks for it
        return Pushed(name, "not needed", None)
    try:
        content = path.read_bytes()
        moment = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise SourceError(
            f"{path} can't be read: {error.strerror}", source="postgres", hint="The server gives its path as %p."
        ) from error
    timeline = history_timeline(name)
    if timeline is not None:
        return _push_history(repository, name, timeline, content, system_identifier)
    segment = name if is_segment(name) else partial_segment(name)
    if segment is None:
        raise UsageError(f"{name} is no file of a server's log", hint="archive_command = 'chrono-backups wal-push %p'")
    header = _checked(path, segment, content, system_identifier)
    archive = WalArchive(repository, header.system_identifier)
    if segment == name:
        stored = archive.put_segment(name, moment_bytes(moment) + content)
    else:
        # What a promoted server has of the segment in which it left the timeline.
        end = filled_size(content)
        stored = archive.put_piece(PieceName(segment.lower(), 0, end), moment_bytes(moment) + content[:end])
    return Pushed(name, "stored" if stored else "present", header.system_identifier)


def _push_history(
    repository: Repository, name: str, timeline: int, content: bytes, system_identifier: str | None
) -> Pushed:
    if system_identifier is None:
        raise UsageError(
            f"{name} does not tell which cluster it is of",
            hint="Let the server run this in its data directory, or name the cluster with --system-identifier.",
        )
    try:
        parse_history(content)
    except ValueError as error:
        raise SourceError(f"{name} is no timeline's history: {error}", source="postgres") from error
    stored = WalArchive(repository, system_identifier).put_history(timeline, content)
    return Pushed(name, "stored" if stored else "present", system_identifier)


def _checked(path: Path, name: str, content: bytes, system_identifier: str | None) -> SegmentHeader:
    """The header of a segment's file, which is what the name says."""
    try:
        header = segment_header(content)
        segment = Segment.parse(name, header.segment_size)
    except ValueError as error:
        raise SourceError(f"{path} is no WAL segment: {error}", source="postgres") from error
    expected = (
        ("bytes", header.segment_size, len(content)),
        ("position", segment.start(header.segment_size), header.position),
        ("system identifier", system_identifier or header.system_identifier, header.system_identifier),
    )
    for what, wanted, found in expected:
        if wanted != found:
            raise SourceError(
                f"{path} is not the segment {name}: its {what} is {found}, not {wanted}",
                source="postgres",
                hint="Look at the server's disk; the file is not archived.",
            )
    if header.timeline > segment.timeline:
        raise SourceError(f"{path} is of timeline {header.timeline}, not {segment.timeline}", source="postgres")
    return header
