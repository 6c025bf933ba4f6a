"""What the pages of a WAL segment say of themselves (PostgreSQL's ``access/xlog_internal.h``).

=================== ======= ==========================================================
bytes               form    of every page
=================== ======= ==========================================================
0-1                 u16     magic, of the server's version
2-3                 u16     flags; ``0x0002``: the page has the long header
4-7                 u32     timeline
8-15                u64     position of the page
16-19               u32     bytes that a record of the page before goes on for
24-31, long header  u64     system identifier
32-35, long header  u32     size of a segment
36-39, long header  u32     size of a page
=================== ======= ==========================================================

Numbers are in the server's byte order: little-endian on all machines in use.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chrono_backups.repository.wal_names import SEGMENT_SIZES

LONG_HEADER_SIZE = 40
_LONG = struct.Struct("<HHIQIxxxxQII")
_SHORT = struct.Struct("<HHIQ")
_IS_LONG = 0x0002
_ALIGNED = 8
"""A record is filled up with zeros to a multiple of so many bytes."""
_PAGE_SIZES = tuple(1 << power for power in range(10, 17))


@dataclass(frozen=True)
class SegmentHeader:
    """What the first page of a segment says."""

    magic: int
    timeline: int
    """Of the page: an ancestor's, where the segment was begun before its timeline."""
    position: int
    system_identifier: str
    segment_size: int
    page_size: int


def segment_header(content: bytes | bytearray | memoryview) -> SegmentHeader:
    """Raises ``ValueError`` where ``content`` is not the beginning of a segment."""
    if len(content) < LONG_HEADER_SIZE:
        raise ValueError("it is too short for a WAL segment")
    magic, flags, timeline, position, _, system, segment_size, page_size = _LONG.unpack_from(content)
    if (
        not flags & _IS_LONG
        or segment_size not in SEGMENT_SIZES
        or page_size not in _PAGE_SIZES
        or position % segment_size
    ):
        raise ValueError("it does not begin as a WAL segment does")
    return SegmentHeader(magic, timeline, position, str(system), segment_size, page_size)


def filled_size(content: bytes | bytearray | memoryview) -> int:
    """How many bytes of a segment's file are WAL of it: what follows is zeros, or left from a file used before.

    Raises ``ValueError`` as ``segment_header``.
    """
    header = segment_header(content)
    end = 0
    for offset in range(0, len(content), header.page_size):
        if len(content) - offset < _SHORT.size:
            break
        magic, _, _, position = _SHORT.unpack_from(content, offset)
        if magic != header.magic or position != header.position + offset:
            break
        end = min(offset + header.page_size, len(content))
    filled = len(bytes(content[:end]).rstrip(b"\0"))
    return min(end, -(-filled // _ALIGNED) * _ALIGNED)
