"""What runs by itself, and when.

Crons come from ``BACKUP_SCHEDULE_*`` and are read in ``BACKUP_TIMEZONE``. After the daemon was away only
the latest missed tick runs.
"""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from chrono_backups.clock import SystemClock
from chrono_backups.identifiers import BACKUP_TYPES, SOURCES_OF_TYPE
from chrono_backups.orchestration.days import day_of
from chrono_backups.orchestration.names import DRILL, TRIGGER_TAG
from chrono_backups.orchestration.replicas import DAY, STORAGE
from chrono_backups.orchestration.runs import limits_tags
from chrono_backups.orchestration.sources import configured_sources
from chrono_backups.settings import Settings

OBSERVE_CRON = "7 */6 * * *"
"""Looking at the sources is cheap, but each look is a run in the list."""

TAGS = {TRIGGER_TAG: "schedule"}


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Every schedule that the settings ask for, running from the start."""
    return list(_schedules(settings))


def _schedules(settings: Settings) -> Iterator[dg.ScheduleDefinition]:
    timezone, crons = settings.timezone, settings.schedules
    for backup_type in BACKUP_TYPES:
        cron = crons.cron(backup_type)
        # database_only has a default schedule; where no database is configured it would fail every time.
        protects_something = not set(configured_sources(settings)).isdisjoint(SOURCES_OF_TYPE[backup_type])
        if settings.enabled and cron is not None and protects_something:
            yield _daily(f"{backup_type}_backup", cron, timezone)
    if crons.verification is not None:
        yield _daily("verification", crons.verification, timezone)
    if crons.drill is not None and settings.storages:
        yield _drill(crons.drill, settings)
    if crons.retention is not None:
        yield _plain("retention", crons.retention, settings)
    if configured_sources(settings):
        yield _plain("observe_sources", OBSERVE_CRON, settings)


def _daily(asset: str, cron: str, timezone: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{asset}_schedule",
        job_name=f"{asset}_job",
        cron_schedule=cron,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs {asset}_job for the day of the tick.",
        tags=TAGS,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time
        return dg.RunRequest(
            run_key=tick.isoformat(), partition_key=partition_of(tick, SystemClock().now(), timezone), tags=TAGS
        )

    return schedule


def _drill(cron: str, settings: Settings) -> dg.ScheduleDefinition:
    """The newest backup is drilled whatever its day, in the primary storage; others by hand or by backfill."""

    @dg.schedule(
        name="drill_schedule",
        job_name="drill_job",
        cron_schedule=cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Runs drill_job for the newest backup.",
        tags=TAGS,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time
        day = partition_of(tick, SystemClock().now(), settings.timezone)
        return dg.RunRequest(
            run_key=tick.isoformat(),
            partition_key=dg.MultiPartitionKey({DAY: day, STORAGE: settings.primary_storage}),
            run_config={"ops": {DRILL.to_python_identifier(): {"config": {"backup_id": "latest"}}}},
            tags=TAGS,
        )

    return schedule


def partition_of(tick: datetime, now: datetime, timezone: str) -> str:
    """The day of a tick. One that is caught up on a later day counts for that day.

    A backup is of the day it is taken: a launch for a past day would be a backfill.
    """
    return day_of(max(tick, now), timezone).isoformat()


def _plain(job: str, cron: str, settings: Settings) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs {job}.",
        tags={**TAGS, **limits_tags(settings)},
    )
