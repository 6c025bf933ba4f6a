"""Which backups are kept, and for how long."""

from __future__ import annotations

from chrono_backups.variables import Days, Section, variable


class RetentionPolicy(Section):
    """Retention

    A backup is kept if any rule keeps it.
    """

    retention_days: Days = variable("BACKUP_RETENTION_DAYS", 30, about="Every backup younger than this is kept.")
    keep_daily_for_days: Days = variable(
        "BACKUP_KEEP_DAILY_FOR_DAYS", 7, about="The newest of each day is kept so many days."
    )
    keep_weekly_for_weeks: int = variable(
        "BACKUP_KEEP_WEEKLY_FOR_WEEKS", 4, ge=0, le=5200, about="The newest of each ISO week is kept so many weeks."
    )
    keep_monthly_for_months: int = variable(
        "BACKUP_KEEP_MONTHLY_FOR_MONTHS", 12, ge=0, le=1200, about="The newest of each month is kept so many months."
    )
    keep_yearly_for_years: int = variable(
        "BACKUP_KEEP_YEARLY_FOR_YEARS", 5, ge=0, le=100, about="The newest of each year is kept so many years."
    )
    min_backups_to_keep: int = variable(
        "BACKUP_MIN_BACKUPS_TO_KEEP",
        3,
        ge=1,
        le=100000,
        about="So many of the newest complete ones are kept at any age.",
    )
    prune_grace_hours: float = variable(
        "BACKUP_PRUNE_GRACE_HOURS",
        24.0,
        ge=0,
        le=876000,
        about="Hours between condemning an object and deleting it; longer than any backup runs.",
    )
