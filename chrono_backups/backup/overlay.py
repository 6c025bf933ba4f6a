"""A file's extents where only what changed in it was read: that, laid over or put between an earlier capture's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from chrono_backups.errors import SourceError
from chrono_backups.repository.listing import Extent
from chrono_backups.sources.base import Changes, Stretches

_BEHIND = Extent(None, 0, 1 << 62)
"""What an earlier file reads as behind its end."""


class _Cursor:
    """Goes through extents from start to end, by bytes of content."""

    __slots__ = ("_current", "_extents", "_within", "at")

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._extents = iter(extents)
        self._current: Extent | None = next(self._extents, None)
        self._within = 0
        self.at = 0

    def move(self, length: int, found: list[Extent] | None) -> int:
        """Add the next ``length`` bytes to ``found``, or pass over them; how many there were."""
        left = length
        while left and self._current is not None:
            chunk_id, offset, size = self._current
            within = self._within
            count = min(left, size - within)
            if count and found is not None:
                _append(found, chunk_id, 0 if chunk_id is None else offset + within, count)
            left -= count
            if within + count == size:
                self._current, self._within = next(self._extents, None), 0
            else:
                self._within = within + count
        self.at += length - left
        return length - left


def lay_over(old: Iterable[Extent], changes: Changes, new: Iterable[Extent]) -> list[Extent]:
    """The extents of the whole file. ``new`` has the changed blocks' contents, in the order of their numbers.

    The work grows with the number of extents, not with their product. One loop and few calls: a table whose pages
    changed here and there has a run of blocks for every other page. Raises ``SourceError`` where ``new`` is too short.
    """
    found: list[Extent] = []
    olds, news = iter(old), iter(new)
    old_id, old_offset, old_length = next(olds, _BEHIND)
    new_id, new_offset, new_length = None, 0, 0
    old_at = at = 0
    """Where the old extent begins; how much of the file is listed."""
    for first, count in chain(_runs(changes.blocks), ((None, 0),)):
        start = changes.size if first is None else first * changes.block_size
        kept = min(start, changes.kept)
        while at < kept:
            while old_at + old_length <= at:
                old_at += old_length
                old_id, old_offset, old_length = next(olds, _BEHIND)
            length = min(kept, old_at + old_length) - at
            _append(found, old_id, 0 if old_id is None else old_offset + at - old_at, length)
            at += length
        if start > at:
            _append(found, None, 0, start - at)
        at = start
        end = start + count * changes.block_size
        while at < end:
            while not new_length:
                extent = next(news, None)
                if extent is None:
                    raise SourceError("fewer changed blocks came than were named")
                new_id, new_offset, new_length = extent
            length = min(end - at, new_length)
            _append(found, new_id, new_offset, length)
            at += length
            new_length -= length
            new_offset += 0 if new_id is None else length
    return found


def put_together(old: Iterable[Extent], stretches: Stretches, new: Sequence[Extent]) -> Iterator[Extent]:
    """The extents of the whole file, as its stretches say. Raises ``SourceError`` where they don't fit what there is.

    The work grows with the number of stretches and extents; ``old`` is gone through once.
    """
    kept, came = _Cursor(old), _Cursor(new)
    found: list[Extent] = []
    for offset, length in stretches:
        cursor = came
        if offset >= 0:
            cursor = kept
            if offset < kept.at:
                raise SourceError("the source named stretches of the earlier file that go back")
            kept.move(offset - kept.at, None)
        if cursor.move(length, found) != length:
            raise SourceError("the source named a stretch that is not there")
        # All but the last are settled: what follows may go on right behind that one.
        yield from found[:-1]
        del found[:-1]
    yield from found


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


def _append(found: list[Extent], chunk_id: bytes | None, offset: int, length: int) -> None:
    """Add an extent, as part of the last one where it goes on right behind it."""
    if found:
        last_id, last_offset, last_length = found[-1]
        if last_id == chunk_id and (chunk_id is None or last_offset + last_length == offset):
            found[-1] = Extent(chunk_id, last_offset, last_length + length)
            return
    found.append(Extent(chunk_id, offset, length))
