"""Restore drills: a day's backup is restored to a throwaway place, started where it is a server, and found true.

One asset, days × storages, so that drills of past days can be backfilled and each storage's copy be tried. What a drill
finds is kept in the repository as evidence, shown as metadata with the time to recovery, and written as an evaluation
of the check ``restores`` on the backup's own asset.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

import dagster as dg

from chrono_backups.assembly import Application
from chrono_backups.clock import SystemClock
from chrono_backups.errors import UsageError
from chrono_backups.identifiers import BACKUP_TYPES, BackupType, StorageName, parse_backup_id
from chrono_backups.orchestration.days import backup_days, checked_day, day_of, end_of
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.launch import DrillLaunch
from chrono_backups.orchestration.metadata import Metadata, checks_table, findings_table, in_words, table
from chrono_backups.orchestration.names import APPLICATION_CHECK, DRILL, EVIDENCE_TAG, RESTORES_CHECK, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.replicas import DAY, STORAGE, STORAGE_KINDS
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.runs import POOL, apply_limits
from chrono_backups.recovery.drill import drill as carry_out
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport
from chrono_backups.recovery.postgres.target import TO_THE_END, Target, parse_target
from chrono_backups.repository.evidence import Evidence
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.settings import Settings

END_OF_DAY = "end_of_day"


def build_drill(settings: Settings) -> dg.AssetsDefinition:
    """The asset of all drills."""

    @dg.asset(
        key=DRILL,
        deps=[backup_asset_key(backup_type) for backup_type in BACKUP_TYPES],
        partitions_def=drill_partitions(settings),
        group_name="proofs",
        kinds={STORAGE_KINDS[name] for name in settings.storages},
        pool=POOL,
    )
    def drill(context: dg.AssetExecutionContext, config: DrillLaunch, backups: BackupsResource) -> Iterator[Any]:
        """The day's newest complete backup, restored from one storage to a throwaway place, started, asked, found
        true, and removed again.
        """
        with explained(context):
            loaded = backups.load()
            apply_limits(context, loaded)
            day, storage = _target(context.partition_key, loaded)
            with backups.opened(storage) as (application, repository):
                manifest = _chosen(repository, day, config, loaded)
                if manifest is None:
                    yield dg.MaterializeResult(metadata=_nothing_to_drill(day))
                    return
                options = _options(application, config, day)
                context.log.info(f"Drilling {manifest.backup_id} from {storage}, to {options.target}")
                report = carry_out(repository, manifest, options, listener=RunLog(context.log))
                newest = _is_newest(repository, manifest)
        metadata = report_metadata(report, storage)
        if not report.good or (newest and report.proven):
            yield evaluation(manifest.type, report.good, metadata, words(report), partition=day.isoformat())
        if report.checks and (newest or not checks_good(report)):
            yield checks_evaluation(manifest.type, report, partition=day.isoformat())
        if not report.good:
            yield dg.AssetObservation(
                DRILL, partition=context.partition_key, metadata=metadata, tags={EVIDENCE_TAG: report.evidence or ""}
            )
            raise dg.Failure(words(report), metadata=metadata, allow_retries=False)
        yield dg.MaterializeResult(metadata=metadata, tags={EVIDENCE_TAG: report.evidence or ""})

    return drill


def drill_partitions(settings: Settings) -> dg.MultiPartitionsDefinition:
    """Days × all enabled storages."""
    storages = dg.StaticPartitionsDefinition(list(settings.storages) or ["local"])
    return dg.MultiPartitionsDefinition({DAY: backup_days(settings), STORAGE: storages})


def _target(key: str, settings: Settings) -> tuple[date, StorageName]:
    """The day and the storage that a launch names; ``UsageError`` where one of them can't be."""
    keys = key.keys_by_dimension if isinstance(key, dg.MultiPartitionKey) else {}
    storage = next((name for name in settings.storages if name == keys.get(STORAGE)), None)
    if DAY not in keys or storage is None:
        enabled = ", ".join(settings.storages)
        raise UsageError(f"partition {key!r} is not a day and an enabled storage", hint=f"Enabled: {enabled}.")
    return checked_day(keys[DAY], settings, SystemClock().now()), storage


def _chosen(repository: Repository, day: date, config: DrillLaunch, settings: Settings) -> Manifest | None:
    """The backup that was named, or the day's: the newest complete one that holds the most sources."""
    if config.backup_id:
        return repository.backup(config.backup_id, config.sources)
    held = [
        one
        for one in repository.readable_backups()[0]
        if one.status == "complete" and day_of(one.started_at, settings.timezone) == day
    ]
    return max(held, key=lambda one: (len(one.snapshots), one.started_at), default=None)


def _options(application: Application, config: DrillLaunch, day: date) -> DrillOptions:
    settings = application.settings
    return DrillOptions.of(
        settings.drill_dir,
        settings.drill_checks,
        settings.postgres,
        settings.redis,
        settings.meilisearch,
        target=_recovery_target(config.target_time, day, settings.timezone),
        structure=config.amcheck,
        sources=config.sources,
    )


def _recovery_target(text: str, day: date, timezone: str) -> Target:
    if text == END_OF_DAY:
        return Target("time", moment=end_of(day, timezone))
    return parse_target(text) if text else TO_THE_END


