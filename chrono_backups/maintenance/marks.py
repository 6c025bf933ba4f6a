"""A repository's index with room for marks: what verification, pruning and replication reckon with.

It stays in the compact form of the index, some 64 bytes a chunk, with one more for its marks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from chrono_backups.repository.index import Index, IndexTable, Location, Pack

NEEDED = 1
"""A backup refers to the chunk."""
LOST = 2
"""The chunk can't be had from this place."""


class MarkedTable:
    """The rows of an index table, each with a byte of marks."""

    def __init__(self, table: IndexTable) -> None:
        self.packs = table.packs
        numbers = {pack.digest: number for number, pack in enumerate(table.packs)}
        self.pack, self.offset, self.sealed, self.size = (array("I", column) for column in table.columns(numbers))
        self.marks = bytearray(len(table))
        self._ids = table.ids
        self._keys = self._ids.cast("Q")[::4]

    def __len__(self) -> int:
        return len(self.pack)

    def rows(self, chunk_id: bytes) -> Iterator[int]:
        """The rows of that chunk: one for each pack that holds it."""
        wanted = int.from_bytes(chunk_id[:8], "little")
        row = bisect_left(self._keys, wanted)
        while row < len(self._keys) and self._keys[row] == wanted:
            if self._ids[row * 32 : row * 32 + 32] == chunk_id:
                yield row
            row += 1

    def chunk_id(self, row: int) -> bytes:
        """That row's chunk."""
        return bytes(self._ids[row * 32 : row * 32 + 32])

    def location(self, row: int) -> Location:
        """Where that row's chunk is."""
        return Location(self.packs[self.pack[row]], self.offset[row], self.sealed[row], self.size[row])

    def chunks_of_packs(self) -> list[tuple[Pack, int]]:
        """The table's packs, and how many chunks it gives to each."""
        counts = Counter(self.pack)
        return [(pack, counts[number]) for number, pack in enumerate(self.packs)]


Place = tuple[MarkedTable, int]
"""A table and a row of it: one place of one chunk."""


class MarkedIndex(Index):
    """An index that is complete, and whose chunks can be marked."""

    def __init__(self, tables: Iterable[IndexTable]) -> None:
        super().__init__()
        for table in tables:
            self.add(table)
        self.tables = [MarkedTable(table) for table in self._tables]

    def places(self, chunk_id: bytes) -> list[Place]:
        """Everywhere the chunk is stored."""
        return [(table, row) for table in self.tables for row in table.rows(chunk_id)]

    def mark(self, chunk_id: bytes, mark: int) -> list[Place]:
        """Mark the chunk wherever it is stored; its places."""
        places = self.places(chunk_id)
        for table, row in places:
            table.marks[row] |= mark
        return places

    def marked(self, mark: int) -> Iterator[Place]:
        """Every place that bears the mark."""
        for table in self.tables:
            for row, marks in enumerate(table.marks):
                if marks & mark:
                    yield table, row

    def select(self, wanted: Callable[[Pack], bool]) -> Iterator[Place]:
        """Every place in a pack that is wanted."""
        for table in self.tables:
            chosen = {number for number, pack in enumerate(table.packs) if wanted(pack)}
            if chosen:
                for row, number in enumerate(table.pack):
                    if number in chosen:
                        yield table, row


def rows_by_pack(places: Iterable[Place]) -> Iterator[tuple[bytes, Location]]:
    """Places in the form that ``index.by_pack`` takes."""
    for table, row in places:
        yield table.chunk_id(row), table.location(row)
