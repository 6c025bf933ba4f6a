"""What people hear of what health found: from a real repository, at moments of a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chrono_backups.assembly import Application
from chrono_backups.clock import FrozenClock
from chrono_backups.events import Finding
from chrono_backups.monitoring.health import HealthReport
from chrono_backups.notifications.outcome import Ended
from chrono_backups.oversight import check_health, digest_rows, tell_health
from chrono_backups.settings import Settings, load
from chrono_backups_tests.notifications.office import Kept, Office

BEGIN = datetime(2026, 3, 1, 1, 0, tzinfo=UTC)
OVERDUE = "backup-overdue:full backup"


class Place:
    """A repository, somebody who hears, and a clock."""

    def __init__(self, root: Path) -> None:
        (root / "data").mkdir()
        (root / "data" / "file").write_text("content")
        self.clock = FrozenClock(BEGIN)
        self.settings: Settings = load(
            {
                "BACKUP_LOCAL_PATH": str(root / "repository"),
                "BACKUP_ENCRYPTION_ENABLED": "false",
                "BACKUP_FILES_PATHS": str(root / "data"),
                "BACKUP_SCHEDULE_FULL_BACKUPS": "0 2 * * *",
                "BACKUP_SCHEDULE_INCREMENTAL_BACKUPS": "off",
                "BACKUP_SCHEDULE_CONFIGURATION": "off",
                "BACKUP_HEALTH_DISK_WARNING_PERCENT": "100",
                "BACKUP_HEALTH_DISK_CRITICAL_PERCENT": "100",
                "BACKUP_HEALTH_CHECK_TIMEOUT": "60",
            }
        )
        self.repository = root / "repository"
        self.heard = Kept("slack")
        self.office = Office(root / "state", self.heard)
        self.office.clock = self.clock
        Application(self.settings, clock=self.clock).create_repository().close()

    def backup(self) -> str:
        application = Application(self.settings, clock=self.clock)
        return application.take_backup("full", trigger="a test").backup_id

    def look(self, change: Callable[[HealthReport], HealthReport] = lambda report: report) -> None:
        """One tick of the sensor, and one of the delivery."""
        alerts = self.office.alerts()
        tell_health(alerts, change(check_health(self.settings, self.clock)))
        alerts.flush(60)

    @property
    def told(self) -> list[tuple[str, str]]:
        return self.heard.told


@pytest.fixture(autouse=True)
def unhurried_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrono_backups.notifications.state.SYNCHRONOUS", "OFF")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_overdue_is_told_within_two_intervals_and_that_it_came_too(place: Place) -> None:
    first = place.backup()
    due = BEGIN.replace(hour=2) + timedelta(minutes=place.settings.health.overdue_minutes)
    interval = timedelta(seconds=place.settings.health.interval)
    place.clock.advance(timedelta(minutes=50))
    while place.clock.now() < due + timedelta(minutes=30):
        place.look()
        place.clock.advance(interval)
    assert place.told == [("opened", OVERDUE)]
    (message,) = place.heard.messages
    assert due <= message.at <= due + 2 * interval
    assert "2026-03-01T02:00:00" in message.what and "not there" in message.what
    assert message.standing is not None and message.standing.newest_id == first
    assert (message.backup_type, message.severity) == ("full", "error")
    place.backup()
    place.look()
    assert place.told == [("opened", OVERDUE), ("resolved", OVERDUE)]


def test_a_storage_that_is_gone_hides_nothing_and_says_what_was_safe(place: Place, tmp_path: Path) -> None:
    first = place.backup()
    place.clock.advance(timedelta(hours=3))
    place.look()
    place.repository.rename(tmp_path / "away")
    place.clock.advance(timedelta(hours=2))
    place.look()
    gone = ("opened", "storage-unavailable:local")
    assert place.told == [("opened", OVERDUE), gone], "what can't be seen is not over"
    standing = place.heard.messages[-1].standing
    assert standing is not None and standing.newest_id == first
    (tmp_path / "away").rename(place.repository)
    place.look()
    assert place.told[2:] == [("resolved", "storage-unavailable:local")]


def test_it_ends_what_a_run_found_of_a_storage(place: Place) -> None:
    place.backup()
    alerts = place.office.alerts()
    ended = Ended("full backup", "backup-failed", how="failed", message="no answer", backup_type="full")
    alerts.ended(replace(ended, kind="StorageUnavailable", place="local"))
    place.look()
    gone = "storage-unavailable:local"
    assert place.told == [("opened", gone), ("resolved", gone)]


def test_silence_is_believed_the_second_time(place: Place) -> None:
    place.backup()

    def silent(report: HealthReport) -> HealthReport:
        finding = Finding("storage-hangs", "error", "local", "it did not answer within 3 s")
        return replace(report, by_check={**report.by_check, "storage_backends": (finding,)})

    place.look(silent)
    place.look()
    place.look(silent)
    assert place.told == []
    place.look(silent)
    assert place.told == [("opened", "storage-hangs:local")]
    assert place.heard.messages[0].event == "storage-unreachable"
    place.look()
    assert place.told[1:] == [("resolved", "storage-hangs:local")]


def test_what_a_check_could_not_find_out_goes_on(place: Place) -> None:
    place.backup()
    place.clock.advance(timedelta(hours=3))
    place.look()

    def unknown(report: HealthReport) -> HealthReport:
        blind = {**report.checks, "recent_backups": "unknown"}
        return replace(report, checks=blind, by_check={**report.by_check, "recent_backups": ()})

    place.look(unknown)
    assert place.told == [("opened", OVERDUE)]


def test_a_digests_rows_are_the_last_days(place: Place) -> None:
    first = place.backup()
    place.clock.advance(timedelta(hours=30))
    second = place.backup()
    rows = digest_rows(place.settings, place.clock, place.clock.now() - timedelta(days=1))
    assert [row[:2] for row in rows] == [(second, "complete")]
    assert first != second