def _is_newest(repository: Repository, manifest: Manifest) -> bool:
    """A check shows its latest evaluation: that an older backup restores says nothing of the newest one."""
    of_type = (one for one in repository.readable_backups()[0] if one.type == manifest.type)
    return next((one.backup_id for one in of_type if one.status == "complete"), None) == manifest.backup_id


def _nothing_to_drill(day: date) -> Metadata:
    return {
        "backups": dg.MetadataValue.int(0),
        "note": dg.MetadataValue.text(f"{day} has no complete backup: nothing to drill"),
    }


def words(report: DrillReport) -> str:
    """One line; names the first thing that was not right."""
    seconds = (report.finished_at - report.started_at).total_seconds()
    if report.good:
        verdict = "restores: proven" if report.proven else "restores, as far as it was drilled"
        return f"{report.backup_id} {verdict} in {seconds:.1f} s."
    wrong = [f"{one.subject}: {one.message}" for one in report.errors]
    return f"{report.backup_id} does not restore: {wrong[0] if wrong else 'see the findings'}"


def checks_good(report: DrillReport) -> bool:
    """Whether all of the operator's checks hold."""
    return all(one.good for one in report.checks)


def checks_evaluation(backup_type: BackupType, report: DrillReport, partition: str) -> dg.AssetCheckEvaluation:
    """Of the check ``application_checks``: the operator's own, across the stores of a drilled backup."""
    bad = [one.name for one in report.checks if not one.good]
    told = f"{', '.join(bad)} of {len(report.checks)} checks" if bad else f"All {len(report.checks)} checks"
    return dg.AssetCheckEvaluation(
        asset_key=backup_asset_key(backup_type),
        check_name=APPLICATION_CHECK,
        passed=not bad,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{told} {'do not hold' if bad else 'hold'} in {report.backup_id}.",
        metadata={"checks": dg.MetadataValue.md(checks_table([one.to_json() for one in report.checks]))},
        partition=partition,
    )


def report_metadata(report: DrillReport, storage: str) -> Metadata:
    """What a drill did and found."""
    findings = [
        *report.findings,
        *(one for source in report.sources for one in source.findings),
        *(one for source in report.sources for proof in source.proofs for one in proof.findings),
    ]
    shown = evidence_metadata(report.to_json(), storage)
    shown["started_at"] = dg.MetadataValue.timestamp(report.started_at)
    if findings:
        shown["what_was_found"] = dg.MetadataValue.md(findings_table(findings))
    return shown


def evidence_metadata(record: Mapping[str, Any], storage: str) -> Metadata:
    """The same of a drill's record, which is what evidence keeps."""
    sources = list(record.get("sources", ()))
    proofs = [(source["source"], proof) for source in sources for proof in source["proofs"]]
    rows = [
        (name, proof["name"], "good" if proof["good"] else "**BAD**", f"{proof['seconds']:.1f}", proof["done"])
        for name, proof in proofs
    ]
    reached = next((source["reached"] for source in sources if source.get("reached")), None)
    shown: Metadata = {
        "backups": dg.MetadataValue.int(1),
        "backup_id": dg.MetadataValue.text(str(record.get("backup_id", ""))),
        "storage": dg.MetadataValue.text(storage),
        "proven": dg.MetadataValue.bool(bool(record.get("proven"))),
        "good": dg.MetadataValue.bool(bool(record.get("good"))),
        "target": dg.MetadataValue.text(str(record.get("target", ""))),
        "recovery_seconds": dg.MetadataValue.float(float(record.get("recovery_seconds", record.get("seconds", 0.0)))),
        "drill_seconds": dg.MetadataValue.float(float(record.get("seconds", 0.0))),
        "files": dg.MetadataValue.int(sum(source["files"] for source in sources)),
        "bytes_restored": dg.MetadataValue.int(sum(source["bytes"] for source in sources)),
        "proofs": dg.MetadataValue.md(table(("source", "proof", "result", "seconds#", "what"), rows)),
        "evidence": dg.MetadataValue.text(str(record.get("evidence") or "could not be stored")),
    }
    for source in sources:
        shown[f"{source['source']}_seconds"] = dg.MetadataValue.float(float(source["seconds"]))
        shown[f"{source['source']}_restored"] = dg.MetadataValue.text(in_words(source["bytes"]))
    checks = list(record.get("checks", ()))
    if checks:
        shown["checks"] = dg.MetadataValue.md(checks_table(checks))
        shown["checks_failed"] = dg.MetadataValue.int(sum(not one["good"] for one in checks))
    point = record.get("point") or {}
    if point.get("note"):
        shown["together"] = dg.MetadataValue.text(str(point["note"]))
    if reached is not None:
        shown["reached_lsn"] = dg.MetadataValue.text(str(reached.get("lsn", "")))
        shown["reached_timeline"] = dg.MetadataValue.int(int(reached.get("timeline") or 0))
    return shown


def evaluation(
    backup_type: BackupType, passed: bool, metadata: Metadata, description: str, partition: str | None = None
) -> dg.AssetCheckEvaluation:
    """Of the check ``restores``."""
    return dg.AssetCheckEvaluation(
        asset_key=backup_asset_key(backup_type),
        check_name=RESTORES_CHECK,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata=metadata,
        partition=partition,
    )


def evidence_day(one: Evidence, timezone: str) -> date:
    """The day that a drill is of: that of its backup."""
    parsed = parse_backup_id(one.backup_id)
    moment: datetime = parsed[1] if parsed is not None else one.started_at
    return day_of(moment, timezone)
