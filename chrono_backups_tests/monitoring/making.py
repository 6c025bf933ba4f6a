"""What storages may hold, made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType, backup_id
from chrono_backups.monitoring.stored import Stored
from chrono_backups.repository.evidence import Evidence
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.records import Manifest, SnapshotSummary, Statistics

NOW = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
"""A Wednesday."""


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def manifest(
    backup_type: BackupType,
    at: datetime,
    *,
    partial: bool = False,
    size: int = 1000,
    took: float = 60,
    stored: int = 100,
    trigger: str = "test",
) -> Manifest:
    end = at + timedelta(seconds=took)
    counted = Statistics(bytes_total=size, bytes_stored=stored)
    sources = SOURCES_OF_TYPE[backup_type]
    snapshots = [
        SnapshotSummary(one, f"{one}-1", "full", "", at, end, counted, {}, 0)
        for one in sources
        if one in {"files", "configuration"}
    ]
    failures = {"redis": "it did not answer"} if partial else {}
    status = "partial" if partial else "complete"
    name = backup_id(backup_type, at)
    return Manifest(name, backup_type, status, at, end, tuple(snapshots), failures, "host", "test", trigger)  # type: ignore[arg-type]


def stored(
    *manifests: Manifest,
    storage: str = "local",
    drills: tuple[Evidence, ...] = (),
    leases: tuple[Lease, ...] = (),
    condemned: tuple[datetime, ...] = (),
    created: datetime | None = None,
    repository: str = "r",
) -> Stored:
    newest = sorted(manifests, key=lambda one: one.started_at, reverse=True)
    return Stored(
        storage,
        repository,
        created or ago(days=400),
        tuple(one.backup_id for one in newest),
        frozenset(),
        tuple(newest),
        (),
        drills,
        condemned,
        leases,
    )


def drill(at: datetime, *, proven: bool = True) -> Evidence:
    return Evidence("full_20260601_020000", at, at + timedelta(minutes=3), proven, {"good": proven})


def lease(holder: str, at: datetime, *, term: timedelta = timedelta(hours=6)) -> Lease:
    return Lease(holder, "host", 1, at, at + term)
