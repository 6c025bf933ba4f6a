"""A backup as people and scripts see it: the JSON object of ``list`` and ``backup``, and its lines."""

from __future__ import annotations

from typing import Any

from chrono_backups.cli.terminal import quantities
from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.repository.records import Manifest


def as_json(manifest: Manifest) -> dict[str, Any]:
    """What ``list --json`` shows of each backup, and ``backup --json`` of the new one."""
    statistics = manifest.statistics
    return {
        "id": manifest.backup_id,
        "type": manifest.type,
        "status": manifest.status,
        "started_at": to_text(manifest.started_at),
        "finished_at": to_text(manifest.finished_at),
        "duration_seconds": seconds(manifest),
        "skew_seconds": manifest.skew_seconds,
        "skew_with_wal_seconds": manifest.skew_with_wal_seconds,
        "sources": [snapshot.source for snapshot in manifest.snapshots],
        "failures": dict(manifest.failures),
        "findings": manifest.findings_count,
        "files": statistics.files,
        "bytes_total": statistics.bytes_total,
        "bytes_read": statistics.bytes_read,
        "bytes_added": statistics.bytes_added,
        "bytes_stored": statistics.bytes_stored,
        "host": manifest.host,
        "program": manifest.program,
        "trigger": manifest.trigger,
    }


def findings_of(manifest: Manifest) -> list[Finding]:
    """What others have to hear of it, as health tells it too."""
    if manifest.status == "complete":
        return []
    missing = "; ".join(f"{source}: {reason}" for source, reason in manifest.failures.items())
    what, hint = f"{manifest.backup_id} is partial, it lacks {missing}", "Mend the source, and take another one."
    return [Finding("backup-partial", "error", f"{manifest.type} backup", what, hint)]


def seconds(manifest: Manifest) -> float:
    """How long the backup took."""
    return (manifest.finished_at - manifest.started_at).total_seconds()


def summary(manifest: Manifest) -> list[tuple[str, str]]:
    """The backup in a few facts: what ``backup`` prints and ``show`` begins with."""
    statistics, took = manifest.statistics, seconds(manifest)
    findings = manifest.findings_count
    read = f"{quantities.size(statistics.bytes_read)} of {quantities.size(statistics.bytes_total)}"
    speed = f" ({quantities.rate(statistics.bytes_read, took)})" if statistics.bytes_read and took else ""
    return [
        ("backup", manifest.backup_id),
        ("status", manifest.status),
        ("type", _types(manifest)),
        ("sources", ", ".join(snapshot.source for snapshot in manifest.snapshots)),
        ("missing", "; ".join(f"{source}: {reason}" for source, reason in manifest.failures.items())),
        ("finished", f"{quantities.moment(manifest.finished_at)} UTC, after {quantities.duration(took)}"),
        ("holds", f"{quantities.count(statistics.files, 'file')}, {quantities.size(statistics.bytes_total)}"),
        ("read", f"{read}, {quantities.count(statistics.files_read, 'file')}{speed}"),
        ("stored", f"{quantities.size(statistics.bytes_stored)} new"),
        ("findings", f"{findings:,} (`chrono-backups show {manifest.backup_id}`)" if findings else ""),
    ]


def skew(manifest: Manifest) -> str:
    """How far apart its boundaries lie, and how far once WAL brings PostgreSQL to the others."""
    text = quantities.duration(manifest.skew_seconds)
    met = manifest.meeting
    if met is None or manifest.skew_with_wal_seconds == manifest.skew_seconds:
        return text
    return f"{text}; {quantities.duration(manifest.skew_with_wal_seconds)} where WAL leads on to {met[1].lsn}"


def _types(manifest: Manifest) -> str:
    """The type that was asked for, and what became of it where a parent could not be used."""
    changed = [f"{one.source} taken as {one.effective}: {one.reason}" for one in manifest.snapshots if one.reason]
    return "; ".join([manifest.type, *changed])
