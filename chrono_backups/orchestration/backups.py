"""One daily asset per backup type: ``plan → capture[source] → commit``.

The steps hand over identifiers (a plan, outcomes, as JSON), never data: what they make is in the
repository, so each can run on another machine. Several backups of a day are several materializations
of its partition; the backup's id is metadata and a tag of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from chrono_backups.backup import service
from chrono_backups.backup.service import BackupPlan, Outcome
from chrono_backups.clock import SystemClock
from chrono_backups.errors import SourceUnavailable, StorageUnavailable, UsageError
from chrono_backups.identifiers import BACKUP_TYPES, SOURCES_OF_TYPE, BackupType
from chrono_backups.orchestration.days import backup_days, checked_day
from chrono_backups.orchestration.failures import explained, may_retry
from chrono_backups.orchestration.launch import BackupLaunch, BackupPlanConfig
from chrono_backups.orchestration.metadata import BACKUP_ID_TAG, BACKUP_TYPE_TAG, backup_metadata
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource, storage_name
from chrono_backups.orchestration.runs import POOL, apply_limits, day_begun, trigger_of
from chrono_backups.orchestration.sources import SOURCE_ASSETS, configured_sources
from chrono_backups.orchestration.synthetic import find_synthetic, prove_synthetic
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.settings import Settings

COMPLETE_CHECK = "complete"
"""The blocking check that a backup lacks no source."""

Json = dict[str, Any]


@dg.op(
    out={"source": dg.DynamicOut(dict), "chosen": dg.Out(dict)},
    ins={"sources": dg.In(dg.Nothing)},
)
def plan(context: dg.OpExecutionContext, config: BackupPlanConfig, backups: BackupsResource) -> Iterator[Any]:
    """Reserve the backup's id and choose its sources; for a past day, find the backup that proves what it held."""
    with explained(context):
        settings = backups.load()
        apply_limits(context, settings)
        today = day_begun(context, settings)
        day = checked_day(context.partition_key, settings, SystemClock().now())
        chosen: Json = {"storage": config.storage, "note": config.note}
        if not settings.enabled and day == today:
            raise UsageError("backups are switched off", hint="BACKUP_ENABLED=false; restoring always works.")
        with backups.opened(config.storage) as (application, repository):
            names = [source.name for source in application.sources(config.backup_type)]
            if day < today:
                found = find_synthetic(repository, day, names, settings.timezone)
                context.log.info(f"{day} is over: {found.backup_id} is the newest that holds what it held.")
                yield dg.Output({**chosen, "synthetic": found.to_json()}, "chosen")
                return
            planned = service.plan_backup(repository, config.backup_type, names)
        verify = settings.verify_integrity if config.verify_integrity is None else config.verify_integrity
        chosen |= {"plan": planned.to_json(), "verify_integrity": verify}
        context.log.info(f"{planned.backup_id}: {', '.join(names)}")
        for name in names:
            piece = {**chosen, "source": name, "patterns": added_patterns(settings, config)}
            yield dg.DynamicOutput(piece, mapping_key=name, output_name="source")
        yield dg.Output(chosen, "chosen")


def added_patterns(settings: Settings, config: BackupLaunch) -> dict[str, str]:
    """The variables that say what the launch form adds to the configured patterns."""
    files = settings.files
    added = {
        "BACKUP_INCLUDE_PATTERNS": (files.include_patterns, config.include_patterns),
        "BACKUP_EXCLUDE_PATTERNS": (files.exclude_patterns, config.exclude_patterns),
    }
    return {name: ",".join([*configured, *more]) for name, (configured, more) in added.items() if more}


@dg.op(pool=POOL)
def capture(context: dg.OpExecutionContext, source: dict[str, Any], backups: BackupsResource) -> dict[str, Any]:
    """Capture one source into the repository. Its own failure is an outcome; the other sources go on."""
    planned = BackupPlan.from_json(source["plan"])
    with explained(context):
        application = backups.application(source["patterns"])
        chosen = next(one for one in application.sources(planned.type) if one.name == source["source"])
        with application.open_repository(storage_name(source["storage"])) as repository:
            try:
                outcome = service.capture(
                    repository, planned, chosen, options=application.pipeline_options(), listener=RunLog(context.log)
                )
            except BaseException as error:
                _let_go(context, repository, planned, error)
                raise
    if outcome.error_kind == SourceUnavailable.__name__ and may_retry(context):
        with explained(context):
            raise SourceUnavailable(outcome.error or "", source=outcome.source)
    if outcome.error is not None:
        context.log.error(f"{outcome.source} could not be captured: {outcome.error}")
    return outcome.to_json()


