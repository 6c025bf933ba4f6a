"""Backfilling a past day: a synthetic recovery point.

The past can't be captured. What the repository proves that the day held is the newest complete backup
that was finished before the day was over and has all the sources that the type asks for. It is proven
(its structure, every object that it needs) and pinned against retention, or the run fails and says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import dagster as dg

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import BackupMissing, Damaged
from chrono_backups.maintenance.verify import verify
from chrono_backups.orchestration.days import end_of
from chrono_backups.orchestration.metadata import Metadata, backup_metadata, findings_table
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class SyntheticPoint:
    """A past day, when it ended, and the backup that proves what it held."""

    day: str
    ended_at: datetime
    backup_id: str

    def to_json(self) -> dict[str, str]:
        return {"day": self.day, "ended_at": to_text(self.ended_at), "backup_id": self.backup_id}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> "SyntheticPoint":
        return cls(data["day"], from_text(data["ended_at"]), data["backup_id"])


def find_synthetic(repository: Repository, day: date, sources: Sequence[str], timezone: str) -> SyntheticPoint:
    """The newest backup that can stand for ``day``. Raises ``BackupMissing`` where there is none."""
    ended_at = end_of(day, timezone)
    for manifest in repository.readable_backups()[0]:
        held = {snapshot.source for snapshot in manifest.snapshots}
        if manifest.status == "complete" and manifest.finished_at <= ended_at and held.issuperset(sources):
            return SyntheticPoint(day.isoformat(), ended_at, manifest.backup_id)
    raise BackupMissing(
        f"the repository can't prove what {day} held: no complete backup of {', '.join(sources)} was finished before"
        f" {to_text(ended_at)}",
        hint="A past day can't be captured today; backfill days from the first backup on.",
    )


def prove_synthetic(
    context: dg.OpExecutionContext, repository: Repository, chosen: dict[str, Any]
) -> tuple[Manifest, Metadata]:
    """Prove the point's backup, pin it, and describe it. Raises ``Damaged`` where it is not whole."""
    point = SyntheticPoint.from_json(chosen)
    report = verify(repository, backup_id=point.backup_id, full=False, listener=RunLog(context.log))
    if not report.ok:
        worst = next(finding for finding in report.findings if finding.severity == "error")
        raise Damaged(
            f"{point.backup_id}, which stands for {point.day}, is not whole: {worst.subject}: {worst.message}",
            key=worst.subject,
        )
    repository.pin(point.backup_id, f"synthetic recovery point of {point.day}")
    manifest = repository.backup(point.backup_id)
    age = (point.ended_at - manifest.finished_at).total_seconds()
    metadata: Metadata = {
        **backup_metadata(manifest),
        "synthetic": dg.MetadataValue.bool(True),
        "stands_for": dg.MetadataValue.text(point.day),
        "seconds_before_end_of_day": dg.MetadataValue.float(age),
        "pinned": dg.MetadataValue.bool(True),
    }
    if report.findings:
        metadata["verification"] = dg.MetadataValue.md(findings_table(report.findings))
    return manifest, metadata
