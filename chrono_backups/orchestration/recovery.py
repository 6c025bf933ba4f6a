"""The restore job: the plan is shown first, then carried out. Restoring needs no Dagster; this is a convenience."""

from pathlib import Path
from typing import Any

import dagster as dg

from chrono_backups.assembly import Application
from chrono_backups.errors import RestoreError, UsageError
from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.launch import RestoreLaunch
from chrono_backups.orchestration.metadata import backup_metadata, findings_table, in_words, plain_metadata, table
from chrono_backups.orchestration.names import BACKUP_ID_TAG, KIND_TAG, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits, trigger_of
from chrono_backups.orchestration.steps import missing_in_words
from chrono_backups.recovery import plan as planning
from chrono_backups.recovery import restore as restoring
from chrono_backups.recovery.plan import RestorePlan
from chrono_backups.repository.latest import SAFETY_TRIGGER
from chrono_backups.repository.repository import Repository

NARROWEST: tuple[BackupType, ...] = ("configuration", "files_only", "database_only")
"""Which backup types are tried, in this order, for a safety backup; ``full`` where none has all that is needed."""


@dg.op
def plan_restore(context: dg.OpExecutionContext, config: RestoreLaunch, backups: BackupsResource) -> dict[str, Any]:
    """Compute what a restore would write, where, and what stands in its way. Changes nothing."""
    asked = config.model_dump()
    with explained(context), backups.opened(config.storage) as (application, repository):
        apply_limits(context, application.settings)
        if not config.target and not config.in_place:
            raise UsageError("a restore needs a target directory", hint="Or `in_place`, to overwrite the originals.")
        asked["backup_id"] = repository.backup(config.backup_id, config.sources).backup_id
        planned = _planned(repository, asked)
    rows = [
        (one.source, f"{one.files:,}", f"{one.directories:,}", in_words(one.bytes), str(one.destination))
        for one in planned.sources
    ]
    context.add_output_metadata(
        {
            "backup_id": planned.backup_id,
            "plan": dg.MetadataValue.md(table(("source", "files#", "directories#", "content#", "to"), rows)),
            "bytes_needed": planned.bytes_needed,
            "bytes_free": planned.bytes_free,
            "in_the_way": dg.MetadataValue.md("\n".join(f"- {path}" for path in planned.conflicts) or "nothing"),
            "dry_run": config.dry_run,
        }
    )
    return asked


def _planned(repository: Repository, asked: dict[str, Any]) -> RestorePlan:
    return planning.plan_restore(
        repository,
        asked["backup_id"],
        Path(asked["target"]) if asked["target"] else None,
        sources=asked["sources"],
        patterns=asked["patterns"],
        in_place=asked["in_place"],
    )


@dg.op(pool=POOL)
def restore(context: dg.OpExecutionContext, asked: dict[str, Any], backups: BackupsResource) -> None:
    """Carry the plan out; nothing in a dry run. Fails before the first byte where data or space is in the way."""
    if asked["dry_run"]:
        context.log.info("Dry run: nothing is restored.")
        return
    with explained(context), backups.opened(asked["storage"]) as (application, repository):
        plan = _planned(repository, asked)
        plan.check()
        if plan.in_place and asked["safety_backup"]:
            _secure(context, application, plan)
        report = restoring.restore(repository, plan, listener=RunLog(context.log))
    metadata = plain_metadata(report.to_json())
    if report.findings:
        metadata["findings"] = dg.MetadataValue.md(findings_table(report.findings))
    if report.damaged:
        raise dg.Failure(
            f"{report.damaged} files were left out: what is stored of them is damaged or missing",
            metadata=metadata,
            allow_retries=False,
        )
    context.add_output_metadata(metadata)


def _secure(context: dg.OpExecutionContext, application: Application, plan: RestorePlan) -> None:
    """Back up what the restore will overwrite, and show it as what it is. Raises where that is not complete."""
    sources = {one.source for one in plan.sources}
    backup_type: BackupType = next((one for one in NARROWEST if sources <= set(SOURCES_OF_TYPE[one])), "full")
    trigger = f"{SAFETY_TRIGGER} before restoring {plan.backup_id}, {trigger_of(context.run)}"
    manifest = application.take_backup(backup_type, trigger=trigger, listener=RunLog(context.log))
    context.log.info(f"Safety backup: {manifest.backup_id}")
    context.log_event(
        dg.AssetMaterialization(
            backup_asset_key(backup_type),
            partition=day_of(manifest.started_at, application.settings.timezone).isoformat(),
            description=f"Taken before {plan.backup_id} was restored in place.",
            metadata=backup_metadata(manifest),
            tags={BACKUP_ID_TAG: manifest.backup_id},
        )
    )
    if manifest.status != "complete":
        raise RestoreError(
            f"nothing was restored: {missing_in_words(manifest)}",
            hint="`safety_backup: false` restores without one.",
        )


@dg.config_mapping
def _launch(config: RestoreLaunch) -> dict[str, Any]:
    return {"ops": {"plan_restore": {"config": config.model_dump()}}}


@dg.job(name="restore_backup", config=_launch, tags={KIND_TAG: "restore"})
def restore_job() -> None:
    """Restore a backup, or a part of it, to a directory of the worker's machine."""
    restore(plan_restore())
