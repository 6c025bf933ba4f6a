"""A file's extents where only what changed in it was read: changed blocks laid over an earlier capture's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chrono_backups.repository.listing import Extent
from chrono_backups.sources.base import Changes


class _Cursor:
    """Goes through extents from start to end, by bytes of content."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self._extents = extents
        self._next = 0
        self._within = 0
        self.at = 0

    def take(self, length: int) -> Iterator[Extent]:
        """The next ``length`` bytes, or what is left of them."""
        while length and self._next < len(self._extents):
            chunk_id, offset, size = self._extents[self._next]
            count = min(length, size - self._within)
            if count:
                yield Extent(chunk_id, offset + self._within if chunk_id is not None else 0, count)
            self._within += count
            self.at += count
            length -= count
            if self._within == size:
                self._next, self._within = self._next + 1, 0

    def skip(self, length: int) -> None:
        for _ in self.take(length):
            pass


def lay_over(old: Sequence[Extent], changes: Changes, new: Sequence[Extent]) -> list[Extent]:
    """The extents of the whole file. ``new`` has the changed blocks' contents, in the order of their numbers.

    The work grows with the number of extents, not with their product.
    """
    kept, changed = _Cursor(old), _Cursor(new)
    found: list[Extent] = []

    def keep(end: int, at: int) -> None:
        from_old = min(end, changes.kept)
        if from_old > at:
            kept.skip(at - kept.at)
            for extent in kept.take(from_old - at):
                _append(found, extent)
                at += extent.length
        if end > at:
            _append(found, Extent(None, 0, end - at))

    at = 0
    for first, count in _runs(changes.blocks):
        start = first * changes.block_size
        keep(start, at)
        for extent in changed.take(count * changes.block_size):
            _append(found, extent)
        at = start + count * changes.block_size
    keep(changes.size, at)
    return found


def _runs(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First number and count of each stretch of blocks that follow one another."""
    first, count = -1, 0
    for block in blocks:
        if count and block == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = block, 1
    if count:
        yield first, count


def _append(found: list[Extent], extent: Extent) -> None:
    """Add an extent, as part of the last one where it goes on right behind it."""
    if found:
        last = found[-1]
        follows = extent.chunk_id is None or last.offset + last.length == extent.offset
        if last.chunk_id == extent.chunk_id and follows:
            found[-1] = last._replace(length=last.length + extent.length)
            return
    found.append(extent)
