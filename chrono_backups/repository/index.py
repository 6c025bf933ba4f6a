"""Which chunk lies in which pack (``docs/repository-format.md``, "Index").

An index object covers the packs of one stretch of a run. Its content is a table of packs, then the
chunks in columns, sorted by the first 8 bytes of the id read as a little-endian number::

    packs u32 | chunks u32
    pack   × packs    BLAKE3 32 | salt 32 | size u64
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
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, repeat

from chrono_backups.errors import Damaged
from chrono_backups.pipeline.packing import ROW, PackedChunk, PackedRows

_COUNTS = struct.Struct("<II")
_ROW_KEY = struct.Struct("<Q36x")
_ROW_NUMBERS = (struct.Struct("<32xI8x"), struct.Struct("<36xI4x"), struct.Struct("<40xI"))
"""Of a pack's row: what ``_sort_key`` makes of its id; offset, sealed size and size."""
_PACK = struct.Struct("<32s32sQ")
_SMALL_TABLE = 16384
"""Tables with fewer chunks are merged when there are many: a lookup asks every table. Larger ones are not, since
merging takes some 250 bytes a chunk for a moment."""
_MANY_TABLES = 8


@dataclass(frozen=True, slots=True)
class Pack:
    """A stored pack: its BLAKE3, the salt of its header, its size in bytes."""

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

    def find(self, chunk_id: bytes) -> Iterator[Location]:
        """Where the chunk is, as far as this table knows: more than one place where it is stored twice."""
        wanted = _sort_key(chunk_id)
        row = bisect_left(self._keys, wanted)
        while row < len(self._keys) and self._keys[row] == wanted:
            if self._ids[row * 32 : row * 32 + 32] == chunk_id:
                yield self._location(row)
            row += 1

    def lacking(self, wanted: Iterable[tuple[int, bytes]], without: Set[bytes]) -> list[tuple[int, bytes]]:
        """Those of ``wanted``, pairs of ``_sort_key`` and id in order, that this table has not, or only ``without``."""
        distrusted = {number for number, pack in enumerate(self.packs) if pack.digest in without}
        keys, ids, pack = self._keys, self._ids, self._pack
        end = len(keys)
        row = 0
        found: list[tuple[int, bytes]] = []
        for one in wanted:
            row = at = bisect_left(keys, one[0], row)
            while at < end and keys[at] == one[0]:
                if ids[at * 32 : at * 32 + 32] == one[1] and pack[at] not in distrusted:
                    break
                at += 1
            else:
                found.append(one)
        return found

    def _location(self, row: int) -> Location:
        return Location(self.packs[self._pack[row]], self._offset[row], self._sealed[row], self._size[row])

    def chunks(self) -> Iterator[tuple[bytes, Location]]:
        """All chunks, in the order of their ids."""
        for row in range(len(self)):
            yield bytes(self._ids[row * 32 : row * 32 + 32]), self._location(row)

    def columns(self, numbers: Mapping[bytes, int]) -> Iterator[Iterable[int]]:
        """Pack (as ``numbers`` counts digests), offset, sealed size and size of all chunks, in the table's order."""
        pack = [numbers[one.digest] for one in self.packs]
        yield from (map(pack.__getitem__, self._pack), self._offset, self._sealed, self._size)

    @property
    def ids(self) -> memoryview:
        """32 bytes a chunk, in the table's order."""
        return self._ids


def encode_index(packs: Iterable[tuple[Pack, Sequence[PackedChunk]]]) -> bytearray:
    """The content of an index object over those packs. Takes some 150 bytes a chunk for a moment."""
    table: list[Pack] = []
    rows = bytearray()
    pack = array("I")
    for number, (one, chunks) in enumerate(packs):
        table.append(one)
        rows += PackedRows.of(chunks).raw
        pack.extend(repeat(number, len(chunks)))
    keys = [key for (key,) in _ROW_KEY.iter_unpack(rows)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    del keys
    content = bytearray(_COUNTS.pack(len(table), len(order)))
    for one in table:
        content += _PACK.pack(one.digest, one.salt, one.size)
    view = memoryview(rows)
    content += b"".join([view[at * ROW.size : at * ROW.size + 32] for at in order])
    for column in (pack, *(array("I", chain.from_iterable(number.iter_unpack(rows))) for number in _ROW_NUMBERS)):
        content += array("I", map(column.__getitem__, order)).tobytes()
    return content


class Index:
    """All index objects of a repository together."""

    def __init__(self) -> None:
        self._tables: list[IndexTable] = []

    def add(self, table: IndexTable) -> None:
        """Take in one more table; many small ones become one."""
        tables = [*self._tables, table]
        # Tables of one size only, so that a chunk is merged a few times however many tables come.
        while len(tables[-1]) < _SMALL_TABLE:
            alike = [one for one in tables if _tier(one) == _tier(tables[-1])]
            if len(alike) < _MANY_TABLES:
                break
            tables = [one for one in tables if _tier(one) != _tier(tables[-1])] + [_merged(alike)]
        self._tables = tables  # a new list: readers on other threads walk the old one

    def find(self, chunk_id: bytes, without: Set[bytes] = frozenset()) -> Location | None:
        """Where the chunk is, or None; never in the packs whose digests are in ``without``."""
        for place in self.find_all(chunk_id):
            if place.pack.digest not in without:
                return place
        return None

    def lacking(self, chunk_ids: Iterable[bytes], without: Set[bytes] = frozenset()) -> list[bytes]:
        """Those that are nowhere but in packs of ``without``. For many at once: each table is gone through in order."""
        wanted = sorted((_sort_key(chunk_id), chunk_id) for chunk_id in chunk_ids)
        for table in self._tables:
            if not wanted:
                break
            wanted = table.lacking(wanted, without)
        return [chunk_id for _, chunk_id in wanted]

    def find_all(self, chunk_id: bytes) -> Iterator[Location]:
        """All places of the chunk: it is in two packs after a race of two writers, or where one pack was lost."""
        for table in self._tables:
            yield from table.find(chunk_id)

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


def _tier(table: IndexTable) -> int:
    """Which power of eight the table's size is; large ones are -1."""
    return -1 if len(table) >= _SMALL_TABLE else len(table).bit_length() // 3


def _merged(tables: Sequence[IndexTable]) -> IndexTable:
    """One table of all their rows, each once."""
    packs = {pack.digest: pack for table in tables for pack in table.packs}
    numbers = {digest: number for number, digest in enumerate(packs)}
    ids = b"".join(table.ids for table in tables)
    columns = [array("I") for _ in range(4)]
    for table in tables:
        for column, values in zip(columns, table.columns(numbers), strict=True):
            column.extend(values)
    pack, offset = columns[:2]
    order = sorted(range(len(pack)), key=memoryview(ids).cast("Q")[::4].__getitem__)
    kept: list[int] = []
    last = None
    for row in order:
        identity = (ids[row * 32 : row * 32 + 32], pack[row], offset[row])
        if identity != last:
            kept.append(row)
        last = identity
    content = b"".join(
        (
            _COUNTS.pack(len(packs), len(kept)),
            *(_PACK.pack(pack.digest, pack.salt, pack.size) for pack in packs.values()),
            *(ids[row * 32 : row * 32 + 32] for row in kept),
            *(array("I", map(column.__getitem__, kept)).tobytes() for column in columns),
        )
    )
    return IndexTable(content)
