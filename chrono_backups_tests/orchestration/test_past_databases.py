"""Backfilling a past day of a database: base backup and WAL up to the day's end, or a run that says why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups_tests.maintenance.wal_site import SIZE, archive, name, put_base, put_segments, stored
from chrono_backups_tests.orchestration.site import Site, facts, failures


def days_ago(count: int) -> datetime:
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=count)


@pytest.fixture
def database(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A cluster that is configured and never asked."""
    monkeypatch.setenv("BACKUP_POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("BACKUP_POSTGRES_PORT", "1")
    return site


def fill(site: Site, *, bases: dict[int, int], segments: dict[int, range]) -> dict[int, str]:
    """Base backups and WAL, by how many days ago; the base backups' ids."""
    ids = {}
    for age in sorted({*bases, *segments}, reverse=True):
        with site.application(days_ago(age)).open_repository() as repository:
            if age in bases:
                ids[age] = put_base(repository, bases[age]).backup_id
            put_segments(repository, segments.get(age, range(0)))
    return ids


class TestBackfill:
    @property
    def day(self) -> str:
        return days_ago(5).date().isoformat()

    def test_wal_leads_to_the_days_end(self, database: Site) -> None:
        ids = fill(database, bases={7: 2, 3: 12}, segments={7: range(2, 6), 4: range(6, 14)})
        result = database.launch("database_only_backup_job", self.day)
        assert result.success, failures(result)
        shown = facts(database.materializations("database_only")[0])
        assert shown["backup_id"] == ids[7]
        assert (shown["synthetic"], shown["stands_for"], shown["seconds_before_end_of_day"]) == (True, self.day, 0.0)
        end = datetime.fromisoformat(self.day).replace(tzinfo=UTC) + timedelta(days=1)
        assert shown["recovered_to"] == end.timestamp()
        assert (
            f"chrono-backups restore {ids[7]} --to DIR --source postgres --target-time {end:%Y-%m-%dT}"
            in (shown["restore"])
        )
        with database.application().open_repository() as repository:
            assert repository.pins() == {
                ids[7]: f"synthetic recovery point of {self.day}, postgres recovered to {end:%Y-%m-%dT%H:%M:%S.000000Z}"
            }
            repository.forget(ids[3], "test")
            grace = timedelta(0)
            prune(repository, plan_prune(repository, grace=grace, now=repository.clock.now()))
            assert stored(repository) == [name(number) for number in range(2, 14)], "the pin keeps the WAL, too"

    def test_a_gap_fails_the_run_and_says_where(self, database: Site) -> None:
        fill(database, bases={7: 2, 3: 12}, segments={7: range(2, 5), 4: range(6, 14)})
        result = database.launch("database_only_backup_job", self.day)
        assert not result.success
        assert "can't be recovered" in failures(result)
        assert f"{5 * SIZE:X}" in failures(result), "as far as it can be is named"
        assert database.materializations("database_only") == []
        with database.application().open_repository() as repository:
            assert repository.pins() == {}

    def test_wal_that_ends_too_early_fails_the_run(self, database: Site) -> None:
        fill(database, bases={7: 2}, segments={7: range(2, 6)})
        assert not database.launch("database_only_backup_job", self.day).success

    def test_where_nothing_is_archived_the_base_backup_stands_by_itself(self, database: Site) -> None:
        ids = fill(database, bases={7: 2}, segments={})
        result = database.launch("database_only_backup_job", self.day)
        assert result.success, failures(result)
        shown = facts(database.materializations("database_only")[0])
        assert shown["backup_id"] == ids[7]
        assert "recovered_to" not in shown
        assert shown["seconds_before_end_of_day"] > 86400

    def test_other_sources_are_taken_from_their_newest_snapshots(self, database: Site) -> None:
        from chrono_backups_tests.orchestration.test_backfills import take

        ids = fill(database, bases={7: 2}, segments={7: range(2, 6), 4: range(6, 8)})
        files = take(database, days_ago(6), "files_only")
        configuration = take(database, days_ago(5), "configuration")
        result = database.launch("full_backup_job", self.day)
        assert result.success, failures(result)
        shown = facts(database.materializations("full")[0])
        for backup_id in (ids[7], files.backup_id, configuration.backup_id):
            assert backup_id in shown["made_of"]
            assert f"restore {backup_id} --to DIR/" in shown["restore"]
        with database.application().open_repository() as repository:
            assert set(repository.pins()) == {ids[7], files.backup_id, configuration.backup_id}
            assert archive(repository).contents().segments
