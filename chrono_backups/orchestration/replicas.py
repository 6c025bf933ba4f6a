"""Whole copies of a day's backups on each other enabled storage: one asset, days × storages."""

from contextlib import closing
from datetime import date, timedelta
from functools import reduce
from operator import or_

import dagster as dg

from chrono_backups.clock import SystemClock
from chrono_backups.errors import UsageError
from chrono_backups.identifiers import BACKUP_TYPES, BackupType, StorageName
from chrono_backups.maintenance.replicate import replicate
from chrono_backups.orchestration.days import backup_days, backups_of, checked_day
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.metadata import Metadata, findings_table, in_words, plain_metadata, table
from chrono_backups.orchestration.names import REPLICA, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits
from chrono_backups.settings import Settings

GROUP = "replicas"
DAY, STORAGE = "day", "storage"

STORAGE_KINDS: dict[StorageName, str] = {
    "local": "file",
    "local_mirror": "file",
    "aws_s3": "s3",
    "gcs": "gcs",
    "azure_blob": "azure",
    "sftp": "sftp",
}
"""The icon of each storage."""

LOOKBACK = timedelta(days=2)
"""A backup that ends after midnight belongs to the day before; older days are replicated by backfill."""


def replica_storages(settings: Settings) -> tuple[StorageName, ...]:
    """The storages that get replicas: the enabled ones but the primary."""
    return settings.storages[1:]


def when_a_backup_is_proven() -> dg.AutomationCondition[dg.AssetKey]:
    """Once per backup whose blocking checks passed, for each storage.

    ``eager()`` would wait until all backup types have a backup on the day, and a failed check of one type
    would hold back the others: so each type is asked for itself.
    """
    condition = dg.AutomationCondition

    def made_and_proven(backup_type: BackupType) -> dg.AutomationCondition[dg.AssetKey]:
        kin = dg.AssetSelection.assets(backup_asset_key(backup_type))
        made = condition.any_deps_updated().allow(kin).since_last_handled()
        proven = condition.all_deps_blocking_checks_passed().allow(kin)
        return (made & proven).with_label(f"{backup_type} backup made and proven")

    return (
        condition.in_latest_time_window(LOOKBACK)
        & reduce(or_, (made_and_proven(backup_type) for backup_type in BACKUP_TYPES))
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
    ).with_label("a backup was made and proven")


def build_replicas(settings: Settings) -> list[dg.AssetsDefinition]:
    """The replica asset; nothing where no storage beside the primary one is enabled."""
    storages = replica_storages(settings)
    if not storages:
        return []

    @dg.asset(
        key=REPLICA,
        deps=[backup_asset_key(backup_type) for backup_type in BACKUP_TYPES],
        partitions_def=dg.MultiPartitionsDefinition(
            {DAY: backup_days(settings), STORAGE: dg.StaticPartitionsDefinition(list(storages))}
        ),
        group_name=GROUP,
        kinds={STORAGE_KINDS[name] for name in storages},
        automation_condition=when_a_backup_is_proven(),
        pool=POOL,
    )
    def backup_replica(context: dg.AssetExecutionContext, backups: BackupsResource) -> dg.MaterializeResult[None]:
        """The day's backups, whole, on one other storage: any replica restores alone."""
        with explained(context):
            loaded = backups.load()
            apply_limits(context, loaded)
            day, storage = _target(context.partition_key, loaded)
            return dg.MaterializeResult(metadata=_replicate(context, backups, day, storage))

    return [backup_replica]


def _target(key: str, settings: Settings) -> tuple[date, StorageName]:
    """The day and the storage that a launch names; ``UsageError`` where one of them can't be."""
    keys = key.keys_by_dimension if isinstance(key, dg.MultiPartitionKey) else {}
    if not {DAY, STORAGE} <= keys.keys():
        raise UsageError(f"partition {key!r} is not a day and a storage")
    storage = next((name for name in replica_storages(settings) if name == keys[STORAGE]), None)
    if storage is None:
        raise UsageError(f"{keys[STORAGE]} gets no replicas; those that do: {', '.join(replica_storages(settings))}")
    return checked_day(keys[DAY], settings, SystemClock().now()), storage


def _replicate(
    context: dg.AssetExecutionContext, backups: BackupsResource, day: date, storage: StorageName
) -> Metadata:
    with backups.opened() as (application, repository):
        held = backups_of(repository, day, application.settings.timezone)
        if not held:
            return {"backups": dg.MetadataValue.int(0), "note": dg.MetadataValue.text(f"{day} has no backups")}
        listener = RunLog(context.log)
        with (
            closing(application.storage(storage, create=True)) as destination,
            application.limits.operation(storage, listener),
        ):
            names = [one.backup_id for one in held if one.status != "unreadable"]
            report = replicate(repository, destination, backup_ids=names, listener=listener)
    withheld = {*report.withheld, *(one.backup_id for one in held if one.status == "unreadable")}
    rows = [
        (one.backup_id, one.status, in_words(one.content), "**withheld**" if one.backup_id in withheld else "whole")
        for one in held
    ]
    metadata: Metadata = {
        "backups": dg.MetadataValue.int(len(held)),
        "storage": dg.MetadataValue.text(storage),
        "replicas": dg.MetadataValue.md(table(("backup", "status", "content#", "replica"), rows)),
        **plain_metadata(report.to_json()),
    }
    if report.findings:
        metadata["findings"] = dg.MetadataValue.md(findings_table(report.findings))
    if withheld or not report.ok:
        held_back = ", ".join(sorted(withheld)) or "nothing"
        raise dg.Failure(
            f"{storage} has no whole replica of {day}; withheld: {held_back}", metadata=metadata, allow_retries=False
        )
    return metadata
