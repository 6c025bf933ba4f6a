"""Which documents did not change since an earlier capture: each one's digest, held against the earlier ones in order.

Beside an index's documents a capture keeps a row for each of them: the digest of its line, 16 bytes, and the line's
length, 4. The next capture reads the documents anew and these rows with them. A line whose row comes in the earlier
ones is the same line, and is not stored again, wherever the documents before it have gone.

A server gives documents in an order that hardly changes, so that only a stretch of the earlier rows is looked into.
What is not found there is taken for new, which costs room and is never wrong.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterable, Iterator

ROW = struct.Struct("<16sI")
_WINDOW = 16384
"""Earlier rows that are looked into; so many documents may go between two that stay."""
_HURRY = 4
"""Rows given up for a document that is not found, once a whole window was in vain: many documents have gone."""


def row(line: bytes) -> bytes:
    """The row of a line, its end with it."""
    return hashlib.blake2b(line, digest_size=16).digest() + len(line).to_bytes(4, "little")


class Unchanged:
    """Finds lines in an earlier capture. Asked in the order of the documents."""

    def __init__(self, rows: Iterable[bytes | memoryview]) -> None:
        """``rows``: the earlier capture's, in pieces of any length."""
        self._coming = _rows(rows)
        self._window: deque[tuple[bytes, int]] = deque()
        self._known: dict[bytes, int] = {}
        self._first = 0
        """Number of the first row in the window."""
        self._next_offset = 0
        self._in_vain = 0

    def find(self, wanted: bytes) -> tuple[int, int] | None:
        """Offset of that row's line in the earlier documents, and the row's number; None where it is not found."""
        window = self._window
        if len(window) < _WINDOW // 2:
            self._fill()
        number = self._known.get(wanted)
        if number is None:
            self._in_vain += 1
            if self._in_vain > _WINDOW:
                self._drop(_HURRY)
            return None
        self._in_vain = 0
        self._drop(number - self._first)
        _, offset = window.popleft()
        self._first += 1
        del self._known[wanted]
        return offset, number

    def _fill(self) -> None:
        at = self._first + len(self._window)
        for one in self._coming:
            self._window.append((one, self._next_offset))
            self._next_offset += int.from_bytes(one[16:], "little")
            self._known.setdefault(one, at)
            at += 1
            if len(self._window) >= _WINDOW:
                return

    def _drop(self, count: int) -> None:
        for _ in range(min(count, len(self._window))):
            gone, _ = self._window.popleft()
            if self._known.get(gone) == self._first:
                del self._known[gone]
            self._first += 1


def _rows(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Whole rows; what is left over at the end is none."""
    size = ROW.size
    left = b""
    for piece in pieces:
        data = left + bytes(piece)
        whole = len(data) // size * size
        for at in range(0, whole, size):
            yield data[at : at + size]
        left = data[whole:]
