"""The retention job: plan, forget, plan, prune. Each plan is shown, with reasons, before it is carried out."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import RepositoryMissing, StorageDenied, StorageUnavailable
from chrono_backups.identifiers import parse_backup_id
from chrono_backups.maintenance import forget as forgetting
from chrono_backups.maintenance import locks as locking
from chrono_backups.maintenance import prune as pruning
from chrono_backups.maintenance.forget import ForgetPlan
from chrono_backups.maintenance.retention import Verdict
from chrono_backups.maintenance.wal_retention import WalVerdict
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.launch import RetentionLaunch
from chrono_backups.orchestration.metadata import ROWS_SHOWN, Metadata, findings_table, in_words, plain_metadata, table
from chrono_backups.orchestration.names import KIND_TAG, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits
from chrono_backups.settings import Settings

Json = dict[str, Any]


def _grace(settings: Settings) -> timedelta:
    return timedelta(hours=settings.retention.prune_grace_hours)


@dg.op
def plan_forget(context: dg.OpExecutionContext, config: RetentionLaunch, backups: BackupsResource) -> Json:
    """Judge every backup by the retention policy, and show each verdict with its reasons. Changes nothing."""
    with explained(context), backups.opened() as (application, repository):
        settings = application.settings
        apply_limits(context, settings)
        planned = forgetting.plan_forget(
            repository, settings.retention, repository.clock.now(), timezone=ZoneInfo(settings.timezone)
        )
    rows = [(one.backup_id, "keep" if one.keep else "**forget**", "; ".join(one.reasons)) for one in planned.verdicts]
    context.add_output_metadata(
        {
            "verdicts": dg.MetadataValue.md(table(("backup", "verdict", "why"), rows)),
            **_wal(planned.wal),
            "kept": len(planned.verdicts) - len(planned.forget),
            "forgotten": len(planned.forget),
            "dry_run": config.dry_run,
        }
    )
    verdicts = [[one.backup_id, one.keep, list(one.reasons)] for one in planned.verdicts]
    return {"dry_run": config.dry_run, "verdicts": verdicts}


def _wal(verdicts: Sequence[WalVerdict]) -> Metadata:
    """How far back each cluster's archived WAL is kept, why, and what is before."""
    if not verdicts:
        return {}
    rows = [
        (one.system_identifier, one.keep_from or "all", in_words(one.bytes_kept), len(one.remove),
         in_words(one.bytes_to_remove), one.reason)
        for one in verdicts
    ]  # fmt: skip
    heads = ("cluster", "WAL kept from", "kept#", "objects before#", "in bytes#", "why")
    return {"wal": dg.MetadataValue.md(table(heads, rows))}


@dg.op(pool=POOL)
def forget(context: dg.OpExecutionContext, planned: Json, backups: BackupsResource) -> Json:
    """Forget the backups that the plan names; nothing in a dry run. Refuses where the plan no longer holds."""
    plan = ForgetPlan(tuple(Verdict(name, keep, tuple(reasons)) for name, keep, reasons in planned["verdicts"]))
    if planned["dry_run"]:
        context.log.info(f"Dry run: {len(plan.forget)} backups would be forgotten, none is.")
        return {"dry_run": True}
    with explained(context), backups.opened() as (application, repository):
        forgetting.forget(repository, plan)
        forgotten = set(repository.forgotten())
    for verdict in plan.verdicts:
        if not verdict.keep and verdict.backup_id in forgotten:
            _note(context, verdict, application.settings)
    return {"dry_run": False}


def _note(context: dg.OpExecutionContext, verdict: Verdict, settings: Settings) -> None:
    """Say on the backup's asset that it is gone: Dagster's own record of it stays."""
    parsed = parse_backup_id(verdict.backup_id)
    if parsed is None:
        return
    backup_type, moment = parsed
    context.log_event(
        dg.AssetObservation(
            backup_asset_key(backup_type),
            partition=day_of(moment, settings.timezone).isoformat(),
            description=f"{verdict.backup_id} was forgotten",
            metadata={"forgotten": verdict.backup_id, "why": "; ".join(verdict.reasons)},
        )
    )


@dg.op
def plan_prune(context: dg.OpExecutionContext, planned: Json, backups: BackupsResource) -> Json:
    """Find what nothing refers to, and show what freeing it would do. Changes nothing."""
    with explained(context), backups.opened() as (application, repository):
        grace, now = _grace(application.settings), repository.clock.now()
        found = pruning.plan_prune(repository, grace=grace, now=now, listener=RunLog(context.log))
    context.add_output_metadata({**plain_metadata(found.to_json()), **_wal(found.wal), "dry_run": planned["dry_run"]})
    return {**planned, "planned_at": to_text(now)}


@dg.op(pool=POOL)
def prune(context: dg.OpExecutionContext, planned: Json, backups: BackupsResource) -> Json:
    """Free the space of what nothing refers to, as of the moment of the plan; nothing in a dry run."""
    if planned["dry_run"]:
        context.log.info("Dry run: nothing is freed.")
        return planned
    with explained(context), backups.opened() as (application, repository):
        listener = RunLog(context.log)
        grace, moment = _grace(application.settings), from_text(planned["planned_at"])
        plan = pruning.plan_prune(repository, grace=grace, now=moment, listener=listener)
        report = pruning.prune(repository, plan, listener)
    metadata = plain_metadata(report.to_json())
    if report.findings:
        metadata["findings"] = dg.MetadataValue.md(findings_table(report.findings))
    if report.still_locked:
        rows = [(one.key, in_words(one.size), f"{one.until:%Y-%m-%d %H:%M} UTC") for one in report.still_locked]
        metadata["still_locked"] = dg.MetadataValue.md(table(("locked", "size#", "until"), rows[:ROWS_SHOWN]))
    context.add_output_metadata(metadata)
    return planned


@dg.op(pool=POOL)
def extend_locks(context: dg.OpExecutionContext, planned: Json, backups: BackupsResource) -> None:
    """Extend the locks of what backups rely on, in every enabled storage that locks objects; nothing in a dry run."""
    if planned["dry_run"]:
        return
    rows, failed = [], []
    application = backups.application()
    for name in application.settings.storages:
        try:
            with application.open_repository(name) as repository:
                report = locking.extend_locks(repository, RunLog(context.log))
        except (RepositoryMissing, StorageUnavailable, StorageDenied) as error:
            context.log.warning(f"{name}: {error}")
            failed.append(name)
            continue
        if report.lock_days:
            until = f"{report.until:%Y-%m-%d %H:%M} UTC" if report.until else ""
            rows.append((name, report.lock_days, report.extended, until))
    locks = dg.MetadataValue.md(table(("storage", "lock days#", "extended#", "locked until"), rows))
    context.add_output_metadata({"locks": locks, "failed": ", ".join(failed)})
    # A lock that nobody extends runs out. Of a storage without any it does not matter that it was not asked.
    locking_ones = [name for name in failed if getattr(getattr(application.settings, name, None), "lock_days", 0)]
    if locking_ones:
        raise dg.Failure(f"locks were not extended in {', '.join(locking_ones)}: see the log", allow_retries=False)


@dg.config_mapping
def _launch(config: RetentionLaunch) -> Json:
    return {"ops": {"plan_forget": {"config": config.model_dump()}}}


@dg.job(name="retention", config=_launch, tags={KIND_TAG: "retention"})
def retention_job() -> None:
    """Forget what no retention rule keeps, then free its space. `dry_run` shows both plans and changes nothing."""
    extend_locks(prune(plan_prune(forget(plan_forget()))))
