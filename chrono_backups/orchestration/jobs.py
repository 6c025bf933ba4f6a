"""All jobs. Those that make assets are here; retention, restore and history have files of their own."""

from typing import TYPE_CHECKING

import dagster as dg

from chrono_backups.identifiers import BACKUP_TYPES, BackupType
from chrono_backups.orchestration.history import rebuild_history_job
from chrono_backups.orchestration.names import BACKUP_TYPE_TAG, DRILL, KIND_TAG, VERIFICATION, backup_asset_key
from chrono_backups.orchestration.recovery import restore_job
from chrono_backups.orchestration.retention import retention_job
from chrono_backups.orchestration.runs import limits_tags
from chrono_backups.orchestration.sources import configured_sources, observe_job
from chrono_backups.settings import Settings

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob


def build_backup_job(backup_type: BackupType, settings: Settings) -> "AssetJob":
    """Take one backup of that type and check it."""
    return dg.define_asset_job(
        f"{backup_type}_backup_job",
        selection=dg.AssetSelection.assets(backup_asset_key(backup_type)),
        description=f"Take a {backup_type.replace('_', ' ')} backup and check it.",
        # Not run_tags: those are dropped for launches from the UI.
        tags={BACKUP_TYPE_TAG: backup_type, **limits_tags(settings)},
    )


def build_verification_job(settings: Settings) -> "AssetJob":
    """Prove the backups of a day."""
    return dg.define_asset_job(
        "verification_job",
        selection=dg.AssetSelection.assets(VERIFICATION),
        description="Prove that the backups of a day are what was written.",
        tags={KIND_TAG: "verification", **limits_tags(settings)},
    )


def build_drill_job(settings: Settings) -> "AssetJob":
    """Restore a day's backup to a throwaway place and find it true."""
    return dg.define_asset_job(
        "drill_job",
        selection=dg.AssetSelection.assets(DRILL),
        description="Restore a day's backup to a throwaway place, start it, find it true, and keep the evidence.",
        tags={KIND_TAG: "drill", **limits_tags(settings)},
    )


def build_jobs(settings: Settings) -> "list[AssetJob | dg.JobDefinition]":
    """All jobs that these settings have a use for."""
    return [
        *(build_backup_job(backup_type, settings) for backup_type in BACKUP_TYPES),
        build_verification_job(settings),
        build_drill_job(settings),
        *([observe_job] if configured_sources(settings) else []),
        retention_job,
        restore_job,
        rebuild_history_job,
    ]
