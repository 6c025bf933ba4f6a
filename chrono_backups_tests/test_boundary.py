"""Boundaries: how far snapshots lie apart, and where PostgreSQL meets them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chrono_backups.boundary import Boundary, PostgresPosition, meeting, skew

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(first: float, last: float | None = None, lsn: str | None = None) -> Boundary:
    moments = [START + timedelta(seconds=one) for one in (first, first if last is None else last)]
    met = None if lsn is None else PostgresPosition(lsn, 1, moments[1], True)
    return Boundary(moments[0], moments[1], {"mark": 1}, met)


def test_the_skew_is_from_the_first_moment_to_the_last_of_all() -> None:
    assert skew([]) == 0
    assert skew([at(5)]) == 0
    assert skew([at(5, 9)]) == 4, "a tree that is walked for four seconds is so far apart from itself"
    assert skew([at(5), at(2), at(3, 9)]) == 7


def test_postgres_meets_the_last_of_those_that_know_its_position() -> None:
    assert meeting({"files": at(1)}) is None
    found = meeting({"redis": at(5, 6, "0/600"), "meilisearch": at(2, 5, "0/500"), "files": at(7, 9)})
    assert found is not None
    assert (found[0], found[1].lsn) == ("redis", "0/600")


def test_it_is_written_and_read() -> None:
    for one in (at(1), at(1.5, 2.25, "1/AB")):
        assert Boundary.from_json(one.to_json()) == one
    assert Boundary.from_json(None) is None
