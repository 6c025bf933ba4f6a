"""A repository's index with room for marks: what verification, pruning and replication reckon with.

It stays in the compact form of the index, 48 bytes a chunk, with one more for its marks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from chrono_backups.repository.index import IndexTable, Location, Pack, by_pack, encode_index

NEEDED = 1
"""A backup refers to the chunk."""
DAMAGED = 2
"""The chunk can't be read."""
_SMALL_TABLE = 65536
_MANY_TABLES = 8


class MarkedTable(IndexTable):
    """The content of an index object with a byte of marks for every row."""

    def __init__(self, content: bytes | bytearray, key: str = "index") -> None:
        super().__init__(content, key)
        self.marks = bytearray(len(self))

    def rows(self, chunk_id: bytes) -> Iterator[int]:
        """The rows of that chunk: one for each pack that holds it."""
        wanted = int.from_bytes(chunk_id[:8], "little")
        row = bisect_left(self._keys, wanted)
        while row < len(self._keys) and self._keys[row] == wanted:
            if self._ids[row * 32 : row * 32 + 32] == chunk_id:
                yield row
            row += 1

    def location(self, row: int) -> Location:
        """Where that row's chunk is."""
        return self._location(row)

    def chunk_id(self, row: int) -> bytes:
        """That row's chunk."""
        return bytes(self._ids[row * 32 : row * 32 + 32])

    def pack_of(self, row: int) -> int:
        """The position in ``packs`` of that row's pack."""
        return self._pack[row]

    def sealed_size(self, row: int) -> int:
        """Bytes that the row's chunk takes in its pack."""
        return self._sealed[row]

    def rows_in_packs(self) -> Counter[int]:
        """Position in ``packs`` → how many rows it has."""
        return Counter(self._pack)


@dataclass(frozen=True, slots=True)
class Place:
    """One row of one table."""

    table: MarkedTable
    row: int

    @property
    def location(self) -> Location:
        return self.table.location(self.row)

    @property
    def pack(self) -> Pack:
        return self.table.packs[self.table.pack_of(self.row)]


class MarkedIndex:
    """All tables of a repository. Many small ones become one: every lookup asks each table."""

    def __init__(self, tables: Iterable[MarkedTable]) -> None:
        self.tables: list[MarkedTable] = list(tables)
        small = [one for one in self.tables if len(one) < _SMALL_TABLE]
        if len(small) > _MANY_TABLES:
            self.tables = [one for one in self.tables if len(one) >= _SMALL_TABLE]
            self.tables.append(MarkedTable(encode_index(by_pack(row for one in small for row in one.chunks()).values())))
        self.marked = 0
        """How many chunks bear ``NEEDED``."""

    def places(self, chunk_id: bytes) -> Iterator[Place]:
        """Everywhere the chunk is stored."""
        for table in self.tables:
            for row in table.rows(chunk_id):
                yield Place(table, row)

    def need(self, chunk_id: bytes) -> Place | None:
        """Mark the chunk as needed, wherever it is stored. One of its places, or None where there is none."""
        first: Place | None = None
        fresh = False
        for place in self.places(chunk_id):
            first = first or place
            if not place.table.marks[place.row] & NEEDED:
                place.table.marks[place.row] |= NEEDED
                fresh = True
        self.marked += fresh
        return first

    def marked_places(self, mark: int) -> Iterator[Place]:
        """Every place that bears the mark."""
        for table in self.tables:
            for row, marks in enumerate(table.marks):
                if marks & mark:
                    yield Place(table, row)

    def packs(self) -> dict[bytes, Pack]:
        """All packs by digest."""
        return {pack.digest: pack for table in self.tables for pack in table.packs}

    def select(self, wanted: Callable[[Pack], bool]) -> Iterator[tuple[bytes, Location]]:
        """The chunks of the packs that are wanted, in the form ``index.by_pack`` takes."""
        for table in self.tables:
            chosen = {position for position, pack in enumerate(table.packs) if wanted(pack)}
            if chosen:
                for row in range(len(table)):
                    if table.pack_of(row) in chosen:
                        yield table.chunk_id(row), table.location(row)
