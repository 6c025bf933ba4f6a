"""Entries' attributes in columns (``docs/repository-format.md``, "Listings").

Columns compress well, and a directory in which nothing changed is recognised by one comparison.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

_Code = Literal["I", "Q", "q"]
_COLUMNS: Final[tuple[_Code, ...]] = ("I", "I", "I", "Q", "q", "q", "Q")
_SIZES: Final = {"I": 4, "Q": 8, "q": 8}
ATTRIBUTES_SIZE: Final = sum(_SIZES[code] for code in _COLUMNS)
"""Bytes that one entry's attributes take."""


@dataclass(slots=True)
class Attributes:
    """One directory's entries as columns, in the order of ``names``.

    ``mode`` is ``st_mode``; ``size`` is in bytes and 0 for all but regular files; times are in
    nanoseconds since 1970; ``inode`` and ``ctime`` serve to notice changes and are not restored.
    """

    names: list[bytes]
    mode: array[int]
    uid: array[int]
    gid: array[int]
    size: array[int]
    mtime: array[int]
    ctime: array[int]
    inode: array[int]

    @classmethod
    def build(cls, names: list[bytes], columns: Sequence[Iterable[int]]) -> Attributes:
        """From one iterable a column: mode, uid, gid, size, mtime, ctime, inode."""
        return cls(names, *(array(code, column) for code, column in zip(_COLUMNS, columns, strict=True)))

    def select(self, positions: Sequence[int]) -> Attributes:
        """Those entries only."""
        columns = (self.mode, self.uid, self.gid, self.size, self.mtime, self.ctime, self.inode)
        picked = [[column[position] for position in positions] for column in columns]
        return Attributes.build([self.names[position] for position in positions], picked)

    def inode_bytes(self, positions: Sequence[int]) -> bytes:
        """The inode numbers of those entries, 8 bytes each."""
        return array("Q", [self.inode[position] for position in positions]).tobytes()

    def encode(self) -> bytes:
        """The columns one after another: mode u32, uid u32, gid u32, size u64, mtime i64, ctime i64, inode u64."""
        columns = (self.mode, self.uid, self.gid, self.size, self.mtime, self.ctime, self.inode)
        return b"".join(column.tobytes() for column in columns)


def attribute_columns(block: memoryview, entries: int) -> list[memoryview[int]]:
    """The seven columns of an encoded block, without copying. Raises ``ValueError`` for a wrong size."""
    if len(block) != ATTRIBUTES_SIZE * entries:
        raise ValueError(f"{len(block)} bytes of attributes for {entries} entries")
    columns: list[memoryview[int]] = []
    start = 0
    for code in _COLUMNS:
        end = start + _SIZES[code] * entries
        columns.append(block[start:end].cast(code))
        start = end
    return columns
