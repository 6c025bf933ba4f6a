"""The days that backups are partitioned by: calendar days in the operator's time zone, today included."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import dagster as dg

from chrono_backups.errors import UsageError
from chrono_backups.identifiers import BackupType, parse_backup_id
from chrono_backups.repository.repository import Repository
from chrono_backups.settings import Settings


def backup_days(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Every day since the configured first one, up to and including today (``end_offset=1``)."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.first_day.isoformat(), timezone=settings.timezone, end_offset=1
    )


def day_of(moment: datetime, timezone: str) -> date:
    """The calendar day of a moment, as the operator's clock shows it."""
    return moment.astimezone(ZoneInfo(timezone)).date()


def end_of(day: date, timezone: str) -> datetime:
    """The moment at which that day is over, UTC."""
    return datetime.combine(day + timedelta(days=1), time(), ZoneInfo(timezone)).astimezone(UTC)


def checked_day(key: str, settings: Settings, now: datetime) -> date:
    """The day that a launch names; ``UsageError`` where it is none, in the future or before the first one.

    Dagster itself accepts any partition key at launch.
    """
    try:
        day = date.fromisoformat(key)
    except ValueError as error:
        raise UsageError(f"partition {key!r} is no day; expected one like 2026-01-31") from error
    today = day_of(now, settings.timezone)
    if day > today:
        raise UsageError(f"{day} is in the future; today is {today} ({settings.timezone})")
    if day < settings.first_day:
        raise UsageError(
            f"{day} is before the first day, {settings.first_day}",
            hint="BACKUP_FIRST_DAY moves the first day that the UI offers.",
        )
    return day


@dataclass(frozen=True)
class Held:
    """A backup that the repository holds, as far as it can be read."""

    backup_id: str
    type: BackupType
    status: Literal["complete", "partial", "unreadable"]
    content: int
    """Bytes that a whole restore writes."""


def backups_of(repository: Repository, day: date, timezone: str) -> list[Held]:
    """The backups that were begun on that day, newest first; those whose manifest is damaged come last."""
    manifests, damaged = repository.readable_backups()
    held = [
        Held(one.backup_id, one.type, one.status, one.statistics.bytes_total)
        for one in manifests
        if day_of(one.started_at, timezone) == day
    ]
    for name in sorted(damaged):
        parsed = parse_backup_id(name)
        if parsed is not None and day_of(parsed[1], timezone) == day:
            held.append(Held(name, parsed[0], "unreadable", 0))
    return held
