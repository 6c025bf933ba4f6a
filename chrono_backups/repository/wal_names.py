"""Names and positions of write-ahead log (WAL), as PostgreSQL says them, and names of its objects.

A position (LSN) is the number of a byte since the cluster was made, written as ``2/A0000158``. The log is cut into
segments of one size, a power of two from 1 MiB to 1 GiB; a segment's name is its timeline and its number, three times
eight hexadecimal digits. Where the number is split depends on the size (PostgreSQL's ``XLogFileName``).

An object is named ``SYSTEM/SEGMENT``, ``SYSTEM/SEGMENT.START-END`` (a piece: bytes from START up to END of a segment)
or ``SYSTEM/TIMELINE.history``, in lower case, where SYSTEM is the cluster's system identifier in decimal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from chrono_backups.identifiers import lsn_number

SEGMENT_SIZES = tuple(1 << power for power in range(20, 31))
_LOG_SIZE = 1 << 32
_SEGMENT = re.compile(r"[0-9A-F]{24}", re.IGNORECASE)
_PIECE = re.compile(r"([0-9a-f]{24})\.([0-9a-f]{8})-([0-9a-f]{8})")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history", re.IGNORECASE)
_PARTIAL = re.compile(r"([0-9A-F]{24})\.partial", re.IGNORECASE)
_LABEL = re.compile(r"[0-9A-F]{24}\.[0-9A-F]{8}\.backup", re.IGNORECASE)


class Segment(NamedTuple):
    """One segment: timeline and number. Ordered as they are."""

    timeline: int
    number: int

    @classmethod
    def parse(cls, name: str, size: int) -> Segment:
        """The segment of that name, upper or lower case, where segments have that size. Raises ``ValueError``."""
        if not is_segment(name):
            raise ValueError(f"{name!r} is no name of a WAL segment")
        in_log = int(name[16:], 16)
        if in_log >= _LOG_SIZE // size:
            raise ValueError(f"{name} is no name of a WAL segment of {size} bytes")
        return cls(int(name[:8], 16), int(name[8:16], 16) * (_LOG_SIZE // size) + in_log)

    @classmethod
    def at(cls, timeline: int, position: int, size: int) -> Segment:
        """The segment that the byte at ``position`` is in."""
        return cls(timeline, position // size)

    def name(self, size: int) -> str:
        """As PostgreSQL names the file."""
        log, in_log = divmod(self.number, _LOG_SIZE // size)
        return f"{self.timeline:08X}{log:08X}{in_log:08X}"

    def start(self, size: int) -> int:
        """The position of its first byte."""
        return self.number * size

    @property
    def next(self) -> Segment:
        """The one behind it, on the same timeline."""
        return Segment(self.timeline, self.number + 1)


def is_segment(name: str) -> bool:
    """Whether a file of that name holds a whole segment."""
    return _SEGMENT.fullmatch(name) is not None


def history_timeline(name: str) -> int | None:
    """The timeline whose history a file of that name holds; None where it holds none."""
    found = _HISTORY.fullmatch(name)
    return int(found[1], 16) if found else None


def partial_segment(name: str) -> str | None:
    """The segment that ``SEGMENT.partial`` is the beginning of; None for any other name."""
    found = _PARTIAL.fullmatch(name)
    return found[1] if found else None


def is_backup_label(name: str) -> bool:
    """Whether a file of that name only notes that a base backup was taken."""
    return _LABEL.fullmatch(name) is not None


@dataclass(frozen=True, order=True)
class PieceName:
    """A part of a segment: bytes from ``start`` up to ``end``."""

    segment: str
    """Lower case."""
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.segment}.{self.start:08x}-{self.end:08x}"


def history_name(timeline: int) -> str:
    """The object's name, without the system."""
    return f"{timeline:08x}.history"


def piece_name(name: str) -> PieceName | None:
    """The piece that an object's name (without the system) tells of; None where it tells of none."""
    found = _PIECE.fullmatch(name)
    if found is None:
        return None
    piece = PieceName(found[1], int(found[2], 16), int(found[3], 16))
    return piece if piece.start < piece.end <= SEGMENT_SIZES[-1] else None


class Switch(NamedTuple):
    """One line of a timeline's history: up to ``position`` it was the log of ``timeline``."""

    timeline: int
    position: int


def parse_history(content: bytes) -> tuple[Switch, ...]:
    """The ancestors of a timeline, the oldest first (PostgreSQL's ``readTimeLineHistory``). Raises ``ValueError``."""
    found: list[Switch] = []
    for raw in content.decode("utf-8", "replace").splitlines():
        words = raw.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) < 2 or not words[0].isdigit():
            raise ValueError(f"{raw!r} is no line of a timeline's history")
        switch = Switch(int(words[0]), lsn_number(words[1]))
        if found and switch.timeline <= found[-1].timeline:
            raise ValueError("the timelines of a history must ascend")
        found.append(switch)
    return tuple(found)


@dataclass(frozen=True)
class Lineage:
    """The timelines that a server's log is made of."""

    timeline: int
    ancestors: tuple[Switch, ...]
    segment_size: int

    def segment(self, number: int) -> Segment:
        """The segment of that number on the way to this timeline: the one where a timeline begins is its own."""
        return Segment(self.stretch(number)[0], number)

    def stretch(self, number: int) -> tuple[int, int | None]:
        """The timeline of the segment of that number, and from which number on it is another; None where never."""
        for one in self.ancestors:
            end = one.position // self.segment_size
            if number < end:
                return one.timeline, end
        return self.timeline, None

    def left_at(self, timeline: int) -> int | None:
        """Where it left that timeline; None where it never was on it, or is."""
        return next((one.position for one in self.ancestors if one.timeline == timeline), None)
