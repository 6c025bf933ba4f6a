"""The restore job: the plan is shown first, then carried out. Restoring needs no Dagster; this is a convenience."""

from pathlib import Path
from typing import Any, cast

import dagster as dg

from chrono_backups.assembly import Application
from chrono_backups.clock import to_text
from chrono_backups.errors import RestoreError, UsageError
from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType, SourceName
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.launch import RestoreLaunch
from chrono_backups.orchestration.metadata import Metadata, backup_metadata, findings_table, table
from chrono_backups.orchestration.names import BACKUP_ID_TAG, KIND_TAG, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource, storage_name
from chrono_backups.orchestration.runs import POOL, apply_limits, trigger_of
from chrono_backups.orchestration.steps import missing_in_words
from chrono_backups.recovery.point import RecoveryPoint
from chrono_backups.recovery.postgres.fetch_command import fetch_command
from chrono_backups.recovery.postgres.restore import ClusterOptions, ClusterPlan
from chrono_backups.recovery.postgres.target import Target, parse_target
from chrono_backups.recovery.whole.parts import DirectoryPart
from chrono_backups.recovery.whole.plan import WholeOptions, WholePlan, plan_whole
from chrono_backups.recovery.whole.restore import WholeRestore
from chrono_backups.repository.latest import SAFETY_TRIGGER
from chrono_backups.repository.repository import Repository

NARROWEST: tuple[BackupType, ...] = ("configuration", "files_only", "database_only")
"""Which backup types are tried, in this order, for a safety backup; ``full`` where none has all that is needed."""


@dg.op
def plan_restore(context: dg.OpExecutionContext, config: RestoreLaunch, backups: BackupsResource) -> dict[str, Any]:
    """Compute what a restore would bring together, where it goes, and what stands in its way. Changes nothing."""
    asked = config.model_dump()
    with explained(context), backups.opened(config.storage) as (application, repository):
        apply_limits(context, application.settings)
        if not config.target and not config.in_place:
            raise UsageError("a restore needs a target directory", hint="Or `in_place`, to overwrite the originals.")
        if config.target_time and config.patterns:
            raise UsageError("`target_time` does not go with `patterns`: with them files are restored, and no server")
        planned = _planned(context, application, repository, asked)
        if not config.target_time:  # what `latest` means now is what the next step restores
            asked["backup_id"] = planned.point.backups[0]
    context.add_output_metadata({**_plan_metadata(planned), "dry_run": dg.MetadataValue.bool(config.dry_run)})
    return asked


def _planned(
    context: dg.OpExecutionContext, application: Application, repository: Repository, asked: dict[str, Any]
) -> WholePlan:
    options = WholeOptions(
        asked["backup_id"],
        parse_target(asked["target_time"] or None),
        sources=cast("list[SourceName]", asked["sources"]),
        directory=Path(asked["target"]).absolute() if asked["target"] else None,
        in_place=asked["in_place"],
        patterns=asked["patterns"],
    )

    def cluster(target: Target) -> ClusterOptions:
        storage = None if asked["storage"] == "primary" else storage_name(asked["storage"])
        return ClusterOptions(
            target=target,
            start=asked["start"],
            programs=application.settings.postgres.bin_dir,
            restore_command=fetch_command(".env" if Path(".env").is_file() else None, storage),
        )

    return plan_whole(repository, options, application.stores(), cluster, listener=RunLog(context.log))


def _plan_metadata(planned: WholePlan) -> Metadata:
    point = planned.point
    steps = "\n".join(
        f"{number}. **{', '.join(part.sources)}** of {part.backup_id}\n"
        + "\n".join(f"    - {word}: {what}" for word, what in part.facts() if what)
        for number, part in enumerate(planned.restore.parts, 1)
    )
    shown: Metadata = {
        "backup_id": dg.MetadataValue.text(point.backups[0]),
        "plan": dg.MetadataValue.md(steps),
        "recovery_point": dg.MetadataValue.md(_point_table(point)),
        "postgres_target": dg.MetadataValue.text(str(point.target)),
    }
    if point.note:
        shown["together"] = dg.MetadataValue.text(point.note)
    if point.skew_seconds is not None:
        shown["skew_seconds"] = dg.MetadataValue.float(round(point.skew_seconds, 3))
    for part in planned.restore.parts:
        if isinstance(part, DirectoryPart) and part.cluster is not None and not part.cluster.options.start:
            shown["start"] = dg.MetadataValue.md(_advice(part.cluster))
    findings = [finding for part in planned.restore.parts for finding in part.findings]
    if findings:
        shown["findings"] = dg.MetadataValue.md(findings_table(findings))
    return shown


