"""What is watched and recorded."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationInfo, field_validator

from chrono_backups.variables import AbsolutePath, Section, variable


class AuditSettings(Section):
    """Audit log"""

    enabled: bool = variable("BACKUP_AUDIT_ENABLED", False, about="Record who did what, in a chained log.")
    log_all_operations: bool = variable(
        "BACKUP_AUDIT_LOG_ALL_OPERATIONS", False, about="Reading too, not only what changes something."
    )
    log_file: AbsolutePath = variable(
        "BACKUP_AUDIT_LOG_FILE", Path("/app/logs/backup_audit.log"), about="The log's file."
    )
    retention_days: int = variable(
        "BACKUP_AUDIT_RETENTION_DAYS", 365, ge=1, le=36500, about="How long its lines are kept."
    )


class LogSettings(Section):
    """Log file"""

    file: AbsolutePath | None = variable(
        "BACKUP_LOG_FILE",
        default_note="none is written",
        example="/app/logs/backup.log",
        about="A file of JSON lines beside what a terminal is shown: acts, findings, errors.",
    )
    max_size_mb: float = variable(
        "BACKUP_LOG_MAX_SIZE_MB", 50.0, gt=0, le=100000, about="Megabytes at which the file is put aside as `.1`."
    )
    keep: int = variable("BACKUP_LOG_KEEP", 10, ge=1, le=1000, about="So many files that were put aside are kept.")


class HealthSettings(Section):
    """Health checks"""

    enabled: bool = variable("BACKUP_HEALTH_CHECK_ENABLED", False, about="Check the system's health by itself.")
    interval: int = variable("BACKUP_HEALTH_CHECK_INTERVAL", 300, ge=1, le=86400, about="Seconds between two checks.")
    storage_connectivity: bool = variable(
        "BACKUP_HEALTH_CHECK_STORAGE_CONNECTIVITY",
        True,
        default_note="true where health checks are enabled",
        example="true",
        about="Every storage answers.",
    )
    disk_space: bool = variable(
        "BACKUP_HEALTH_CHECK_DISK_SPACE",
        True,
        default_note="true where health checks are enabled",
        example="true",
        about="There is room for more backups.",
    )
    recent_backups: bool = variable(
        "BACKUP_HEALTH_CHECK_RECENT_BACKUPS",
        True,
        default_note="true where health checks are enabled",
        example="true",
        about="Every schedule's backup is there.",
    )
    timeout: float = variable(
        "BACKUP_HEALTH_CHECK_TIMEOUT",
        3.0,
        gt=0,
        le=600,
        about="Seconds that all checks together may take; what has not answered by then is a finding.",
    )
    overdue_minutes: int = variable(
        "BACKUP_HEALTH_OVERDUE_MINUTES",
        15,
        ge=0,
        le=100000,
        about="A schedule's backup that has neither begun nor ended so long after its time is overdue.",
    )
    max_age_hours: float | None = variable(
        "BACKUP_HEALTH_MAX_AGE_HOURS",
        default_note="as the schedules say",
        example="26",
        gt=0,
        le=100000,
        about="The newest complete backup must not be older, whatever the schedules say.",
    )
    disk_warning: float = variable(
        "BACKUP_HEALTH_DISK_WARNING_PERCENT", 80.0, gt=0, le=100, about="A storage so full is a warning."
    )
    disk_critical: float = variable(
        "BACKUP_HEALTH_DISK_CRITICAL_PERCENT", 95.0, gt=0, le=100, about="A storage so full is critical."
    )

    @field_validator("disk_critical")
    @classmethod
    def _above_the_warning(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("disk_warning", 0):
            raise ValueError("a number of at least BACKUP_HEALTH_DISK_WARNING_PERCENT")
        return value

    replica_hours: float = variable(
        "BACKUP_HEALTH_REPLICA_HOURS", 6.0, ge=0, le=100000, about="A backup that has no replica by then has a finding."
    )
    drill_days: int = variable(
        "BACKUP_HEALTH_DRILL_DAYS",
        35,
        ge=0,
        le=36500,
        about="The newest proof by a restore drill must not be older; 0: drills are not asked for.",
    )
    wal_lag_seconds: float = variable(
        "BACKUP_HEALTH_WAL_LAG_SECONDS",
        300.0,
        gt=0,
        le=10**7,
        about="WAL that the server has and the archive has not must not be older.",
    )
    size_factor: float = variable(
        "BACKUP_HEALTH_SIZE_FACTOR",
        2.0,
        gt=1,
        le=1000,
        about="A source that is so many times smaller or larger than in its kin is suspicious.",
    )
