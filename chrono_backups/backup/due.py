"""When a schedule was due last, read as Dagster reads it: in the time zone of the schedules."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from chrono_backups.backup.cron import EVERY_DAY, EVERY_WEEKDAY, Times, times_of

_DAYS_BACK = 8 * 366
"""The 29th of February may be eight years ago."""


def last_due(cron: str, now: datetime, timezone: str) -> datetime | None:
    """The last moment up to ``now`` that ``cron`` names (UTC); None where there was none in eight years.

    A time that a change of the clocks leaves out is that much later; one that comes twice is due the first time.
    """
    times, zone = times_of(cron), ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    for back in range(_DAYS_BACK):
        day = today - timedelta(days=back)
        if not _is_on(times, day):
            continue
        for hour in sorted(times.hours, reverse=True):
            for minute in sorted(times.minutes, reverse=True):
                moment = datetime.combine(day, time(hour, minute), zone).astimezone(UTC)
                if moment <= now:
                    return moment
    return None


def _is_on(times: Times, day: date) -> bool:
    if day.month not in times.months:
        return False
    of_month, of_week = day.day in times.days, day.isoweekday() % 7 in times.weekdays
    # As cron has it: where both are narrowed, either will do.
    if times.days == EVERY_DAY or times.weekdays == EVERY_WEEKDAY:
        return of_month and of_week
    return of_month or of_week
