"""What every run begins with: its limits, the day it counts for, and who asked for it."""

from datetime import UTC, date

import dagster as dg

from chrono_backups.clock import SystemClock
from chrono_backups.orchestration.days import day_of
from chrono_backups.settings import Settings

POOL = "operations"
"""The pool of everything that keeps a source or a storage at work (BACKUP_MAX_PARALLEL_OPERATIONS)."""

MAX_RUNTIME_TAG = "dagster/max_runtime"

RunContext = dg.OpExecutionContext | dg.AssetExecutionContext


def apply_limits(context: RunContext, settings: Settings) -> None:
    """Make Dagster obey the settings' limits from this run on.

    A launch from an asset's page runs as ``__ASSET_JOB`` and has none of our jobs' tags, and the pool's
    limit lives in Dagster's database, so that both are set from inside the run.
    """
    if missing := {name: value for name, value in limits_tags(settings).items() if name not in context.run.tags}:
        context.instance.add_run_tags(context.run_id, missing)
    storage = context.instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    wanted = settings.limits.max_parallel_operations
    if all(pool.name != POOL or pool.limit != wanted for pool in storage.get_pool_limits()):
        storage.set_concurrency_slots(POOL, wanted)


def limits_tags(settings: Settings) -> dict[str, str]:
    """The tag by which Dagster's run monitoring cancels a run that lasts too long."""
    seconds = settings.limits.timeout_seconds
    return {} if seconds is None else {MAX_RUNTIME_TAG: str(seconds)}


def day_begun(context: RunContext, settings: Settings) -> date:
    """The day on which this run was asked for: one that waited past midnight still belongs to its own day."""
    record = context.instance.get_run_record_by_id(context.run_id)
    moment = record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC) if record else None
    return day_of(moment or SystemClock().now(), settings.timezone)


def trigger_of(run: dg.DagsterRun) -> str:
    """Who asked for the run, as manifests record it."""
    for tag, word in (("dagster/schedule_name", "schedule"), ("dagster/backfill", "backfill")):
        if name := run.tags.get(tag):
            return f"{word} {name}, dagster run {run.run_id}"
    return f"dagster run {run.run_id}"
