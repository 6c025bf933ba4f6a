"""A file's extents where only what changed in it was read: that, laid over or put between an earlier capture's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from chrono_backups.errors import SourceError
from chrono_backups.repository.listing import Extent
from chrono_backups.sources.base import Changes, Stretches


class _Cursor:
    """Goes through extents from start to end, by bytes of content."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._extents = iter(extents)
        self._current: Extent | None = next(self._extents, None)
        self._within = 0
        self.at = 0

    def take(self, length: int) -> Iterator[Extent]:
        """The next ``length`` bytes, or what is left of them."""
        while length and self._current is not None:
            chunk_id, offset, size = self._current
            count = min(length, size - self._within)
            if count:
                yield Extent(chunk_id, offset + self._within if chunk_id is not None else 0, count)
            self._within += count
            self.at += count
            length -= count
            if self._within == size:
                self._current, self._within = next(self._extents, None), 0

    def skip(self, length: int) -> None:
        for _ in self.take(length):
            pass


def lay_over(old: Iterable[Extent], changes: Changes, new: Sequence[Extent]) -> list[Extent]:
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


def put_together(old: Iterable[Extent], stretches: Stretches, new: Sequence[Extent]) -> Iterator[Extent]:
    """The extents of the whole file, as its stretches say. Raises ``SourceError`` where they don't fit what there is.

    The work grows with the number of stretches and extents; ``old`` is gone through once.
    """
    kept, came = _Cursor(old), _Cursor(new)
    last: Extent | None = None
    for offset, length in stretches:
        cursor = came
        if offset >= 0:
            cursor = kept
            if offset < kept.at:
                raise SourceError("the source named stretches of the earlier file that go back")
            kept.skip(offset - kept.at)
        found = 0
        for extent in cursor.take(length):
            found += extent.length
            joined = _joined(last, extent)
            if joined is None and last is not None:
                yield last
            last = joined or extent
        if found != length:
            raise SourceError("the source named a stretch that is not there")
    if last is not None:
        yield last


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
    joined = _joined(found[-1], extent) if found else None
    if joined is None:
        found.append(extent)
    else:
        found[-1] = joined


def _joined(last: Extent | None, extent: Extent) -> Extent | None:
    """Both as one, where the second goes on right behind the first."""
    if last is None or last.chunk_id != extent.chunk_id:
        return None
    if extent.chunk_id is not None and last.offset + last.length != extent.offset:
        return None
    return last._replace(length=last.length + extent.length)