@dg.op
def commit(
    context: dg.OpExecutionContext, chosen: dict[str, Any], outcomes: list[dict[str, Any]], backups: BackupsResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Write the manifest: from here on the backup exists. For a past day: prove the one found, and pin it."""
    with explained(context), backups.opened(chosen["storage"]) as (_, repository):
        if "synthetic" in chosen:
            manifest, metadata = prove_synthetic(context, repository, chosen["synthetic"])
        else:
            manifest = _commit(context, repository, chosen, outcomes)
            metadata = backup_metadata(manifest)
    metadata |= {
        "storage": dg.MetadataValue.text(chosen["storage"]),
        "verify_integrity": dg.MetadataValue.bool(chosen.get("verify_integrity", True)),
    }
    if chosen["note"]:
        metadata["note"] = dg.MetadataValue.text(chosen["note"])
    context.instance.add_run_tags(context.run_id, {BACKUP_ID_TAG: manifest.backup_id})
    yield dg.MaterializeResult(metadata=metadata, tags={BACKUP_ID_TAG: manifest.backup_id})
    if manifest.status == "partial" and not _is_checked(context):
        raise dg.Failure(missing_in_words(manifest), allow_retries=False)


def _commit(context: dg.OpExecutionContext, repository: Repository, chosen: Json, outcomes: Sequence[Json]) -> Manifest:
    planned = BackupPlan.from_json(chosen["plan"])
    trigger = trigger_of(context.run) + (f": {chosen['note']}" if chosen["note"] else "")
    try:
        return service.commit(repository, planned, [Outcome.from_json(one) for one in outcomes], trigger=trigger)
    except BaseException as error:
        _let_go(context, repository, planned, error)
        raise


def _let_go(context: dg.OpExecutionContext, repository: Repository, planned: BackupPlan, error: BaseException) -> None:
    """Release the lease of a backup that ``error`` ends: a failure, or the run being cancelled.

    Never raises: nothing may take an interruption's place. A lease that stays runs out by itself.
    """
    if isinstance(error, StorageUnavailable) and may_retry(context):
        return
    with suppress(Exception):
        service.abandon(repository, planned)


def _is_checked(context: dg.OpExecutionContext) -> bool:
    """Whether this run evaluates the check that fails it when the backup is partial."""
    selected = context.run.asset_check_selection
    return selected is None or any(key.name == COMPLETE_CHECK for key in selected)


def missing_in_words(manifest: Manifest) -> str:
    """What a partial backup lacks, and why."""
    missing = "; ".join(f"{source}: {reason}" for source, reason in manifest.failures.items())
    return f"{manifest.backup_id} is partial, it lacks {missing}"


def backup_asset_key(backup_type: str) -> dg.AssetKey:
    """The asset of that backup type."""
    return dg.AssetKey(f"{backup_type}_backup")


_WORDS: Mapping[BackupType, str] = {
    "full": "Everything, every byte read.",
    "incremental": "Everything; of files, what changed since the newest backup is read.",
    "differential": "Everything; of files, what changed since the newest full backup is read.",
    "database_only": "The databases alone.",
    "files_only": "Files and configuration alone, every byte read.",
    "configuration": "The configuration alone.",
}


def build_backup(backup_type: BackupType, settings: Settings) -> dg.AssetsDefinition:
    """The daily asset of one backup type."""

    @dg.config_mapping
    def bind_type(config: BackupLaunch) -> dict[str, Any]:
        return {"plan": {"config": {**config.model_dump(), "backup_type": backup_type}}}

    sources = [name for name in configured_sources(settings) if name in SOURCES_OF_TYPE[backup_type]]

    @dg.graph_asset(
        name=f"{backup_type}_backup",
        description=(
            f"{_WORDS[backup_type]} Launched for a past day it materializes what the repository proves that the"
            " day held, as a synthetic recovery point."
        ),
        ins={name: dg.AssetIn(SOURCE_ASSETS[name].key, dagster_type=dg.Nothing) for name in sources},
        config=bind_type,
        partitions_def=backup_days(settings),
        group_name="backups",
        kinds={"chrono", "zstd"},
        tags={BACKUP_TYPE_TAG: backup_type},
    )
    def backup(**lineage: Any) -> Any:
        planned = plan(sources=list(lineage.values())) if lineage else plan()
        return commit(planned.chosen, planned.source.map(capture).collect())

    return backup


def build_backups(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of all backup types."""
    return [build_backup(backup_type, settings) for backup_type in BACKUP_TYPES]
