"""Listings: what a snapshot holds, directory by directory (``docs/repository-format.md``, "Listings").

A listing is a stream of **segments** in the order of their directories' paths, where ``/`` sorts below
every other byte, so that a directory is followed by what lies below it. A segment lists entries of one
directory in the order of their names; a directory with very many entries has several segments.
Attributes are stored in columns, which compress well and are compared whole: a directory in which
nothing changed is recognised by one comparison of bytes.

Paths are relative to the source's root, without a leading ``/``; the root is empty. An entry's content
is a row of **extents**: a part of a chunk, or a hole. A file with very many extents keeps them in chunks
of their own (``INDIRECT``), so that a segment stays small whatever it lists.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from chrono_backups.errors import Damaged
from chrono_backups.pipeline.attributes import ATTRIBUTES_SIZE, attribute_columns

HOLE: Final = 0xFFFFFFFF
"""In an extent's place of a chunk: bytes that read as zero and are not stored."""
HASH_SIZE = 16
NO_HASH = bytes(HASH_SIZE)
MAX_DIRECT_EXTENTS = 256
_COUNTS = struct.Struct("<IIIIIIII")
_EXTENT = struct.Struct("<32sIQ")
_NO_CHUNK = bytes(32)


def order(path: bytes) -> bytes:
    """The key by which listings are sorted."""
    return path.replace(b"/", b"\0")


class Extent(NamedTuple):
    """``length`` bytes from ``offset`` of a chunk; a hole where ``chunk_id`` is None."""

    chunk_id: bytes | None
    offset: int
    length: int


@dataclass(slots=True)
class Extra:
    """What few entries have. ``xattrs`` are in the order of their names."""

    link_target: bytes | None = None
    """Of a symbolic link."""
    hard_link: bytes | None = None
    """Path of the first entry that shares this one's inode."""
    device: int | None = None
    """``st_rdev`` of a device."""
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    indirect: bool = False
    """The extents are those of a stream of extent rows (``encode_extents``), not of the content."""

    def __bool__(self) -> bool:
        return bool(
            self.link_target is not None
            or self.hard_link is not None
            or self.device is not None
            or self.xattrs
            or self.indirect
        )

    @property
    def weight(self) -> int:
        """About how many bytes it takes in a segment."""
        links = len(self.link_target or b"") + len(self.hard_link or b"")
        return 64 + 2 * (links + sum(len(name) + len(value) for name, value in self.xattrs.items()))

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {}
        if self.link_target is not None:
            record["link"] = self.link_target.hex()
        if self.hard_link is not None:
            record["hard"] = self.hard_link.hex()
        if self.device is not None:
            record["device"] = self.device
        if self.xattrs:
            record["xattrs"] = {name.hex(): value.hex() for name, value in sorted(self.xattrs.items())}
        if self.indirect:
            record["indirect"] = True
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Extra:
        link, hard = record.get("link"), record.get("hard")
        return cls(
            link_target=None if link is None else bytes.fromhex(link),
            hard_link=None if hard is None else bytes.fromhex(hard),
            device=record.get("device"),
            xattrs={bytes.fromhex(name): bytes.fromhex(value) for name, value in record.get("xattrs", {}).items()},
            indirect=record.get("indirect", False),
        )


NOTHING_EXTRA: Final = Extra()