def _advice(cluster: ClusterPlan) -> str:
    """What the operator does next with a data directory that is not started."""
    return (
        f"Start PostgreSQL {cluster.major} on `{cluster.data}`: it recovers to {cluster.options.target}, by the"
        " `restore_command` in `postgresql.auto.conf`, which its user must be able to run. Or launch with"
        " `start: true`, which needs neither."
    )


def _point_table(point: RecoveryPoint) -> str:
    rows = []
    for part in point.parts:
        before, behind = point.distance(part) or (None, None)
        told = [f"{one:.3f}" if one is not None else "not known before" for one in (before, behind)]
        rows.append((part.source, part.manifest.backup_id, to_text(part.holds.last) if part.holds else "", *told))
    return table(("source", "backup", "as of", "seconds before#", "seconds behind#"), rows)


@dg.op(pool=POOL)
def restore(context: dg.OpExecutionContext, asked: dict[str, Any], backups: BackupsResource) -> None:
    """Carry the plan out; nothing in a dry run. Fails before the first byte where data or space is in the way.

    Whatever ends it early, a cancellation too, the log says of each source whether it is old or new.
    """
    if asked["dry_run"]:
        context.log.info("Dry run: nothing is restored.")
        return
    listener = RunLog(context.log)
    with explained(context), backups.opened(asked["storage"]) as (application, repository):
        planned = _planned(context, application, repository, asked)
        planned.restore.check(listener)
        if planned.restore.overwritten and asked["safety_backup"]:
            _secure(context, application, planned)
        try:
            planned.restore.execute(listener, changed=lambda: _tell(context, planned.restore))
        except BaseException:
            context.log.error("The restore did not come to its end.")
            _tell(context, planned.restore)
            raise
    metadata = _report_metadata(planned.restore)
    if planned.restore.damaged:
        raise dg.Failure(
            f"{planned.restore.damaged} files were left out: what is stored of them is damaged or missing",
            metadata=metadata,
            allow_retries=False,
        )
    context.add_output_metadata(metadata)


def _tell(context: dg.OpExecutionContext, restore: WholeRestore) -> None:
    context.log.info("\n".join(f"{source}: {words}" for source, words in restore.told()))


def _report_metadata(restore: WholeRestore) -> Metadata:
    done = [(state, state.report) for state in restore.states if state.report is not None]
    rows = [
        (", ".join(state.part.sources), state.words, f"{report.items:,}", f"{report.bytes:,}", f"{report.seconds:.1f}")
        for state, report in done
    ]
    shown: Metadata = {
        "restored": dg.MetadataValue.md(table(("source", "state", "items#", "bytes#", "seconds#"), rows)),
        "files": dg.MetadataValue.int(sum(report.items for _, report in done)),
        "bytes": dg.MetadataValue.int(sum(report.bytes for _, report in done)),
        "seconds": dg.MetadataValue.float(round(sum(report.seconds for _, report in done), 3)),
        "damaged": dg.MetadataValue.int(restore.damaged),
    }
    if restore.findings:
        shown["findings"] = dg.MetadataValue.md(findings_table(restore.findings))
    for _, report in done:
        if report.details:
            shown[f"{report.source}_details"] = dg.MetadataValue.json(report.details)
    return shown


def _secure(context: dg.OpExecutionContext, application: Application, planned: WholePlan) -> None:
    """Back up what the restore will overwrite, and show it as what it is. Raises where that is not complete."""
    sources, backup_id = planned.restore.overwritten, planned.point.backups[0]
    backup_type: BackupType = next((one for one in NARROWEST if set(sources) <= set(SOURCES_OF_TYPE[one])), "full")
    trigger = f"{SAFETY_TRIGGER} before restoring {backup_id}, {trigger_of(context.run)}"
    manifest = application.take_backup(backup_type, trigger=trigger, listener=RunLog(context.log), only=sources)
    context.log.info(f"Safety backup: {manifest.backup_id}")
    context.log_event(
        dg.AssetMaterialization(
            backup_asset_key(backup_type),
            partition=day_of(manifest.started_at, application.settings.timezone).isoformat(),
            description=f"Taken before {backup_id} was restored in place.",
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
    """Restore a recovery point, or a part of it: to a directory of the worker's machine, or to where it was."""
    restore(plan_restore())
