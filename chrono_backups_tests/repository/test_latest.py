"""What ``latest`` means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from chrono_backups.cli.context import TRIGGER
from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType, SourceName
from chrono_backups.repository.latest import SAFETY_TRIGGER, latest
from chrono_backups.repository.records import Manifest, SnapshotSummary, Statistics, Status

START = datetime(2026, 1, 1, tzinfo=UTC)


def backups(*rows: str) -> list[Manifest]:
    """``type [partial] [safety]`` each, oldest first; newest first as the repository gives them."""
    return [_backup(day, *row.split()) for day, row in enumerate(rows)][::-1]


def _backup(day: int, backup_type: str, *words: str) -> Manifest:
    kind, when = cast("BackupType", backup_type), START + timedelta(days=day)
    held = [source for source in SOURCES_OF_TYPE[kind] if source in ("files", "configuration")]
    if "partial" in words:
        held = held[1:]
    status: Status = "partial" if "partial" in words else "complete"
    trigger = SAFETY_TRIGGER if "safety" in words else TRIGGER
    snapshots = tuple(_snapshot(source, when) for source in held)
    return Manifest(f"{day} {backup_type}", kind, status, when, when, snapshots, {}, "host", "program", trigger)


def _snapshot(source: SourceName, when: datetime) -> SnapshotSummary:
    return SnapshotSummary(source, "id", "full", "", when, when, Statistics(), {}, 0)


@pytest.mark.parametrize(
    ("rows", "sources", "expected"),
    [
        ((), (), None),
        (("full", "full"), (), "1 full"),
        (("full", "incremental", "configuration"), (), "1 incremental"),
        (("full", "configuration"), ("configuration",), "1 configuration"),
        (("full", "configuration"), ("files", "configuration"), "0 full"),
        (("full", "files_only"), ("files",), "1 files_only"),
        (("full", "files_only safety"), ("files",), "0 full"),
        (("files_only safety",), ("files",), "0 files_only"),
        (("full", "full partial"), (), "0 full"),
        (("full partial",), (), "0 full"),
        (("full partial", "configuration"), (), "1 configuration"),
        (("configuration",), ("files",), None),
    ],
)
def test_latest(rows: tuple[str, ...], sources: tuple[str, ...], expected: str | None) -> None:
    found = latest(backups(*rows), sources)
    assert (found.backup_id if found else None) == expected
