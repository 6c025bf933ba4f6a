"""Which captures make a recovery point, and how far apart they are: pure, upon made-up backups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.boundary import Boundary, PostgresPosition
from chrono_backups.errors import EntryMissing
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.point import RecoveryPoint, as_captured, at_target
from chrono_backups.recovery.postgres.target import TO_THE_END, Target
from chrono_backups.repository.records import Manifest, SnapshotSummary, Statistics

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL: list[SourceName] = ["postgres", "redis", "meilisearch", "files", "configuration"]
MEETS = Target("lsn", "0/28", exclusive=True)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def backup(number: int, **held: tuple[float, float]) -> Manifest:
    """A backup with the boundaries of its sources, in seconds; PostgreSQL's log moves on by a byte a second."""
    snapshots = []
    for source, (first, last) in held.items():
        met = PostgresPosition(f"0/{int(last):X}", 1, at(last), True) if source in {"redis", "meilisearch"} else None
        facts = {"start_lsn": "0/1", "end_lsn": "0/2"} if source == "postgres" else {}
        snapshots.append(
            SnapshotSummary(
                source,  # type: ignore[arg-type]
                f"{number}-{source}",
                "full",
                "",
                at(first),
                at(last),
                Statistics(),
                facts,
                0,
                Boundary(at(first), at(last), {}, met),
            )
        )
    begun = min(one.started_at for one in snapshots)
    return Manifest(f"full_{number}", "full", "complete", begun, at(0), tuple(snapshots), {}, "h", "p", "t")


def whole(number: int, start: float = 0) -> Manifest:
    return backup(
        number,
        postgres=(start + 30, start + 30),
        meilisearch=(start + 31, start + 36),
        redis=(start + 40, start + 40),
        configuration=(start + 41, start + 42),
        files=(start + 42, start + 60),
    )


def distances(point: RecoveryPoint) -> dict[str, tuple[float, float] | None]:
    return {part.source: point.distance(part) for part in point.parts}


def test_with_wal_postgres_meets_the_stores() -> None:
    point = as_captured(whole(1), ALL, MEETS, reached=True, why="")
    assert point.moment == at(40)
    assert point.target == MEETS
    assert distances(point) == {
        "postgres": (0, 0),
        "redis": (0, 0),
        "meilisearch": (9, 0),
        "files": (0, 20),
        "configuration": (0, 2),
    }
    assert point.skew_seconds == 29
    assert "meets redis" in point.note


def test_without_wal_it_ends_with_its_base_backup_and_the_plan_says_so() -> None:
    point = as_captured(whole(1), ALL, TO_THE_END, reached=False, why="no WAL is stored")
    assert point.moment == at(40)
    assert distances(point)["postgres"] == (10, 0)
    assert point.skew_seconds == 30
    assert "10.0 s before redis" in point.note
    assert "no WAL is stored" in point.note


def test_where_there_is_nothing_to_meet_nothing_is_said() -> None:
    point = as_captured(whole(1), ["postgres", "files"], TO_THE_END, reached=False, why="")
    assert (point.moment, point.note) == (at(30), "")
    assert distances(point) == {"postgres": (0, 0), "files": (0, 30)}


def test_to_a_later_time_the_others_are_at_their_newest_capture_before_it() -> None:
    first, narrow = whole(1), backup(2, redis=(100, 100))
    target = Target("time", moment=at(120))
    point = at_target(first, ALL, target, [whole(3, 200), narrow, first])
    assert {part.source: part.manifest.backup_id for part in point.parts} == {
        "postgres": "full_1",
        "redis": "full_2",
        "meilisearch": "full_1",
        "files": "full_1",
        "configuration": "full_1",
    }
    assert point.backups == ("full_1", "full_2")
    assert distances(point) == {
        "postgres": (0, 0),
        "redis": (20, 0),
        "meilisearch": (89, 0),
        "files": (78, 0),
        "configuration": (79, 0),
    }
    assert point.skew_seconds == 89


def test_a_capture_that_had_not_ended_by_then_is_not_before_it() -> None:
    first, second = whole(1), whole(2, 200)
    point = at_target(second, ALL, Target("time", moment=at(250)), [second, first])
    assert {part.source: part.manifest.backup_id for part in point.parts}["files"] == "full_1", "walked until 260"
    assert {part.source: part.manifest.backup_id for part in point.parts}["redis"] == "full_2"


def test_of_a_backup_that_was_named_everything_is_taken_and_the_distance_told() -> None:
    point = at_target(whole(1), ALL, Target("time", moment=at(35)), None)
    assert point.backups == ("full_1",)
    assert distances(point)["redis"] == (0, 5)
    assert distances(point)["meilisearch"] == (4, 1)


def test_what_is_not_known_before_is_not_told() -> None:
    point = at_target(whole(1), ALL, Target("name", "before_upgrade"), None)
    assert point.moment is None
    assert point.skew_seconds is None
    assert set(distances(point).values()) == {None}
    assert point.to_json()["parts"][0]["seconds_before"] is None


def test_a_source_that_was_only_captured_later_is_at_its_first_capture_and_the_plan_says_so() -> None:
    point = at_target(whole(1), ALL, Target("time", moment=at(50)), [whole(2, 200), whole(1)])
    assert point.backups == ("full_1",)
    assert distances(point)["files"] == (8, 10)
    assert point.note.endswith("; files behind it, as there is nothing older")


def test_a_source_that_was_never_captured_is_refused() -> None:
    with pytest.raises(EntryMissing, match="has no source redis"):
        at_target(backup(1, postgres=(1, 1)), ["postgres", "redis"], Target("time", moment=at(50)), [])
