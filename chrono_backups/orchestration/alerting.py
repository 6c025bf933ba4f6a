"""The sensors that tell people: one about every run that ended, one that delivers what is to be told.

Dagster's own run status sensors go on to the next run where telling of one failed. Here the cursor stays until what
there is to tell is on the disk, so that a full disk, a daemon that is killed and a code location that is away delay an
alert and lose none. What was told of a run is not told again.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

import dagster as dg
from dagster import DagsterEventType, EventLogEntry, EventLogRecord, RunStatusChangeRecordsFilter

from chrono_backups import settings as settings_module
from chrono_backups.clock import SystemClock
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.notifications.alerts import Alerts
from chrono_backups.notifications.heartbeat import good_backup
from chrono_backups.notifications.incidents import Incident
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.outcome import sightings
from chrono_backups.orchestration.run_outcomes import RunOutcome, outcome
from chrono_backups.oversight import alerts, digest_rows
from chrono_backups.settings import Settings

INTERVAL_SECONDS = 30
DELIVERY_SECONDS = 20.0
"""Of a tick, which Dagster gives up after a minute."""

_FIRST_LOOK = timedelta(hours=1)
"""Where there is no cursor yet: runs that ended before the first tick of a new deployment are told of too."""
_FRESH_SECONDS = 3600
_MOST = 50
"""Runs a tick; the rest are the next one's."""

_ENDS = (DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED, DagsterEventType.RUN_SUCCESS)


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Notes every run that failed, was cancelled or lasted too long, every check that failed, and what is"
    " well again; a failed run is also a line `FAILED …` in the log.",
)
def ended_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Tell of every run that ended since the last tick."""
    settings, clock = settings_module.load(), SystemClock()
    telling = alerts(settings, clock)
    cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    words: list[str] = []
    began = clock.monotonic()
    for record in _ended_since(context.instance, cursor, clock.now()):
        entry = record.event_log_entry
        run = context.instance.get_run_by_id(entry.run_id)
        if run is not None and _is_ours(context, run):
            words += _tell(context, settings, telling, run, entry)
        cursor[entry.get_dagster_event().event_type_value] = record.storage_id
        if clock.monotonic() - began > DELIVERY_SECONDS:  # a heartbeat that hangs: the rest is the next tick's
            break
    else:
        _go_on_from_here(context.instance, cursor)
    context.update_cursor(json.dumps(cursor))
    return dg.SkipReason("; ".join(words) or "No run ended.")


def _go_on_from_here(instance: dg.DagsterInstance, cursor: dict[str, int]) -> None:
    """Have the cursor know every kind of end, so that the next look begins after this one."""
    for kind in _ENDS:
        if kind.value not in cursor:  # nothing ended that way in the first look: go on from here
            newest = instance.fetch_run_status_changes(kind, limit=1).records
            cursor[kind.value] = newest[0].storage_id if newest else -1


def _ended_since(instance: dg.DagsterInstance, cursor: dict[str, int], now: datetime) -> Iterator[EventLogRecord]:
    """The ends of runs that the cursor does not know, the oldest first."""
    found: list[EventLogRecord] = []
    for kind in _ENDS:
        after = cursor.get(kind.value)
        known = RunStatusChangeRecordsFilter(
            event_type=kind,  # type: ignore[arg-type] # it is one of those that it takes
            after_storage_id=after,
            after_timestamp=(now - _FIRST_LOOK).timestamp() if after is None else None,
        )
        found += instance.fetch_run_status_changes(known, limit=_MOST, ascending=True).records
    yield from sorted(found, key=lambda record: record.timestamp)[:_MOST]


def _is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether this code location made it: an instance may have others."""
    if run.remote_job_origin is None or context.code_location_origin is None:
        return True
    theirs = run.remote_job_origin.repository_origin.code_location_origin.location_name
    return theirs == context.code_location_origin.location_name


def _tell(
    context: dg.SensorEvaluationContext,
    settings: Settings,
    telling: Alerts,
    run: dg.DagsterRun,
    entry: EventLogEntry,
) -> list[str]:
    """Note how the run ended; what the tick is to say of it."""
    told: tuple[Message, ...] = ()
    try:
        primary = settings.storages[0] if settings.storages else ""
        seen = outcome(context.instance, run, entry.message, telling.site.run_link(run.run_id), primary)
    except Exception as error:
        # A run whose events can't be read must not hold up the others for ever.
        context.log.error(f"run {run.run_id} can't be told of: {type(error).__name__}: {error}")
        return [f"run {run.run_id} could not be read"]
    ended = seen.ended
    if ended.how != "done":
        day = run.tags.get("dagster/partition", "")
        context.log.error(f"FAILED {ended.operation} {day} run {run.run_id}: {ended.message or ended.how}")
    for finding in ended.findings:
        context.log.warning(f"{ended.operation}, run {run.run_id}: {finding}")
    token = f"run {run.run_id} {entry.get_dagster_event().event_type_value}"
    if seen.checks_only:
        told = telling.observe(sightings(ended), lambda one: _rechecked(one, seen), token=token)
    else:
        told = telling.ended(ended, token=token)
    if seen.proven:
        telling.note_proof(seen.proven, "verify")
    # A ping says that a good backup was made just now.
    fresh = SystemClock().now().timestamp() - entry.timestamp < _FRESH_SECONDS
    if seen.made is not None and fresh and not seen.checks_only:
        fault = good_backup(telling, settings.notifications, seen.made, SystemClock())
        if fault:
            context.log.warning(f"the heartbeat was not sent: {fault}")
    return [f"{ended.operation} {ended.how}", *(message.headline for message in told)]


def _rechecked(incident: Incident, seen: RunOutcome) -> bool:
    finding = incident.last.finding
    return finding.code == "check-failed" and finding.subject in seen.checked


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Delivers what people are to be told, by the channels that BACKUP_…_ENABLED name, and says again what"
    " still is wrong.",
)
def notifications(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Send what waits, for some seconds."""
    settings = settings_module.load()
    telling = alerts(settings, SystemClock())
    if not telling.enabled:
        return dg.SkipReason("No channel is enabled: nobody is told anything (docs/notifications.md).")
    telling.observe_settings(settings.findings())
    try:
        telling.digest(settings.timezone, partial(digest_rows, settings, SystemClock()))
    except ChronoBackupsError as error:  # tried again by the next ticks, for some hours
        context.log.warning(f"no digest yet: {error}")
    report = telling.flush(DELIVERY_SECONDS)
    for name, fault in report.faults.items():
        context.log.warning(f"{name}: {fault}")
    seen = telling.overview()
    waiting = sum(channel.waiting for channel in seen.channels)
    words = [f"{number} sent by {name}" for name, number in sorted(report.sent.items())]
    words += [f"{name}: {fault}" for name, fault in sorted(report.faults.items())]
    words.append(f"{len(seen.incidents)} incidents are open, {waiting} messages wait")
    return dg.SkipReason("; ".join(words))
