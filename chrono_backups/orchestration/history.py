"""Dagster's history of backups, rebuilt from the repository, which is the truth.

Every backup that the repository holds, and every drill that it has evidence of, and Dagster does not know (its database
was lost, or the command line did it) is reported as a materialization of its day.
"""

import dagster as dg

from chrono_backups.identifiers import BACKUP_TYPES
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.drills import evaluation, evidence_day, evidence_metadata
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.metadata import backup_metadata
from chrono_backups.orchestration.names import BACKUP_ID_TAG, DRILL, EVIDENCE_TAG, KIND_TAG, backup_asset_key
from chrono_backups.orchestration.replicas import DAY, STORAGE
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.repository.evidence import evidence

PAGE = 1000


def known_tags(instance: dg.DagsterInstance, asset: dg.AssetKey, tag: str) -> set[str]:
    """The values of that tag on the materializations that Dagster has of an asset."""
    known: set[str] = set()
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(asset, limit=PAGE, cursor=cursor)
        for record in page.records:
            made = record.asset_materialization
            if made is not None and (identifier := (made.tags or {}).get(tag)):
                known.add(identifier)
        if not page.has_more:
            return known
        cursor = page.cursor


@dg.op
def report_backups(context: dg.OpExecutionContext, backups: BackupsResource) -> None:
    """Report each backup of the repository that Dagster does not know as a materialization of its day."""
    with explained(context), backups.opened() as (application, repository):
        settings, (manifests, damaged) = application.settings, repository.readable_backups()
    known = {
        identifier
        for one in BACKUP_TYPES
        for identifier in known_tags(context.instance, backup_asset_key(one), BACKUP_ID_TAG)
    }
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


@dg.op
def report_drills(context: dg.OpExecutionContext, backups: BackupsResource) -> None:
    """Report each drill of which the repository has evidence and Dagster knows nothing, as of its backup's day."""
    with explained(context), backups.opened() as (application, repository):
        settings, found = application.settings, evidence(repository)
    known = known_tags(context.instance, DRILL, EVIDENCE_TAG)
    reported = 0
    for one in reversed(found):
        day = evidence_day(one, settings.timezone)
        # What was not found true is told by the checks; a day's cell stays empty then, as when the drill had run here.
        if one.name in known or not one.details.get("good", one.proven) or day < settings.first_day:
            continue
        storage = str(one.details.get("storage", ""))
        storage = storage if storage in settings.storages else settings.primary_storage
        context.log_event(
            dg.AssetMaterialization(
                DRILL,
                partition=dg.MultiPartitionKey({DAY: day.isoformat(), STORAGE: storage}),
                description="Found in the repository.",
                metadata=evidence_metadata({**one.details, "evidence": one.name}, storage),
                tags={EVIDENCE_TAG: one.name},
            )
        )
        reported += 1
    for backup_type in BACKUP_TYPES:
        newest = next((one for one in found if one.backup_id.startswith(f"{backup_type}_")), None)
        if newest is not None:
            metadata = evidence_metadata(newest.details, str(newest.details.get("storage", "")))
            good = bool(newest.details.get("good", newest.proven))
            verdict = "right" if good else "NOT right"
            words = f"Found in the repository: the restore of {newest.backup_id} was {verdict}."
            context.log_event(evaluation(backup_type, good, metadata, words))  # type: ignore[arg-type] # it takes it
    context.add_output_metadata({"held": len(found), "reported": reported})


@dg.job(name="rebuild_history", tags={KIND_TAG: "history"})
def rebuild_history_job() -> None:
    """Show every backup and drill of the repository that Dagster does not know, as if it had made it."""
    report_backups()
    report_drills()
