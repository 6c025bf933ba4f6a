"""How far stored WAL goes: as by asking for each segment, and quick for tens of thousands of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.repository.recovery_points import Archived, Base, Way
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import Contents, WalArchive
from chrono_backups.repository.wal_names import Lineage, PieceName, Segment, Switch
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, opened

SIZE = 16 << 20
LOG = (1 << 32) // SIZE
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def way_by_each(one: Archived, base: Base, lineage: Lineage) -> Way:
    """The oracle: every segment is looked for by its name."""
    size, position = base.segment_size, base.end
    number = position // size
    while True:
        name = lineage.segment(number).name(size).lower()
        if name not in one.contents.segments:
            return Way(base, lineage, max(position, number * size + one.contents.reach(name)))
        number += 1
        position = number * size


def stored_behind_by_each(one: Archived, way: Way) -> int | None:
    """The oracle: every name is looked at."""
    size = way.base.segment_size
    numbers = (Segment.parse(name, size) for name in (*one.contents.segments, *one.contents.pieces))
    behind = [one.number for one in numbers if one == _by_each(way.lineage, one.number) and one.number * size > way.end]
    return min(behind, default=None)


def _by_each(lineage: Lineage, number: int) -> Segment:
    for one in lineage.ancestors:
        if number < one.position // lineage.segment_size:
            return Segment(one.timeline, number)
    return Segment(lineage.timeline, number)


@pytest.fixture(scope="module")
def archive() -> WalArchive:
    storage = MemoryStorage()
    new_repository(storage).close()
    repository: Repository = opened(storage)
    return WalArchive(repository, "1")


NUMBERS = st.integers(LOG - 12, LOG + 12)
"""On both sides of where a name's first half changes."""
POSITIONS = st.builds(lambda number, more: number * SIZE + more, NUMBERS, st.sampled_from([0, 0, 1, 5000, SIZE - 1]))
SEGMENTS = st.tuples(st.integers(1, 4), NUMBERS)
HISTORIES = st.dictionaries(
    st.integers(2, 4),
    st.lists(st.tuples(st.integers(1, 3), POSITIONS), max_size=3).map(
        lambda found: tuple(Switch(*one) for one in sorted(dict(found).items()))
    ),
    max_size=3,
)


def of_ranges(timeline: int, first: int, count: int) -> list[tuple[int, int]]:
    return [(timeline, number) for number in range(first, first + count)]


STORED = st.lists(
    st.one_of(
        SEGMENTS.map(lambda one: [one]),
        st.builds(of_ranges, st.integers(1, 4), NUMBERS, st.integers(1, 25)),
    ),
    max_size=6,
).map(lambda found: {one for some in found for one in some})


@given(STORED, st.dictionaries(SEGMENTS, st.integers(0, 3), max_size=3), HISTORIES, st.integers(1, 4), POSITIONS)
@settings(max_examples=1000, deadline=None)
def test_ways_and_what_is_behind_are_as_by_each_name(
    archive: WalArchive,
    stored: set[tuple[int, int]],
    pieces: dict[tuple[int, int], int],
    ancestors: dict[int, tuple[Switch, ...]],
    timeline: int,
    end: int,
) -> None:
    sizes = {Segment(*one).name(SIZE).lower(): 1 for one in stored}
    sizes |= {str(PieceName(Segment(*one).name(SIZE).lower(), start, 4000)): 1 for one, start in pieces.items()}
    one = Archived(archive, Contents.of(sizes), {1: (), **ancestors})
    base = Base("b", "1", timeline, end, end, MOMENT, SIZE, MOMENT)
    for branch, before in one.ancestors.items():
        lineage = Lineage(branch, before, SIZE)
        for number in range(LOG - 14, LOG + 14):
            assert lineage.segment(number) == _by_each(lineage, number)
        way = one.way(base, lineage)
        assert way == way_by_each(one, base, lineage)
        assert one.stored_behind(way) == stored_behind_by_each(one, way)


def test_a_name_of_another_size_is_no_segment_of_this_one(archive: WalArchive) -> None:
    strange = f"{1:08x}{0:08x}{LOG:08x}"
    one = Archived(archive, Contents.of({strange: 1, Segment(1, 3).name(SIZE).lower(): 1}), {1: ()})
    base = Base("b", "1", 1, 3 * SIZE, 3 * SIZE, MOMENT, SIZE, MOMENT)
    way = one.way(base, Lineage(1, (), SIZE))
    assert way.end == 4 * SIZE
    with pytest.raises(ValueError, match=strange):
        one.stored_behind(way)


def test_thirty_base_backups_and_fifty_thousand_segments(archive: WalArchive) -> None:
    count = 50_000
    contents = Contents.of({Segment(1, number).name(SIZE).lower(): 1 for number in range(count)})
    one = Archived(archive, contents, {1: (), 2: (Switch(1, (count - 1) * SIZE + 100),)})
    bases = [Base(str(n), "1", 1, n * SIZE, n * SIZE, MOMENT, SIZE, MOMENT) for n in range(0, count, count // 30)]
    began = time.process_time()
    first = one.way(bases[0], Lineage(1, (), SIZE))
    once = time.process_time() - began
    began = time.process_time()
    ways = [way for base in bases for way in one.ways(base)]
    assert {one.stored_behind(way) for way in ways} == {None}
    assert time.process_time() - began < 5 * once  # by each name it is more than thirty times as long
    assert {way.end for way in ways if way.timeline == 1} == {first.end} == {count * SIZE}
