"""Which chunk lies in which pack (``docs/repository-format.md``, "Index").

An index object covers the packs of one stretch of a run. Its content is a table of packs, then the
chunks in columns, sorted by the first 8 bytes of the id read as a little-endian number::

    packs u32 | chunks u32
    pack   × packs    SHA-256 32 | salt 32 | size u64
    id     × chunks   32
    pack   × chunks   u32, position in the table
    offset × chunks   u32
    sealed × chunks   u32, bytes in the pack
    size   × chunks   u32, bytes of content

In memory it stays in that shape: 48 bytes a chunk.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from chrono_backups.errors import Damaged
from chrono_backups.pipeline.packing import PackedChunk

_COUNTS = struct.Struct("<II")
_PACK = struct.Struct("<32s32sQ")
_SMALL_TABLE = 65536
"""Tables with fewer chunks are merged when there are many: a lookup asks every table."""
_MANY_TABLES = 8


@dataclass(frozen=True, slots=True)
class Pack:
    """A stored pack: its SHA-256, the salt of its header, its size in bytes."""

    digest: bytes
    salt: bytes
    size: int

    @property
    def name(self) -> str:
        return self.digest.hex()


@dataclass(frozen=True, slots=True)
class Location:
    """Where a chunk is stored."""

    pack: Pack
    offset: int
    sealed_size: int
    content_size: int


def _sort_key(chunk_id: bytes) -> int:
    return int.from_bytes(chunk_id[:8], "little")


class IndexTable:
    """The content of one index object, searchable."""

    def __init__(self, content: bytes | bytearray, key: str = "index") -> None:
        view = memoryview(content)
        try:
            packs, chunks = _COUNTS.unpack_from(view)
            start = _COUNTS.size + packs * _PACK.size
            if len(view) != start + 48 * chunks:
                raise ValueError("its size does not fit its counts")
            rows = _PACK.iter_unpack(view[_COUNTS.size : start])
            self.packs = [Pack(digest, salt, size) for digest, salt, size in rows]
            self._ids = view[start : start + 32 * chunks]
            numbers = view[start + 32 * chunks :].cast("I")
            self._pack, self._offset, self._sealed, self._size = (
                numbers[i * chunks : (i + 1) * chunks] for i in range(4)
            )
            if chunks and max(self._pack) >= packs:
                raise ValueError("it names a pack that it does not have")
        except (struct.error, ValueError, TypeError) as error:
            raise Damaged(f"{key} is no index: {error}", key=key) from error
        self._keys = self._ids.cast("Q")[::4]

    def __len__(self) -> int:
        return len(self._pack)

    def find(self, chunk_id: bytes) -> Location | None:
        """Where the chunk is, as far as this table knows."""
        wanted = _sort_key(chunk_id)
        row = bisect_left(self._keys, wanted)
        while row < len(self._keys) and self._keys[row] == wanted:
            if self._ids[row * 32 : row * 32 + 32] == chunk_id:
                return self._location(row)
            row += 1
        return None

    def _location(self, row: int) -> Location:
        return Location(self.packs[self._pack[row]], self._offset[row], self._sealed[row], self._size[row])

    def chunks(self) -> Iterator[tuple[bytes, Location]]:
        """All chunks, in the order of their ids."""
        for row in range(len(self)):
            yield bytes(self._ids[row * 32 : row * 32 + 32]), self._location(row)


def encode_index(packs: Iterable[tuple[Pack, Sequence[PackedChunk]]]) -> bytearray:
    """The content of an index object over those packs."""
    table: list[Pack] = []
    rows: list[tuple[int, int, PackedChunk]] = []
    for number, (pack, chunks) in enumerate(packs):
        table.append(pack)
        rows.extend((_sort_key(chunk.chunk_id), number, chunk) for chunk in chunks)
    rows.sort(key=lambda row: row[0])
    content = bytearray(_COUNTS.pack(len(table), len(rows)))
    for pack in table:
        content += _PACK.pack(pack.digest, pack.salt, pack.size)
    content += b"".join(row[2].chunk_id for row in rows)
    columns = (
        (row[1] for row in rows),
        (row[2].offset for row in rows),
        (row[2].sealed_size for row in rows),
        (row[2].content_size for row in rows),
    )
    for column in columns:
        content += array("I", column).tobytes()
    return content


class Index:
    """All index objects of a repository together."""

    def __init__(self) -> None:
        self._tables: list[IndexTable] = []

    def add(self, table: IndexTable) -> None:
        """Take in one more table; many small ones become one."""
        self._tables.append(table)
        small = [one for one in self._tables if len(one) < _SMALL_TABLE]
        if len(small) > _MANY_TABLES and sum(map(len, small)) < 8 * _SMALL_TABLE:
            self._tables = [one for one in self._tables if len(one) >= _SMALL_TABLE]
            self._tables.append(_merged(small))

    def find(self, chunk_id: bytes, without: Set[bytes] = frozenset()) -> Location | None:
        """Where the chunk is, or None; never in the packs whose digests are in ``without``."""
        for table in self._tables:
            found = table.find(chunk_id)
            if found is not None and found.pack.digest not in without:
                return found
        return None

    def packs(self) -> dict[bytes, Pack]:
        """All packs by digest."""
        return {pack.digest: pack for table in self._tables for pack in table.packs}

    def chunks(self) -> Iterator[tuple[bytes, Location]]:
        """All chunks of all tables; one that is stored twice comes twice."""
        for table in self._tables:
            yield from table.chunks()

    def __len__(self) -> int:
        return sum(map(len, self._tables))


def by_pack(chunks: Iterable[tuple[bytes, Location]]) -> dict[bytes, tuple[Pack, list[PackedChunk]]]:
    """Chunks gathered by the digest of their pack, each once: what ``encode_index`` takes."""
    packs: dict[bytes, tuple[Pack, dict[int, PackedChunk]]] = {}
    for chunk_id, place in chunks:
        _, rows = packs.setdefault(place.pack.digest, (place.pack, {}))
        rows[place.offset] = PackedChunk(chunk_id, place.offset, place.sealed_size, place.content_size)
    return {digest: (pack, list(rows.values())) for digest, (pack, rows) in packs.items()}


def _merged(tables: Sequence[IndexTable]) -> IndexTable:
    return IndexTable(encode_index(by_pack(chunk for table in tables for chunk in table.chunks()).values()))
