"""Dagster's history of backups, rebuilt from the repository, which is the truth.

Every backup that the repository holds and Dagster does not know (its database was lost, or the backup
was taken on the command line) is reported as a materialization of its day.
"""

import dagster as dg

from chrono_backups.identifiers import BACKUP_TYPES, BackupType
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.metadata import backup_metadata
from chrono_backups.orchestration.names import BACKUP_ID_TAG, KIND_TAG, backup_asset_key
from chrono_backups.orchestration.resources import BackupsResource

PAGE = 1000


def known_backups(instance: dg.DagsterInstance, backup_type: BackupType) -> set[str]:
    """The ids of the backups of that type that Dagster has a materialization of."""
    known: set[str] = set()
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(backup_asset_key(backup_type), limit=PAGE, cursor=cursor)
        for record in page.records:
            made = record.asset_materialization
            if made is not None and (identifier := (made.tags or {}).get(BACKUP_ID_TAG)):
                known.add(identifier)
        if not page.has_more:
            return known
        cursor = page.cursor


@dg.op
def report_backups(context: dg.OpExecutionContext, backups: BackupsResource) -> None:
    """Report each backup of the repository that Dagster does not know as a materialization of its day."""
    with explained(context), backups.opened() as (application, repository):
        settings, (manifests, damaged) = application.settings, repository.readable_backups()
    known = {identifier for one in BACKUP_TYPES for identifier in known_backups(context.instance, one)}
    reported = too_old = 0
    for manifest in reversed(manifests):
        day = day_of(manifest.started_at, settings.timezone)
        if manifest.backup_id in known:
            continue
        if day < settings.first_day:
            too_old += 1
            continue
        context.log_event(
            dg.AssetMaterialization(
                backup_asset_key(manifest.type),
                partition=day.isoformat(),
                description="Found in the repository.",
                metadata=backup_metadata(manifest),
                tags={BACKUP_ID_TAG: manifest.backup_id},
            )
        )
        reported += 1
    for name, error in damaged.items():
        context.log.warning(f"{name} is not shown: {error}")
    if too_old:
        context.log.warning(f"{too_old} backups are older than BACKUP_FIRST_DAY, {settings.first_day}: not shown")
    context.add_output_metadata(
        {"held": len(manifests), "reported": reported, "before_first_day": too_old, "unreadable": len(damaged)}
    )


@dg.job(name="rebuild_history", tags={KIND_TAG: "history"})
def rebuild_history_job() -> None:
    """Show every backup of the repository that Dagster does not know, as if it had made it."""
    report_backups()
