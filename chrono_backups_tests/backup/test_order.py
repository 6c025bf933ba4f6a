"""The order of captures: for any sources, of any backup type, the same rules hold."""

from __future__ import annotations

from itertools import combinations

import pytest

from chrono_backups.backup.order import STAGES, in_order, stages
from chrono_backups.identifiers import BACKUP_TYPES, SOURCE_NAMES, SOURCES_OF_TYPE, SourceName

SUBSETS = [frozenset(some) for count in range(len(SOURCE_NAMES) + 1) for some in combinations(SOURCE_NAMES, count)]


@pytest.mark.parametrize("sources", SUBSETS, ids=lambda some: "+".join(sorted(some)) or "none")
def test_nothing_is_left_out_or_taken_twice_and_stages_keep_their_place(sources: frozenset[SourceName]) -> None:
    planned = stages(sources)
    assert len(planned) == len(STAGES)
    flat = [name for stage in planned for name in stage]
    assert sorted(flat) == sorted(sources)
    assert in_order(sorted(sources, reverse=True)) == tuple(flat), "whatever order they are named in"
    for later, earlier in combinations(reversed(STAGES), 2):
        for name in set(later) & sources:
            assert all(flat.index(name) > flat.index(other) for other in set(earlier) & sources)


def test_the_quick_stores_come_right_behind_the_base_backup_and_trees_last() -> None:
    assert in_order(SOURCE_NAMES) == ("postgres", "meilisearch", "redis", "configuration", "files")


def test_every_source_has_a_stage() -> None:
    assert {name for stage in STAGES for name in stage} == set(SOURCE_NAMES)
    for backup_type in BACKUP_TYPES:
        assert len(in_order(SOURCES_OF_TYPE[backup_type])) == len(SOURCES_OF_TYPE[backup_type])
