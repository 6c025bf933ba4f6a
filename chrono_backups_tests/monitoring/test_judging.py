"""The rules that judge what was seen: pure, a row a case."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from chrono_backups.identifiers import BackupType, backup_id
from chrono_backups.monitoring import keeping, plausible, recency, wal
from chrono_backups.monitoring.settings import HealthSettings
from chrono_backups.monitoring.stored import Room, Stored
from chrono_backups.monitoring.wal import WalState
from chrono_backups_tests.monitoring.making import NOW, ago, drill, lease, manifest, stored

SETTINGS = HealthSettings()
DUE = ago(hours=1)


def recent(
    held: Stored, due: dict[BackupType, datetime] | None = None, settings: HealthSettings = SETTINGS
) -> list[str]:
    return [one.code for one in recency.recent_backups(held, due or {"incremental": DUE}, settings, NOW)]


YESTERDAY = manifest("incremental", ago(days=1))


@pytest.mark.parametrize(
    ("held", "codes"),
    [
        (stored(), ["no-backup"]),
        (stored(YESTERDAY, manifest("incremental", ago(minutes=59))), []),
        (stored(YESTERDAY), ["backup-overdue"]),
        (stored(YESTERDAY, manifest("full", ago(minutes=30))), []),
        (stored(YESTERDAY, manifest("configuration", ago(minutes=30))), ["backup-overdue"]),
        (stored(YESTERDAY, manifest("incremental", ago(minutes=30), partial=True)), ["backup-partial"]),
        (stored(YESTERDAY, leases=(lease(backup_id("incremental", ago(minutes=58)), ago(minutes=58)),)), []),
        (stored(YESTERDAY, leases=(lease(backup_id("full", ago(minutes=58)), ago(minutes=58)),)), ["backup-overdue"]),
        (
            stored(
                YESTERDAY,
                leases=(lease(backup_id("incremental", ago(minutes=58)), ago(minutes=58), term=timedelta(0)),),
            ),
            ["backup-overdue"],
        ),
        (
            stored(manifest("full", ago(minutes=70), partial=True), created=ago(minutes=80)),
            ["backup-overdue", "no-complete-backup"],
        ),
        (stored(manifest("full", ago(minutes=10)), created=ago(minutes=20)), []),
    ],
)
def test_every_schedules_backup_is_there(held: Stored, codes: list[str]) -> None:
    assert recent(held) == codes


def test_it_is_not_overdue_before_its_time_is_over() -> None:
    assert recent(stored(YESTERDAY), {"incremental": ago(minutes=14)}) == []
    assert recent(stored(YESTERDAY), {"incremental": ago(minutes=15)}) == ["backup-overdue"]
    young = stored(manifest("incremental", ago(minutes=10)), created=ago(minutes=11))
    assert recent(young, {"full": DUE}) == [], "none was due in its life"


def test_a_full_backup_is_what_only_a_full_one_stands_for() -> None:
    held = stored(manifest("full", ago(days=7)), manifest("incremental", ago(minutes=5)))
    assert recent(held, {"full": DUE}) == ["backup-overdue"]


def test_an_age_may_be_asked_for() -> None:
    strict = HealthSettings(max_age_hours=20)
    assert recent(stored(YESTERDAY), {"incremental": ago(days=1)}, strict) == ["backup-too-old"]


@pytest.mark.parametrize(
    ("room", "codes"),
    [
        (Room(10, 90, 100), []),
        (Room(10, 20, 100), ["storage-nearly-full"]),
        (Room(10, 5, 100), ["storage-full"]),
        (Room(10, None, None), []),
        (Room(10, 9, None), ["storage-nearly-full"]),
    ],
)
def test_room(room: Room, codes: list[str]) -> None:
    assert [one.code for one in keeping.room("local", room, 5, SETTINGS)] == codes


def test_replicas() -> None:
    old, fresh = manifest("full", ago(hours=7)), manifest("full", ago(hours=5))
    primary = stored(old, fresh)
    assert list(keeping.replicas(primary, stored(old, storage="sftp"), SETTINGS, NOW)) == []
    (found,) = keeping.replicas(primary, stored(fresh, storage="sftp"), SETTINGS, NOW)
    assert (found.code, found.subject) == ("replica-missing", "sftp")
    assert old.backup_id in found.message and "replicate --to sftp" in found.hint
    (found,) = keeping.replicas(primary, stored(old, storage="sftp", repository="x"), SETTINGS, NOW)
    assert found.code == "another-repository"


def test_retention_that_goes_on_and_one_that_is_blocked() -> None:
    day = timedelta(days=1)
    assert list(keeping.retention(stored(condemned=(ago(days=2),)), day, NOW)) == []
    held = stored(
        condemned=(ago(days=9), ago(days=1)), leases=(lease("full_20260603_020000", ago(days=7), term=8 * day),)
    )
    (found,) = keeping.retention(held, day, NOW)
    assert found.code == "retention-blocked" and "full_20260603_020000" in found.message


@pytest.mark.parametrize(
    ("held", "codes"),
    [
        (stored(YESTERDAY), ["drill-missing"]),
        (stored(YESTERDAY, created=ago(days=3)), []),
        (stored(YESTERDAY, drills=(drill(ago(days=2)),)), []),
        (stored(YESTERDAY, drills=(drill(ago(days=36)),)), ["drill-too-old"]),
        (stored(YESTERDAY, drills=(drill(ago(days=1), proven=False), drill(ago(days=2)))), ["drill-failed"]),
        (stored(), []),
    ],
)
def test_drills(held: Stored, codes: list[str]) -> None:
    assert [one.code for one in keeping.drills(held, SETTINGS, NOW)] == codes


def test_sizes_and_clocks() -> None:
    kin = [manifest("full", ago(days=day)) for day in range(2, 6)]
    assert list(plausible.odd_sizes(stored(manifest("full", ago(days=1), size=1900), *kin), 2)) == []
    found = list(plausible.odd_sizes(stored(manifest("full", ago(days=1), size=400), *kin), 2))
    assert [(one.code, one.subject) for one in found] == [
        ("backup-suspiciously-smaller", backup_id("full", ago(days=1)))
    ] * 2
    assert [one.code for one in plausible.clock(stored(manifest("full", ago(minutes=-10))), NOW)] == ["clock-wrong"]
    assert list(plausible.clock(stored(manifest("full", ago(minutes=3))), NOW)) == []


@pytest.mark.parametrize(
    ("state", "codes"),
    [
        (WalState(False), []),
        (WalState(True, 5, ago(seconds=10), (), 9, NOW), []),
        (WalState(True, 5, ago(seconds=400), (), 9, NOW), ["wal-lag"]),
        (WalState(True, 9, ago(hours=4), (), 9, NOW), []),
        (WalState(True, 5, ago(seconds=10), ("LSN 0/1 to 0/2",), None, None), ["wal-gap"]),
        (WalState(False, server_now=ago(minutes=3)), ["clock-wrong"]),
    ],
)
def test_wal(state: WalState, codes: list[str]) -> None:
    assert [one.code for one in wal.wal(state, SETTINGS, NOW)] == codes
