"""The steps of a backup: ``plan → base[source] → stores[source] → trees[source] → commit``.

The three in the middle are the stages of ``backup/order.py``, each begun when the one before has ended, whatever
executor runs them; the captures of one stage may run at once.

They hand over identifiers (a plan, outcomes, as JSON), never data: what they make is in the repository,
so each can run on another machine.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from chrono_backups.assembly import Application
from chrono_backups.backup import service
from chrono_backups.backup.order import stages
from chrono_backups.backup.service import BackupPlan, Outcome
from chrono_backups.clock import SystemClock
from chrono_backups.errors import ChronoBackupsError, SourceUnavailable, StorageUnavailable
from chrono_backups.orchestration import recording
from chrono_backups.orchestration.days import checked_day
from chrono_backups.orchestration.failures import explained, may_retry
from chrono_backups.orchestration.launch import BackupPlanConfig
from chrono_backups.orchestration.metadata import backup_metadata, snapshot_metadata
from chrono_backups.orchestration.names import BACKUP_ID_TAG, COMPLETE_CHECK
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits, day_begun, trigger_of
from chrono_backups.orchestration.synthetic import find_synthetic, prove_synthetic
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

Json = dict[str, Any]
LATER_STAGES = ("stores", "trees")
"""What the stages of ``backup/order.py`` behind the first, ``base``, are called in a graph."""


@dg.op(
    out={"base": dg.DynamicOut(dict), "stores": dg.Out(list), "trees": dg.Out(list), "chosen": dg.Out(dict)},
    ins={"sources": dg.In(dg.Nothing)},
)
def plan(context: dg.OpExecutionContext, config: BackupPlanConfig, backups: BackupsResource) -> Iterator[Any]:
    """Reserve the backup's id and choose its sources; for a past day, find the backup that proves what it held."""
    with explained(context), backups.opened(config.storage) as (application, repository):
        settings = application.settings
        apply_limits(context, settings)
        day = checked_day(context.partition_key, settings, SystemClock().now())
        names = [source.name for source in application.sources(config.backup_type)]
        chosen: Json = {"storage": config.storage, "note": config.note}
        if day < day_begun(context, settings):
            found = find_synthetic(repository, day, names, settings.timezone)
            context.log.info(f"{day} is over. What it held: {', '.join(found.commands())}")
            for stage in LATER_STAGES:
                yield dg.Output([], stage)
            synthetic = {"day": day.isoformat(), "point": found.to_json()}
            yield dg.Output({**chosen, "synthetic": synthetic}, "chosen")
            return
        application.check_enabled()
        planned = service.plan_backup(repository, config.backup_type, names)
        backups.begin(planned, config.storage)
        try:
            application.hooks(RunLog(context.log)).before(planned)
        except BaseException:
            backups.give_up(planned, application, repository, RunLog(context.log))
            raise
        context.log.info(f"{planned.backup_id}: {', '.join(names)}")
    verify = settings.verify_integrity if config.verify_integrity is None else config.verify_integrity
    chosen |= {"plan": planned.to_json(), "verify_integrity": verify}
    patterns = {"include": config.include_patterns, "exclude": config.exclude_patterns}
    first, *later = [[{**chosen, "source": name, **patterns} for name in stage] for stage in stages(names)]
    for source in first:
        yield dg.DynamicOutput(source, mapping_key=source["source"], output_name="base")
    for stage, members in zip(LATER_STAGES, later, strict=True):
        yield dg.Output(members, stage)
    yield dg.Output(chosen, "chosen")


@dg.op(out=dg.DynamicOut(dict), ins={"after": dg.In(dg.Nothing)})
def begin(sources: list[dict[str, Any]]) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
    """Begin a stage: all captures of the one before have ended."""
    for source in sources:
        yield dg.DynamicOutput(source, mapping_key=source["source"])


