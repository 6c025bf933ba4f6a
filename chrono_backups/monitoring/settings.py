"""What is watched and recorded."""

from __future__ import annotations

from pathlib import Path

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
