"""Where the receiving of WAL goes on: behind what is stored, and never ahead of what the slot keeps without need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from chrono_backups.repository.wal_archive import Contents
from chrono_backups.repository.wal_names import Lineage, Segment


@dataclass(frozen=True)
class Start:
    """A segment to begin with, and how much of it is stored already."""

    segment: Segment
    stored: int
    gap: tuple[str, str] | None = None
    """First and last name of segments that would be missing between what is stored and this one."""


def starts(
    lineage: Lineage, contents: Contents, kept_from: int, end: int, queued: Callable[[str], bool]
) -> Iterator[Start]:
    """Where to begin, the best first; a server that has not the WAL of one is asked for the next.

    ``kept_from``: the position that the slot keeps; ``end``: the end of the server's log; ``queued`` tells the segments
    that are on their way to the archive.
    """
    size = lineage.segment_size
    stored = set(_numbers(lineage, contents.segments, end))

    def known(number: int) -> bool:
        return number in stored or queued(lineage.segment(number).name(size).lower())

    def behind(number: int) -> int:
        while known(number):
            number += 1
        return number

    first = kept_from // size
    begun = (number for number in _numbers(lineage, contents.pieces, end) if number < first)
    last = max((*begun, *(number + 1 for number in stored if number < first)), default=first)
    gap = None
    if behind(last) < first:
        yield _start(lineage, contents, behind(last), None)
        gap = (lineage.segment(behind(last)).name(size), lineage.segment(first - 1).name(size))
    yield _start(lineage, contents, behind(first), gap)


def _start(lineage: Lineage, contents: Contents, number: int, gap: tuple[str, str] | None) -> Start:
    segment = lineage.segment(number)
    return Start(segment, contents.reach(segment.name(lineage.segment_size).lower()), gap)


def _numbers(lineage: Lineage, names: Iterable[str], end: int) -> Iterator[int]:
    """The numbers of those segments that are on the way to this timeline, and not behind ``end``."""
    for name in names:
        segment = Segment.parse(name, lineage.segment_size)
        if segment == lineage.segment(segment.number) and segment.number <= end // lineage.segment_size:
            yield segment.number


def stored_end(lineage: Lineage, contents: Contents) -> int:
    """The newest stored position on this very timeline; 0 where nothing of it is stored."""
    size = lineage.segment_size
    found = 0
    for name in contents.segments:
        segment = Segment.parse(name, size)
        if segment.timeline == lineage.timeline:
            found = max(found, segment.next.start(size))
    for name in contents.pieces:
        segment = Segment.parse(name, size)
        if segment.timeline == lineage.timeline:
            found = max(found, segment.start(size) + contents.reach(name))
    return found
