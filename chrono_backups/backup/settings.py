"""How backups run: their limits, their schedules, the operator's commands around them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from chrono_backups.backup.cron import check_cron
from chrono_backups.identifiers import BackupType
from chrono_backups.variables import GIGABYTE, Gigabytes, Section, variable


class LimitsSettings(Section):
    """Limits"""

    max_parallel_operations: int = variable(
        "BACKUP_MAX_PARALLEL_OPERATIONS", 3, ge=1, le=1000, about="Sources or storages at work at once, over all runs."
    )
    bandwidth_limit_mbps: (
        Annotated[float, Field(ge=0, le=10**9), AfterValidator(lambda limit: limit or None)] | None
    ) = variable(
        "BACKUP_BANDWIDTH_LIMIT_MBPS",
        default_note="no limit",
        example="50",
        accepted="megabits per second, a number from 0 (no limit) to 1000000000",
        about="This machine's traffic with its storages, both ways and all processes together.",
    )
    timeout_seconds: int | None = variable(
        "BACKUP_TIMEOUT_SECONDS",
        default_note="no limit",
        example="3600",
        ge=1,
        le=10**9,
        about="A run that lasts longer is cancelled cleanly.",
    )
    memory_limit_gb: Gigabytes | None = variable(
        "BACKUP_MEMORY_LIMIT_GB",
        default_note="the pipeline's own",
        example="2",
        about="Bounds the pipeline's buffers; when they are full the readers wait.",
    )
    max_skew_seconds: float | None = variable(
        "BACKUP_MAX_SKEW_SECONDS",
        default_note="no limit",
        example="60",
        gt=0,
        about="Time between the first and the last source's boundary past which a backup has a finding.",
    )

    @property
    def bandwidth(self) -> float | None:
        """The limit in bytes per second, or None."""
        return None if self.bandwidth_limit_mbps is None else self.bandwidth_limit_mbps * 1_000_000 / 8

    @property
    def memory(self) -> int | None:
        """The limit in bytes, or None."""
        return None if self.memory_limit_gb is None else int(self.memory_limit_gb * GIGABYTE)


def _off_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


Cron = Annotated[
    Annotated[str, AfterValidator(check_cron)] | None,
    BeforeValidator(_off_is_none),
    Field(json_schema_extra={"accepted": "a cron expression of five fields, a shorthand as @daily, or off"}),
]


class SchedulesSettings(Section):
    """Schedules"""

    full: Cron = variable("BACKUP_SCHEDULE_FULL_BACKUPS", "0 2 * * 0", about="When full backups run.")
    incremental: Cron = variable(
        "BACKUP_SCHEDULE_INCREMENTAL_BACKUPS", "0 3 * * 1-6", about="When incremental backups run."
    )
    differential: Cron = variable(
        "BACKUP_SCHEDULE_DIFFERENTIAL_BACKUPS", None, example="0 3 * * 3", about="When differential backups run."
    )
    database_only: Cron = variable(
        "BACKUP_SCHEDULE_DATABASE_ONLY", "0 */6 * * *", about="When backups of the databases alone run."
    )
    files_only: Cron = variable(
        "BACKUP_SCHEDULE_FILES_ONLY", None, example="30 * * * *", about="When backups of the files alone run."
    )
    configuration: Cron = variable(
        "BACKUP_SCHEDULE_CONFIGURATION", "0 4 * * *", about="When backups of the configuration alone run."
    )
    retention: Cron = variable(
        "BACKUP_SCHEDULE_RETENTION",
        "0 5 * * *",
        about="When backups that no rule keeps are forgotten, and space freed.",
    )
    verification: Cron = variable(
        "BACKUP_SCHEDULE_VERIFICATION", "0 6 * * 0", about="When stored backups are proven true."
    )
    drill: Cron = variable(
        "BACKUP_SCHEDULE_DRILL",
        "0 7 1 * *",
        about="When the newest backup is restored to a throwaway place, started and found true.",
    )

    def cron(self, backup_type: BackupType) -> str | None:
        """The schedule of backups of that type, in ``Settings.timezone``; None where they have none."""
        schedule: str | None = getattr(self, backup_type)
        return schedule


_COMMAND = "a shell command"


class HooksSettings(Section):
    """Hooks"""

    before: str | None = variable(
        "BACKUP_HOOK_BEFORE",
        hidden=True,
        accepted=_COMMAND,
        example="/app/hooks/maintenance on",
        about="Runs before a capture; its failure stops the backup.",
    )
    after: str | None = variable(
        "BACKUP_HOOK_AFTER",
        hidden=True,
        accepted=_COMMAND,
        example="/app/hooks/maintenance off",
        about="Runs after a capture, whatever became of it.",
    )
    failed: str | None = variable(
        "BACKUP_HOOK_FAILED",
        hidden=True,
        accepted=_COMMAND,
        example="/app/hooks/failed",
        about="Runs when a backup failed.",
    )
