"""What did not change is found among the earlier rows; what is found is always the same line."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.sources.meilisearch import unchanged
from chrono_backups.sources.meilisearch.unchanged import Unchanged, row


def lines_of(numbers: list[int]) -> list[bytes]:
    return [b'{"id":%d,"x":"%s"}\n' % (number, b"y" * (number % 50)) for number in numbers]


def rows_of(lines: list[bytes], chance: Any) -> list[bytes]:
    whole = b"".join(map(row, lines))
    cuts = sorted(chance.randrange(len(whole) + 1) for _ in range(5)) if whole else []
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def check(before: list[bytes], after: list[bytes], chance: Any) -> int:
    """Every find is the same line, and finds go forward; how many there are."""
    offsets = [0]
    for line in before:
        offsets.append(offsets[-1] + len(line))
    finder, last, found = Unchanged(rows_of(before, chance)), -1, 0
    for line in after:
        place = finder.find(row(line))
        if place is not None:
            offset, number = place
            assert before[number] == line and offsets[number] == offset and number > last
            last, found = number, found + 1
    return found


@given(st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)), st.randoms(use_true_random=False))
def test_what_is_found_is_the_same_line(before: list[int], after: list[int], chance: Any) -> None:
    check(lines_of(before), lines_of(after), chance)


def test_all_that_stayed_is_found_around_changes_gaps_and_additions() -> None:
    chance = random.Random(3)
    before = lines_of(list(range(5000)))
    after = lines_of([number for number in range(5000) if not 700 <= number < 1900])
    after[50:50] = lines_of([9001, 9002])
    after[900] = b'{"changed":1}\n'
    assert check(before, after, chance) == 3800 - 1


def test_the_way_is_found_again_behind_a_gap_that_is_wider_than_what_is_looked_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unchanged, "_WINDOW", 200)
    before = lines_of(list(range(10_000)))
    after = lines_of(list(range(2000, 10_000)))
    found = check(before, after, random.Random(1))
    assert found > 6000


def test_rows_that_end_too_early_find_less() -> None:
    before = lines_of(list(range(100)))
    finder = Unchanged([b"".join(map(row, before))[:1010]])
    assert sum(finder.find(row(line)) is not None for line in before) == 50