@dg.op(pool=POOL)
def capture(context: dg.OpExecutionContext, source: dict[str, Any], backups: BackupsResource) -> dict[str, Any]:
    """Capture one source into the repository. Its own failure is an outcome; the other sources go on."""
    planned = BackupPlan.from_json(source["plan"])
    with explained(context), backups.opened(source["storage"]) as (application, repository):
        known = application.sources(planned.type, include=source["include"], exclude=source["exclude"])
        chosen = next(one for one in known if one.name == source["source"])
        listener = RunLog(context.log)
        try:
            outcome = application.capture(repository, planned, chosen, listener)
        except BaseException as error:
            if not (isinstance(error, StorageUnavailable) and may_retry(context)):
                backups.give_up(planned, application, repository, listener)
            raise
        if outcome.error_kind == SourceUnavailable.__name__ and may_retry(context):
            raise SourceUnavailable(outcome.error or "", source=outcome.source)
        if outcome.snapshot_id is not None:
            with suppress(ChronoBackupsError):  # the capture is done, and this is for readers only
                context.add_output_metadata({**snapshot_metadata(repository.snapshot(outcome.snapshot_id))})
    if outcome.error is not None:
        context.log.error(f"{outcome.source} could not be captured: {outcome.error}")
    return outcome.to_json()


@dg.op
def commit(
    context: dg.OpExecutionContext,
    chosen: dict[str, Any],
    base: list[dict[str, Any]],
    stores: list[dict[str, Any]],
    trees: list[dict[str, Any]],
    backups: BackupsResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Write the manifest: from here on the backup exists. For a past day: prove the one found, and pin it."""
    with explained(context), backups.opened(chosen["storage"]) as (application, repository):
        if "synthetic" in chosen:
            manifest, metadata = prove_synthetic(context, repository, chosen["synthetic"])
        else:
            manifest = _commit(context, backups, application, repository, chosen, [*base, *stores, *trees])
            metadata = backup_metadata(manifest)
    metadata |= {
        "storage": dg.MetadataValue.text(chosen["storage"]),
        "verify_integrity": dg.MetadataValue.bool(chosen.get("verify_integrity", True)),
    }
    if chosen["note"]:
        metadata["note"] = dg.MetadataValue.text(chosen["note"])
    context.instance.add_run_tags(context.run_id, {BACKUP_ID_TAG: manifest.backup_id})
    if manifest.status == "partial":
        recording.made_in_part()
    yield dg.MaterializeResult(metadata=metadata, tags={BACKUP_ID_TAG: manifest.backup_id})
    if manifest.status == "partial" and not _is_checked(context):
        raise dg.Failure(missing_in_words(manifest), allow_retries=False)


def _commit(
    context: dg.OpExecutionContext,
    backups: BackupsResource,
    application: Application,
    repository: Repository,
    chosen: Json,
    outcomes: Sequence[Json],
) -> Manifest:
    planned = BackupPlan.from_json(chosen["plan"])
    trigger = trigger_of(context.run) + (f": {chosen['note']}" if chosen["note"] else "")
    listener = RunLog(context.log)
    try:
        taken = [Outcome.from_json(one) for one in outcomes]
        manifest = application.commit(repository, planned, taken, trigger=trigger, listener=listener)
    except BaseException as error:
        if not (isinstance(error, StorageUnavailable) and may_retry(context)):
            backups.give_up(planned, application, repository, listener)
        raise
    backups.end(planned)
    application.hooks(listener).after(planned)
    return manifest


def _is_checked(context: dg.OpExecutionContext) -> bool:
    """Whether this run evaluates the check that fails it when the backup is partial."""
    selected = context.run.asset_check_selection
    return selected is None or any(key.name == COMPLETE_CHECK for key in selected)


def missing_in_words(manifest: Manifest) -> str:
    """What a partial backup lacks, and why."""
    missing = "; ".join(f"{source}: {reason}" for source, reason in manifest.failures.items())
    return f"{manifest.backup_id} is partial, it lacks {missing}"
