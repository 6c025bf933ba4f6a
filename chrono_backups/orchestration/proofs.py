"""Proof that stored backups are true, by day, so that it can be repeated and backfilled over any range.

A day is proven, and its partition materialized, when all its backups are. What a verification finds is
also written as an evaluation of the checks of the backups' own assets.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from typing import Any

import dagster as dg

from chrono_backups.clock import SystemClock
from chrono_backups.events import Finding
from chrono_backups.identifiers import BACKUP_TYPES, BackupType
from chrono_backups.maintenance.heal import heal
from chrono_backups.maintenance.verify import VerifyReport, verify
from chrono_backups.orchestration.checks import verified_in_words
from chrono_backups.orchestration.days import Held, backup_days, backups_of, checked_day
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.launch import VerificationLaunch
from chrono_backups.orchestration.metadata import Metadata, findings_table, in_words, plain_metadata, table
from chrono_backups.orchestration.names import BYTES_CHECK, STRUCTURE_CHECK, VERIFICATION, backup_asset_key
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import BackupsResource, storage_name
from chrono_backups.orchestration.runs import POOL, apply_limits
from chrono_backups.repository.repository import Repository
from chrono_backups.settings import Settings


def build_verification(settings: Settings) -> dg.AssetsDefinition:
    """The asset that proves a day's backups."""

    @dg.asset(
        key=VERIFICATION,
        deps=[backup_asset_key(backup_type) for backup_type in BACKUP_TYPES],
        partitions_def=backup_days(settings),
        group_name="proofs",
        pool=POOL,
    )
    def verification(
        context: dg.AssetExecutionContext, config: VerificationLaunch, backups: BackupsResource
    ) -> Iterator[Any]:
        """The day's backups, read back from a storage and found to be what was written."""
        with explained(context):
            loaded = backups.load()
            apply_limits(context, loaded)
            day = checked_day(context.partition_key, loaded, SystemClock().now())
            repaired: list[Finding] = []
            with ExitStack() as opened:
                others: list[Repository] = []
                if config.repair:
                    pair = backups.application().opened_for_repair(storage_name(config.storage), RunLog(context.log))
                    repository, others = opened.enter_context(pair)
                else:
                    _, repository = opened.enter_context(backups.opened(config.storage))
                held = backups_of(repository, day, loaded.timezone)
                if not held:
                    yield dg.MaterializeResult(metadata=_nothing_to_prove(day))
                    return
                newest = {one.type: one.backup_id for one in reversed(repository.readable_backups()[0])}
                if config.repair:
                    repaired = _repair(context, repository, others, held, config.depth)
                reports = [(one, _prove(context, repository, one, config.depth, newest)) for one in held]
        metadata = _proof_metadata(reports, config.depth)
        if config.repair:
            metadata["repaired"] = dg.MetadataValue.int(len(repaired))
        if repaired:
            metadata["what_was_repaired"] = dg.MetadataValue.md(findings_table(repaired))
        damaged = [one.backup_id for one, report in reports if not report.ok]
        if damaged:
            # Yielded, not logged: with it the evaluations are stored, which a failing step would throw away.
            yield dg.AssetObservation(VERIFICATION, partition=context.partition_key, metadata=metadata)
            raise dg.Failure(f"not whole: {', '.join(damaged)}", metadata=metadata, allow_retries=False)
        yield dg.MaterializeResult(metadata=metadata)

    return verification


def _nothing_to_prove(day: date) -> Metadata:
    return {
        "backups": dg.MetadataValue.int(0),
        "note": dg.MetadataValue.text(f"{day} has no backups: nothing to prove"),
    }


def _repair(
    context: dg.AssetExecutionContext, repository: Repository, others: list[Repository], held: list[Held], depth: str
) -> list[Finding]:
    """What was put back for the day's backups. What could not be is for the proof to find."""
    repaired: dict[str, Finding] = {}
    for one in held:
        listener = RunLog(context.log)
        report = heal(repository, others, backup_id=one.backup_id, full=depth == "full", listener=listener)
        repaired.update((finding.subject, finding) for finding in report.repaired)
        for finding in report.unrepaired:
            context.log.error(str(finding))
    return list(repaired.values())


def _prove(
    context: dg.AssetExecutionContext,
    repository: Repository,
    held: Held,
    depth: str,
    newest: Mapping[BackupType, str],
) -> VerifyReport:
    context.log.info(f"Verifying {held.backup_id} ({depth})")
    report = verify(repository, backup_id=held.backup_id, full=depth == "full", listener=RunLog(context.log))
    # A check shows its latest evaluation: damage is always told, but that an older backup is whole says
    # nothing of the newest one.
    if not report.ok or newest.get(held.type) == held.backup_id:
        context.log_event(
            dg.AssetCheckEvaluation(
                asset_key=backup_asset_key(held.type),
                check_name=BYTES_CHECK if depth == "full" else STRUCTURE_CHECK,
                passed=report.ok,
                severity=dg.AssetCheckSeverity.ERROR,
                description=verified_in_words(report.findings, whole=report.ok),
                metadata={"backup_id": held.backup_id, **plain_metadata(report.to_json())},
                blocking=True,
                partition=context.partition_key,
            )
        )
    return report


def _proof_metadata(reports: list[tuple[Held, VerifyReport]], depth: str) -> Metadata:
    findings = [finding for _, report in reports for finding in report.findings]
    rows = [
        (one.backup_id, one.status, "whole" if report.ok else "**damaged**", report.objects, in_words(report.bytes))
        for one, report in reports
    ]
    shown: Metadata = {
        "depth": dg.MetadataValue.text(depth),
        "backups": dg.MetadataValue.int(len(reports)),
        "whole": dg.MetadataValue.int(sum(report.ok for _, report in reports)),
        "objects": dg.MetadataValue.int(sum(report.objects for _, report in reports)),
        "bytes": dg.MetadataValue.int(sum(report.bytes for _, report in reports)),
        "seconds": dg.MetadataValue.float(round(sum(report.seconds for _, report in reports), 3)),
        "findings": dg.MetadataValue.int(len(findings)),
        "results": dg.MetadataValue.md(table(("backup", "status", "result", "objects#", "read#"), rows)),
    }
    if findings:
        shown["what_was_found"] = dg.MetadataValue.md(findings_table(findings))
    return shown
