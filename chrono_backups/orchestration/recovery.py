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
from chrono_backups.orchestration.metadata import (
    Metadata,
    backup_metadata,
    findings_table,
    in_words,
    plain_metadata,
    table,
)
from chrono_backups.orchestration.names import BACKUP_ID_TAG, KIND_TAG, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import PRIMARY, BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits, trigger_of
from chrono_backups.orchestration.steps import missing_in_words
from chrono_backups.recovery import plan as planning
from chrono_backups.recovery import restore as restoring
from chrono_backups.recovery.plan import RestorePlan
from chrono_backups.recovery.postgres.fetch_command import fetch_command
from chrono_backups.recovery.postgres.restore import (
    SOURCE,
    ClusterOptions,
    ClusterPlan,
    check_way,
    choose_base,
    holds_cluster,
    plan_cluster,
)
from chrono_backups.recovery.postgres.target import TO_THE_END, Target, parse_target
from chrono_backups.repository.latest import SAFETY_TRIGGER
from chrono_backups.repository.records import Manifest
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
        manifest = _chosen(repository, config)
        asked["backup_id"] = manifest.backup_id
        cluster = _cluster(application, repository, asked)
        planned = _planned(repository, asked, cluster)
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
            **(_recovery(cluster) if cluster is not None else {}),
        }
    )
    return asked


def _chosen(repository: Repository, config: RestoreLaunch) -> Manifest:
    """The backup that is meant; for `latest` with a time the newest whose base backup ends before it."""
    target = _recovery_target(config.target_time)
    if config.backup_id == "latest" and target.kind == "time":
        return choose_base(repository, target, config.sources)
    needed = [*config.sources, *([SOURCE] if config.target_time and SOURCE not in config.sources else [])]
    return repository.backup(config.backup_id, needed)


def _recovery_target(text: str) -> Target:
    return parse_target(text) if text else TO_THE_END


def _cluster(application: Application, repository: Repository, asked: dict[str, Any]) -> ClusterPlan | None:
    """How the cluster that is restored recovers; None where none is, or only files of it."""
    wanted = not asked["sources"] or SOURCE in asked["sources"]
    if asked["in_place"] and SOURCE in asked["sources"]:
        raise UsageError(
            "a cluster is not restored in place: it would be over a server that runs",
            hint="Restore it to a directory, start it there, then let it take the old one's place.",
        )
    manifest = repository.backup(asked["backup_id"])
    if asked["in_place"] or asked["patterns"] or not wanted or not holds_cluster(manifest):
        if asked["target_time"]:
            raise UsageError("`target_time` is for a whole cluster that is restored to a directory")
        return None
    settings_file = ".env" if Path(".env").is_file() else None
    storage = None if asked["storage"] == PRIMARY else asked["storage"]
    options = ClusterOptions(
        target=_recovery_target(asked["target_time"]),
        programs=application.settings.postgres.bin_dir,
        restore_command=fetch_command(settings_file, storage),
    )
    return plan_cluster(repository, manifest, Path(asked["target"]), options)


def _recovery(cluster: ClusterPlan) -> Metadata:
    """What becomes of the restored cluster, and what the operator does next."""
    return {
        "recovers_to": dg.MetadataValue.text(f"{cluster.options.target}, timeline {cluster.path.timeline}"),
        "wal_files": dg.MetadataValue.int(len(cluster.path.files)),
        "start": dg.MetadataValue.md(
            f"Start PostgreSQL {cluster.major} on `{cluster.data}`: it recovers to {cluster.options.target}, by the"
            " `restore_command` in `postgresql.auto.conf`, which its user must be able to run. Or restore by"
            " `chrono-backups restore … --start`, which needs neither."
        ),
    }


def _planned(repository: Repository, asked: dict[str, Any], cluster: ClusterPlan | None) -> RestorePlan:
    return planning.plan_restore(
        repository,
        asked["backup_id"],
        Path(asked["target"]) if asked["target"] else None,
        sources=asked["sources"],
        patterns=asked["patterns"],
        in_place=asked["in_place"],
        placed=cluster.placed if cluster is not None else None,
    )


@dg.op(pool=POOL)
def restore(context: dg.OpExecutionContext, asked: dict[str, Any], backups: BackupsResource) -> None:
    """Carry the plan out; nothing in a dry run. Fails before the first byte where data or space is in the way."""
    if asked["dry_run"]:
        context.log.info("Dry run: nothing is restored.")
        return
    with explained(context), backups.opened(asked["storage"]) as (application, repository):
        cluster = _cluster(application, repository, asked)
        plan = _planned(repository, asked, cluster)
        plan.check()
        arrangements = {}
        if cluster is not None:
            check_way(repository, cluster, listener=RunLog(context.log))
            arrangements = {SOURCE: cluster.arrangement()}
        if plan.in_place and asked["safety_backup"]:
            _secure(context, application, plan)
        report = restoring.restore(repository, plan, listener=RunLog(context.log), arrangements=arrangements)
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
