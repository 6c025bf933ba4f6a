"""The retention job: plan, forget, plan, prune. Each plan is shown, with reasons, before it is carried out."""

from datetime import timedelta
from typing import Any

import dagster as dg

from chrono_backups.identifiers import parse_backup_id
from chrono_backups.maintenance import forget as forgetting
from chrono_backups.maintenance import prune as pruning
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.launch import RetentionLaunch
from chrono_backups.orchestration.metadata import plain_metadata, table
from chrono_backups.orchestration.names import KIND_TAG, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits
from chrono_backups.settings import Settings


def _grace(settings: Settings) -> timedelta:
    return timedelta(hours=settings.retention.prune_grace_hours)


@dg.op
def plan_forget(context: dg.OpExecutionContext, config: RetentionLaunch, backups: BackupsResource) -> dict[str, Any]:
    """Judge every backup by the retention policy, and show each verdict with its reasons. Changes nothing."""
    with explained(context), backups.opened() as (application, repository):
        apply_limits(context, application.settings)
        planned = forgetting.plan_forget(repository, application.settings.retention, repository.clock.now())
    rows = [(one.backup_id, "keep" if one.keep else "**forget**", "; ".join(one.reasons)) for one in planned.verdicts]
    context.add_output_metadata(
        {
            "verdicts": dg.MetadataValue.md(table(("backup", "verdict", "why"), rows)),
            "kept": len(planned.verdicts) - len(planned.forget),
            "forgotten": len(planned.forget),
            "dry_run": config.dry_run,
        }
    )
    reasons = {one.backup_id: "; ".join(one.reasons) for one in planned.verdicts}
    return {"dry_run": config.dry_run, "forget": {name: reasons[name] for name in planned.forget}}


@dg.op(pool=POOL)
def forget(context: dg.OpExecutionContext, planned: dict[str, Any], backups: BackupsResource) -> dict[str, Any]:
    """Forget the backups of the plan; nothing of a dry run."""
    doomed: dict[str, str] = planned["forget"]
    if planned["dry_run"]:
        context.log.info(f"Dry run: {len(doomed)} backups would be forgotten, none is.")
        return planned
    with explained(context), backups.opened() as (application, repository):
        forgetting.forget_ids(repository, list(doomed))
    for backup_id, reasons in doomed.items():
        parsed = parse_backup_id(backup_id)
        if parsed is not None:
            backup_type, moment = parsed
            context.log_event(
                dg.AssetObservation(
                    backup_asset_key(backup_type),
                    partition=day_of(moment, application.settings.timezone).isoformat(),
                    description=f"{backup_id} was forgotten",
                    metadata={"forgotten": backup_id, "why": reasons},
                )
            )
    return planned


@dg.op
def plan_prune(context: dg.OpExecutionContext, planned: dict[str, Any], backups: BackupsResource) -> dict[str, Any]:
    """Find what nothing refers to, and show what freeing it would do. Changes nothing."""
    with explained(context), backups.opened() as (application, repository):
        found = pruning.plan_prune(
            repository,
            grace=_grace(application.settings),
            now=repository.clock.now(),
            listener=RunLog(context.log),
        )
    context.add_output_metadata({**plain_metadata(found.to_json()), "dry_run": planned["dry_run"]})
    return planned


@dg.op(pool=POOL)
def prune(context: dg.OpExecutionContext, planned: dict[str, Any], backups: BackupsResource) -> None:
    """Free the space of what nothing refers to; nothing in a dry run. Plans anew: others may have written since."""
    if planned["dry_run"]:
        context.log.info("Dry run: nothing is freed.")
        return
    with explained(context), backups.opened() as (application, repository):
        listener = RunLog(context.log)
        fresh = pruning.plan_prune(
            repository, grace=_grace(application.settings), now=repository.clock.now(), listener=listener
        )
        report = pruning.prune(repository, fresh, listener)
    context.add_output_metadata(plain_metadata(report.to_json()))


@dg.config_mapping
def _launch(config: RetentionLaunch) -> dict[str, Any]:
    return {"plan_forget": {"config": config.model_dump()}}


@dg.job(name="retention", config=_launch, tags={KIND_TAG: "retention"})
def retention_job() -> None:
    """Forget what no retention rule keeps, then free its space. `dry_run` shows both plans and changes nothing."""
    prune(plan_prune(forget(plan_forget())))
