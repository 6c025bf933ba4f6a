"""Backfilling a past day: a synthetic recovery point (``recovery/synthetic.py``).

What stands for the day's end is found, proven (each backup's structure and every object that it needs; WAL without a
gap) and pinned against retention, which keeps the WAL since along; or the run fails and says why.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from chrono_backups.clock import to_text
from chrono_backups.errors import Damaged
from chrono_backups.events import Finding
from chrono_backups.maintenance.verify import verify
from chrono_backups.orchestration.days import end_of
from chrono_backups.orchestration.metadata import Metadata, backup_metadata, findings_table, table
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.recovery.synthetic import POSTGRES, SyntheticPoint, find_point
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository


def find_synthetic(repository: Repository, day: date, sources: Sequence[str], timezone: str) -> SyntheticPoint:
    """What stands for the end of ``day``. Raises ``BackupMissing``, ``RestoreError`` where that can't be proven."""
    return find_point(repository, end_of(day, timezone), sources)


def prove_synthetic(
    context: dg.OpExecutionContext, repository: Repository, chosen: dict[str, Any]
) -> tuple[Manifest, Metadata]:
    """Prove the point's backups, pin them, and describe it. Raises ``Damaged`` where one is not whole."""
    point, day = SyntheticPoint.from_json(chosen["point"]), str(chosen["day"])
    findings: list[Finding] = []
    for backup_id in point.backups:
        report = verify(repository, backup_id=backup_id, full=False, listener=RunLog(context.log))
        if not report.ok:
            worst = next(finding for finding in report.findings if finding.severity == "error")
            raise Damaged(
                f"{backup_id}, which stands for {day}, is not whole: {worst.subject}: {worst.message}",
                key=worst.subject,
            )
        findings += report.findings
    find_point(repository, point.moment, list(point.parts))  # its WAL is still there: nobody pruned it meanwhile
    for backup_id in point.backups:
        repository.pin(backup_id, _reason(point, day))
    manifest = repository.backup(point.main)
    metadata = {**backup_metadata(manifest), **_described(repository, point, day)}
    if findings:
        metadata["verification"] = dg.MetadataValue.md(findings_table(findings))
    return manifest, metadata


def _reason(point: SyntheticPoint, day: str) -> str:
    recovered = f", postgres recovered to {to_text(point.moment)}" if point.recovered else ""
    return f"synthetic recovery point of {day}{recovered}"


def _described(repository: Repository, point: SyntheticPoint, day: str) -> Metadata:
    rows = []
    oldest = point.moment
    for source, backup_id in point.parts.items():
        snapshot = repository.backup(backup_id).snapshot(source)
        assert snapshot is not None
        recovered = point.recovered and source == POSTGRES
        as_of = point.moment if recovered else snapshot.finished_at
        oldest = min(oldest, as_of)
        rows.append((source, backup_id, to_text(as_of), "base backup and WAL" if recovered else "snapshot"))
    shown: Metadata = {
        "synthetic": dg.MetadataValue.bool(True),
        "stands_for": dg.MetadataValue.text(day),
        "made_of": dg.MetadataValue.md(table(("source", "backup", "as of", "by"), rows)),
        "restore": dg.MetadataValue.md("\n".join(["```sh", *point.commands(), "```"])),
        "seconds_before_end_of_day": dg.MetadataValue.float((point.moment - oldest).total_seconds()),
        "pinned": dg.MetadataValue.bool(True),
    }
    if point.recovered:
        shown["recovered_to"] = dg.MetadataValue.timestamp(point.moment)
        shown["wal"] = dg.MetadataValue.text(point.wal)
    return shown