class Segment:
    """One stored segment, decoded as far as it is asked. Raises ``Damaged`` where it is malformed."""

    __slots__ = (
        "_counts",
        "_data",
        "_extents_at",
        "_extras",
        "_first",
        "_names",
        "attributes_block",
        "ctime",
        "gid",
        "inode",
        "mode",
        "mtime",
        "names_block",
        "path",
        "raw",
        "size",
        "uid",
    )

    def __init__(self, raw: memoryview) -> None:
        try:
            self.raw = raw
            self._counts = _COUNTS.unpack_from(raw)
            _, path_size, names_size, entries, chunks, extents, extras_size, _ = self._counts
            at = _COUNTS.size
            self.path = bytes(raw[at : at + path_size])
            at += path_size
            self.names_block = bytes(raw[at : at + names_size])
            at += names_size
            block = self.attributes_block = raw[at : at + ATTRIBUTES_SIZE * entries]
            at += ATTRIBUTES_SIZE * entries
            columns = attribute_columns(block, entries)
            self.mode, self.uid, self.gid, self.size, self.mtime, self.ctime, self.inode = columns
            self._data = raw[at:]
            self._extents_at = HASH_SIZE * entries + 4 * entries
            expected = self._extents_at + 32 * chunks + 16 * extents + extras_size
            if len(self._data) != expected:
                raise ValueError(f"{len(self._data)} bytes where {expected} were expected")
        except (struct.error, ValueError, TypeError) as error:
            raise Damaged(f"a listing segment is malformed: {error}", key="listing") from error
        self._names: list[bytes] | None = None
        self._extras: dict[int, Extra] | None = None
        self._first: list[int] | None = None

    def __len__(self) -> int:
        return int(self._counts[3])

    @property
    def names(self) -> list[bytes]:
        """The entries' names, ascending."""
        if self._names is None:
            self._names = self.names_block.split(b"\0") if self._counts[3] else []
        return self._names

    @property
    def extras(self) -> Mapping[int, Extra]:
        """What few entries have, by position."""
        if self._extras is None:
            size = self._counts[6]
            rows = json.loads(bytes(self._data[len(self._data) - size :])) if size else {}
            self._extras = {int(position): Extra.from_json(row) for position, row in rows.items()}
        return self._extras

    @property
    def hashes(self) -> memoryview:
        """``HASH_SIZE`` bytes an entry, one after another."""
        return self._data[: HASH_SIZE * self._counts[3]]

    def content_hash(self, position: int) -> bytes:
        """Tells whether two regular files are the same; ``NO_HASH`` for what has no content."""
        return bytes(self._data[position * HASH_SIZE : (position + 1) * HASH_SIZE])

    def extents(self, position: int) -> list[Extent]:
        """The entry's extents, in order (those of its extent rows, where ``Extra.indirect``)."""
        if self._first is None:
            self._first = [0]
            counts = self._data[HASH_SIZE * self._counts[3] : self._extents_at].cast("I")
            total = 0
            for count in counts:
                total += count
                self._first.append(total)
        first, last = self._first[position], self._first[position + 1]
        if first == last:
            return []
        chunk, offset, length = self._extent_columns()
        return [Extent(self._chunk(chunk[i]), offset[i], length[i]) for i in range(first, last)]

    def _extent_columns(self) -> tuple[memoryview, memoryview, memoryview]:
        chunks, extents = self._counts[4], self._counts[5]
        at = self._extents_at + 32 * chunks
        return (
            self._data[at : at + 4 * extents].cast("I"),
            self._data[at + 4 * extents : at + 8 * extents].cast("I"),
            self._data[at + 8 * extents : at + 16 * extents].cast("Q"),
        )

    def _chunk(self, number: int) -> bytes | None:
        if number == HOLE:
            return None
        at = self._extents_at + 32 * number
        return bytes(self._data[at : at + 32])

    def chunk_ids(self) -> list[bytes]:
        """The ids of all chunks that the entries' extents name, each once."""
        at = self._extents_at
        return [bytes(self._data[at + 32 * i : at + 32 * i + 32]) for i in range(self._counts[4])]

    def chunk_uses(self) -> Iterator[tuple[bytes, int]]:
        """Chunk id and bytes used of it, an extent at a time."""
        chunk, _, length = self._extent_columns()
        for number, size in zip(chunk, length, strict=True):
            chunk_id = self._chunk(number)
            if chunk_id is not None:
                yield chunk_id, size


def encode_segment(
    path: bytes,
    names_block: bytes,
    attributes_block: bytes,
    hashes: bytes | bytearray,
    extents: Sequence[Sequence[Extent]],
    extras: Mapping[int, Extra],
) -> bytes:
    """One segment's bytes. ``extents`` and ``hashes`` have a place for every entry."""
    table: dict[bytes, int] = {}
    chunk, offset, length = array("I"), array("I"), array("Q")
    for row in extents:
        for extent in row:
            number = HOLE if extent.chunk_id is None else table.setdefault(extent.chunk_id, len(table))
            chunk.append(number)
            offset.append(extent.offset)
            length.append(extent.length)
    extras_block = b""
    if extras:
        rows = {str(position): extra.to_json() for position, extra in sorted(extras.items())}
        extras_block = json.dumps(rows, separators=(",", ":")).encode()
    body = b"".join(
        (
            path,
            names_block,
            attributes_block,
            hashes,
            array("I", map(len, extents)).tobytes(),
            b"".join(table),
            chunk.tobytes(),
            offset.tobytes(),
            length.tobytes(),
            extras_block,
        )
    )
    counts = _COUNTS.pack(
        _COUNTS.size + len(body),
        len(path),
        len(names_block),
        len(extents),
        len(table),
        len(chunk),
        len(extras_block),
        0,
    )
    return counts + body


def segments(chunk: memoryview, key: str = "listing") -> Iterator[Segment]:
    """The segments of one listing chunk. Raises ``Damaged``."""
    at = 0
    while at < len(chunk):
        size = int.from_bytes(chunk[at : at + 4], "little")
        if size < _COUNTS.size or at + size > len(chunk):
            raise Damaged("a listing chunk is malformed", key=key)
        yield Segment(chunk[at : at + size])
        at += size


def encode_extents(extents: Iterable[Extent]) -> bytes:
    """Extent rows as a stream: ``chunk id 32 (zeros for a hole) | offset u32 | length u64`` each."""
    pack = _EXTENT.pack
    return b"".join([pack(chunk_id or _NO_CHUNK, offset, length) for chunk_id, offset, length in extents])


def decode_extents(rows: bytes | bytearray | memoryview) -> list[Extent]:
    """The reverse of ``encode_extents``."""
    return [
        Extent(None if chunk_id == _NO_CHUNK else chunk_id, offset, length)
        for chunk_id, offset, length in _EXTENT.iter_unpack(rows)
    ]


def named_chunks(rows: bytes | bytearray | memoryview) -> set[bytes]:
    """The ids of all chunks that extent rows name. Quicker than to decode them."""
    view = memoryview(rows)
    return {bytes(view[at : at + 32]) for at in range(0, len(view), _EXTENT.size)} - {_NO_CHUNK}
