"""The launch forms: what an operator can say in the UI when starting something. Typed, with defaults that suit."""

from typing import Literal, Optional

import dagster as dg
from pydantic import Field

from chrono_backups.identifiers import SOURCE_NAMES, BackupType

# The words of identifiers.StorageName and "primary": a form's choice has to be one flat Literal.
StorageChoice = Literal["primary", "local", "local_mirror", "aws_s3", "gcs", "azure_blob", "sftp"]


class BackupLaunch(dg.Config):
    """One backup. Every field may be left as it is."""

    storage: StorageChoice = Field(
        default="primary", description="The enabled storage to write to. `primary` is where backups go otherwise."
    )
    include_patterns: list[str] = Field(
        default=[],
        description="Added to BACKUP_INCLUDE_PATTERNS for this backup: only files that match one of them.",
    )
    exclude_patterns: list[str] = Field(
        default=[], description="Added to BACKUP_EXCLUDE_PATTERNS for this backup: no files that match one of them."
    )
    verify_integrity: Optional[bool] = Field(  # noqa: UP045 (the launchpad documents this form)
        default=None,
        description="Read back every byte that this backup stored. Unset: as BACKUP_VERIFY_INTEGRITY says.",
    )
    note: str = Field(default="", description="Why, in your words; kept with the backup.")


class BackupPlanConfig(BackupLaunch):
    """A backup's form with its type, which the asset binds."""

    backup_type: BackupType


class VerificationLaunch(dg.Config):
    """How a day's backups are proven."""

    depth: Literal["full", "quick"] = Field(
        default="full",
        description="`full` reads, decrypts and compares every byte; `quick` proves the structure alone.",
    )
    repair: bool = Field(
        default=False, description="Put back what is damaged or missing from another enabled storage that has it whole."
    )
    storage: StorageChoice = Field(
        default="primary", description="The enabled storage to prove, and to repair. `primary` is where backups go."
    )


class DrillLaunch(dg.Config):
    """What is drilled, and how."""

    backup_id: str = Field(
        default="",
        description="A backup's id, or `latest`. Empty: the day's newest complete backup with the most sources.",
    )
    sources: list[str] = Field(
        default=[],
        description=f"Only these sources, of {', '.join(SOURCE_NAMES)}; empty: all, which alone proves the backup.",
    )
    target_time: str = Field(
        default="",
        description="Recover a PostgreSQL cluster to this time as well (2026-01-31T14:30:00Z), to `latest`, the end of"
        " its WAL, or to `end_of_day`. Empty: to where the base backup ends.",
    )
    amcheck: bool = Field(default=True, description="Have pg_amcheck read every table and index.")


class RetentionLaunch(dg.Config):
    """One round of retention."""

    dry_run: bool = Field(default=False, description="Show what would be forgotten and freed; change nothing.")


class RestoreLaunch(dg.Config):
    """What to restore, to which moment, and where to."""

    backup_id: str = Field(default="latest", description="A backup's id, or `latest`.")
    target: str = Field(
        default="",
        description="A new or empty directory on the worker's machine. With `in_place` PostgreSQL's data directory"
        " goes there, and all else to where it was; empty where PostgreSQL is not restored.",
    )
    sources: list[str] = Field(
        default=[], description=f"Only these sources, of {', '.join(SOURCE_NAMES)}; empty: all that the backup has."
    )
    patterns: list[str] = Field(default=[], description="Only paths that match one of these; empty: all.")
    target_time: str = Field(
        default="",
        description="Recover PostgreSQL to this time (2026-01-31T14:30:00Z) or to `latest`, the end of its WAL; with"
        " the backup `latest` the others are as captured last before it. Empty: to where it meets the other stores.",
    )
    start: bool = Field(
        default=False,
        description="Start the restored PostgreSQL server, and follow it to its target; it goes on running.",
    )
    in_place: bool = Field(
        default=False,
        description="Put data back where it was: the consent to overwrite. A safety backup is taken first.",
    )
    safety_backup: bool = Field(
        default=True, description="Take a backup of what is there before overwriting it (`in_place` only)."
    )
    dry_run: bool = Field(default=False, description="Show the plan; change nothing.")
    storage: StorageChoice = Field(default="primary", description="The enabled storage to restore from.")
