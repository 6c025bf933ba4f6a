"""A cluster's base backups and archived WAL as far as maintenance looks at them: no server wrote either."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from chrono_backups.clock import to_text
from chrono_backups.identifiers import lsn_text
from chrono_backups.repository.records import Manifest, Snapshot, SnapshotSummary, Statistics
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive, moment_bytes
from chrono_backups.repository.wal_names import PieceName, Segment

SYSTEM = "7400000000000000001"
SIZE = 1 << 20
"""Of a segment."""


def name(number: int, timeline: int = 1) -> str:
    """Of a segment's object."""
    return Segment(timeline, number).name(SIZE).lower()


def archive(repository: Repository, system: str = SYSTEM) -> WalArchive:
    return WalArchive(repository, system)


def put_segments(repository: Repository, numbers: Iterable[int], timeline: int = 1, system: str = SYSTEM) -> None:
    """Whole segments of noise that says which one it is."""
    for number in numbers:
        content = (f"{timeline}:{number} ".encode() * SIZE)[:SIZE]
        archive(repository, system).put_segment(name(number, timeline), moment_bytes(repository.clock.now()) + content)


def put_piece(repository: Repository, number: int, start: int, end: int, timeline: int = 1) -> None:
    content = (f"{timeline}:{number} ".encode() * SIZE)[start:end]
    moment = moment_bytes(repository.clock.now())
    archive(repository).put_piece(PieceName(name(number, timeline), start, end), moment + content)


def put_history(repository: Repository, timeline: int, *switches: tuple[int, int]) -> None:
    """That timeline was left at the beginning of that segment's second half."""
    lines = [f"{one}\t{lsn_text(number * SIZE + SIZE // 2)}\tno reason\n" for one, number in switches]
    archive(repository).put_history(timeline, "".join(lines).encode())


def put_base(
    repository: Repository,
    start: int,
    timeline: int = 1,
    *,
    system: str = SYSTEM,
    moment: datetime | None = None,
) -> Manifest:
    """A backup with a base backup that begins and ends in the segment ``start``."""
    begun = moment or repository.clock.now()
    backup_id = f"full_{begun:%Y%m%d_%H%M%S}"
    facts = {
        "system_identifier": system,
        "timeline": timeline,
        "start_lsn": lsn_text(start * SIZE + 40),
        "end_lsn": lsn_text(start * SIZE + 400),
        "start_time": to_text(begun),
        "stop_time": to_text(begun + timedelta(seconds=1)),
        "wal_segment_size": SIZE,
    }
    ended = begun + timedelta(seconds=2)
    snapshot = Snapshot(
        f"{backup_id}-postgres-{timeline:08x}", backup_id, "postgres", "full", "", None, begun, ended, Statistics(),
        facts, (), (),
    )  # fmt: skip
    repository.put_snapshot(snapshot)
    manifest = Manifest(
        backup_id, "full", "complete", begun, ended, (SnapshotSummary.of(snapshot),), {}, "host", "program", "test"
    )
    repository.put_manifest(manifest)
    return manifest


def stored(repository: Repository, system: str = SYSTEM) -> list[str]:
    """Names of all archived objects."""
    return sorted(archive(repository, system).contents().sizes)
