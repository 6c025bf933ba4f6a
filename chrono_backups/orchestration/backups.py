"""One daily asset per backup type: ``plan → base → stores → trees → commit`` (the steps are in ``steps.py``).

Several backups of a day are several materializations of its partition; the backup's id is metadata and
a tag of each.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from chrono_backups.identifiers import BACKUP_TYPES, SOURCES_OF_TYPE, BackupType
from chrono_backups.orchestration.days import backup_days
from chrono_backups.orchestration.launch import BackupLaunch
from chrono_backups.orchestration.names import BACKUP_TYPE_TAG, backup_asset_key
from chrono_backups.orchestration.sources import SOURCE_ASSETS, configured_sources
from chrono_backups.orchestration.steps import LATER_STAGES, begin, capture, commit, plan
from chrono_backups.settings import Settings

_WORDS: Mapping[BackupType, str] = {
    "full": "Everything, every byte read.",
    "incremental": "Everything; of files, what changed since the newest backup is read.",
    "differential": "Everything; of files, what changed since the newest full backup is read.",
    "database_only": "The databases alone.",
    "files_only": "Files and configuration alone, every byte read.",
    "configuration": "The configuration alone.",
}


def build_backup(backup_type: BackupType, settings: Settings) -> dg.AssetsDefinition:
    """The daily asset of one backup type."""

    @dg.config_mapping
    def bind_type(config: BackupLaunch) -> dict[str, Any]:
        return {"plan": {"config": {**config.model_dump(), "backup_type": backup_type}}}

    sources = [name for name in configured_sources(settings) if name in SOURCES_OF_TYPE[backup_type]]

    @dg.graph_asset(
        name=backup_asset_key(backup_type).to_python_identifier(),
        description=(
            f"{_WORDS[backup_type]} Launched for a past day it materializes what the repository proves that the"
            " day held, as a synthetic recovery point."
        ),
        ins={name: dg.AssetIn(SOURCE_ASSETS[name].key, dagster_type=dg.Nothing) for name in sources},
        config=bind_type,
        partitions_def=backup_days(settings),
        group_name="backups",
        kinds={settings.compression.type} - {"none"},
        tags={BACKUP_TYPE_TAG: backup_type},
    )
    def backup(**lineage: Any) -> Any:
        planned = plan(sources=list(lineage.values())) if lineage else plan()
        taken = {"base": planned.base.map(capture.alias("base")).collect()}
        for stage in LATER_STAGES:
            begun = begin.alias(f"begin_{stage}")(getattr(planned, stage), after=list(taken.values())[-1])
            taken[stage] = begun.map(capture.alias(stage)).collect()
        return commit(planned.chosen, **taken)

    return backup


def build_backups(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of all backup types."""
    return [build_backup(backup_type, settings) for backup_type in BACKUP_TYPES]
