"""Segments by number, in runs without a hole: tens of thousands of them are looked through by a few comparisons."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from chrono_backups.repository.wal_names import Segment


class Runs:
    """Which segments there are of each timeline."""

    def __init__(self, names: Iterable[str], size: int) -> None:
        """Of segments that have that size."""
        self._firsts: dict[int, list[int]] = {}
        self._lasts: dict[int, list[int]] = {}
        self._strange: str | None = None
        self._size = size
        numbers: dict[int, list[int]] = {}
        for name in names:
            try:
                segment = Segment.parse(name, size)
            except ValueError:
                self._strange = name
            else:
                numbers.setdefault(segment.timeline, []).append(segment.number)
        for timeline, found in numbers.items():
            firsts, lasts = self._firsts.setdefault(timeline, []), self._lasts.setdefault(timeline, [])
            for number in sorted(found):
                if lasts and number == lasts[-1] + 1:
                    lasts[-1] = number
                else:
                    firsts.append(number)
                    lasts.append(number)

    def last(self, timeline: int, number: int) -> int | None:
        """The last one of the run that holds that segment; None where it is not there."""
        lasts = self._lasts.get(timeline, [])
        position = bisect_right(self._firsts.get(timeline, []), number) - 1
        return lasts[position] if position >= 0 and lasts[position] >= number else None

    def first_from(self, timeline: int, number: int) -> int | None:
        """The first one from that number on; None where there is none."""
        lasts = self._lasts.get(timeline, [])
        position = bisect_left(lasts, number)
        return max(number, self._firsts[timeline][position]) if position < len(lasts) else None

    def check(self) -> None:
        """Raises ``ValueError`` where a name can't be one of a segment of that size."""
        if self._strange is not None:
            Segment.parse(self._strange, self._size)
