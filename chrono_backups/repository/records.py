"""The records of a repository, and their JSON forms (``docs/repository-format.md``, "Records").

A **snapshot** is one finished capture of one source; a **manifest** is the record of a backup and
names its snapshots. Both are written once, sealed, and never changed. Times are UTC; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from chrono_backups.boundary import Boundary, PostgresPosition, meeting, skew
from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import Damaged
from chrono_backups.events import Finding
from chrono_backups.identifiers import BackupType, SourceName

Effective = Literal["full", "incremental", "differential"]
"""What a capture really read, after an unusable parent made it a full one."""

Status = Literal["complete", "partial"]


@dataclass(frozen=True)
class Statistics:
    """What a capture did. ``*_added`` is new in the repository; ``bytes_stored`` is after sealing."""

    files: int = 0
    directories: int = 0
    others: int = 0
    """Symlinks, devices and fifos."""
    bytes_total: int = 0
    """Content bytes that a whole restore writes."""
    files_read: int = 0
    bytes_read: int = 0
    """Content bytes read from the source this time."""
    chunks_added: int = 0
    bytes_added: int = 0
    """Content bytes of chunks that the repository did not hold yet."""
    bytes_stored: int = 0
    """Bytes that those chunks take in packs: compressed, encrypted."""

    @classmethod
    def from_json(cls, data: Mapping[str, int]) -> Statistics:
        """Of the fields that this program knows; later ones may have more."""
        return cls(**{one.name: data[one.name] for one in fields(cls)})

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass(frozen=True)
class ListingChunk:
    """One chunk of a snapshot's listing: its id and the path of its first directory."""

    first_path: bytes
    chunk_id: bytes


@dataclass(frozen=True)
class Snapshot:
    """One finished capture of one source."""

    snapshot_id: str
    backup_id: str
    source: SourceName
    effective: Effective
    reason: str
    """Why ``effective`` is not what was asked for; empty otherwise."""
    parent: str | None
    """The snapshot id that unchanged entries were taken from."""
    started_at: datetime
    finished_at: datetime
    statistics: Statistics
    facts: Mapping[str, Any]
    """What only the source knows: its boundary, its roots."""
    findings: tuple[Finding, ...]
    listing: tuple[ListingChunk, ...] = field(repr=False)
    wasteful: tuple[bytes, ...] = field(default=(), repr=False)
    """Bundles of which this snapshot uses less than half: the next full capture packs their files anew."""
    boundary: Boundary | None = None
    """None: of a program that recorded none."""

    def to_json(self) -> dict[str, Any]:
        return {
            "snapshot_id": self.snapshot_id,
            "backup_id": self.backup_id,
            "source": self.source,
            "effective": self.effective,
            "reason": self.reason,
            "parent": self.parent,
            "started_at": to_text(self.started_at),
            "finished_at": to_text(self.finished_at),
            "statistics": asdict(self.statistics),
            "facts": dict(self.facts),
            "findings": [finding.to_json() for finding in self.findings],
            "listing": [[chunk.first_path.hex(), chunk.chunk_id.hex()] for chunk in self.listing],
            "wasteful": [chunk_id.hex() for chunk_id in self.wasteful],
            "boundary": self.boundary.to_json() if self.boundary is not None else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], key: str) -> Snapshot:
        """Raises ``Damaged`` naming ``key`` where the record is not what ``to_json`` writes."""
        try:
            return cls(
                snapshot_id=data["snapshot_id"],
                backup_id=data["backup_id"],
                source=data["source"],
                effective=data["effective"],
                reason=data["reason"],
                parent=data["parent"],
                started_at=from_text(data["started_at"]),
                finished_at=from_text(data["finished_at"]),
                statistics=Statistics.from_json(data["statistics"]),
                facts=data["facts"],
                findings=tuple(Finding.from_json(finding) for finding in data["findings"]),
                listing=tuple(
                    ListingChunk(bytes.fromhex(path), bytes.fromhex(chunk_id)) for path, chunk_id in data["listing"]
                ),
                wasteful=tuple(bytes.fromhex(chunk_id) for chunk_id in data["wasteful"]),
                boundary=Boundary.from_json(data.get("boundary")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{key} is no snapshot record: {error}", key=key) from error


@dataclass(frozen=True)
class SnapshotSummary:
    """What a manifest says of one of its snapshots."""

    source: SourceName
    snapshot_id: str
    effective: Effective
    reason: str
    started_at: datetime
    finished_at: datetime
    statistics: Statistics
    facts: Mapping[str, Any]
    findings: int
    """How many findings the snapshot has; ``Repository.snapshot`` has them all."""
    boundary: Boundary | None = None
    """None: of a program that recorded none."""

    @property
    def held(self) -> Boundary:
        """Its boundary; where none was recorded, the end of its capture."""
        return self.boundary or Boundary(self.finished_at, self.finished_at)

    @classmethod
    def of(cls, snapshot: Snapshot) -> SnapshotSummary:
        return cls(
            source=snapshot.source,
            snapshot_id=snapshot.snapshot_id,
            effective=snapshot.effective,
            reason=snapshot.reason,
            started_at=snapshot.started_at,
            finished_at=snapshot.finished_at,
            statistics=snapshot.statistics,
            facts=snapshot.facts,
            findings=len(snapshot.findings),
            boundary=snapshot.boundary,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "snapshot_id": self.snapshot_id,
            "effective": self.effective,
            "reason": self.reason,
            "started_at": to_text(self.started_at),
            "finished_at": to_text(self.finished_at),
            "statistics": asdict(self.statistics),
            "facts": dict(self.facts),
            "findings": self.findings,
            "boundary": self.boundary.to_json() if self.boundary is not None else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SnapshotSummary:
        return cls(
            source=data["source"],
            snapshot_id=data["snapshot_id"],
            effective=data["effective"],
            reason=data["reason"],
            started_at=from_text(data["started_at"]),
            finished_at=from_text(data["finished_at"]),
            statistics=Statistics.from_json(data["statistics"]),
            facts=data["facts"],
            findings=data["findings"],
            boundary=Boundary.from_json(data.get("boundary")),
        )


@dataclass(frozen=True)
class AuditHead:
    """The end of an audit log's chain at a moment: its line of that number has that hash, or the log was changed."""

    log: str
    line: int
    hash: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AuditHead:
        return cls(str(data["log"]), int(data["line"]), str(data["hash"]))


@dataclass(frozen=True)
class Manifest:
    """The record of a backup: in sight only when all it needs is stored."""

    backup_id: str
    type: BackupType
    status: Status
    started_at: datetime
    finished_at: datetime
    snapshots: tuple[SnapshotSummary, ...]
    failures: Mapping[str, str]
    """Source → why it is missing; empty in a complete backup."""
    host: str
    program: str
    """Name and version of the program that wrote it."""
    trigger: str
    """Who asked: ``command line``, ``schedule …``, ``dagster run …``."""
    findings: tuple[Finding, ...] = ()
    """Of the backup as a whole; its snapshots have their own."""
    audit: AuditHead | None = None
    """The head of the writer's audit log when it was written; None where it keeps none."""

    @property
    def statistics(self) -> Statistics:
        """The sum over all snapshots."""
        return sum((snapshot.statistics for snapshot in self.snapshots), Statistics())

    @property
    def findings_count(self) -> int:
        """How many findings it and its snapshots have."""
        return len(self.findings) + sum(snapshot.findings for snapshot in self.snapshots)

    @property
    def boundaries(self) -> dict[str, Boundary]:
        """By source."""
        return {snapshot.source: snapshot.held for snapshot in self.snapshots}

    @property
    def skew_seconds(self) -> float:
        """Seconds between the first and the last boundary: no two things in the backup are further apart."""
        return skew(self.boundaries.values())

    @property
    def meeting(self) -> tuple[str, PostgresPosition] | None:
        """Where PostgreSQL meets the stores captured behind it, and whose boundary that is (``boundary.meeting``)."""
        return meeting(self.boundaries) if self.snapshot("postgres") is not None else None

    @property
    def skew_with_wal_seconds(self) -> float:
        """As ``skew_seconds``, once PostgreSQL is recovered to the meeting: needs the WAL up to it."""
        met = self.meeting
        if met is None:
            return self.skew_seconds
        return skew(one for source, one in self.boundaries.items() if source != "postgres")

    def snapshot(self, source: str) -> SnapshotSummary | None:
        """The snapshot of that source, or None."""
        return next((one for one in self.snapshots if one.source == source), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "type": self.type,
            "status": self.status,
            "started_at": to_text(self.started_at),
            "finished_at": to_text(self.finished_at),
            "skew_seconds": self.skew_seconds,
            "snapshots": [snapshot.to_json() for snapshot in self.snapshots],
            "failures": dict(self.failures),
            "host": self.host,
            "program": self.program,
            "trigger": self.trigger,
            "skew_with_wal_seconds": self.skew_with_wal_seconds,
            "findings": [finding.to_json() for finding in self.findings],
            **({"audit": self.audit.to_json()} if self.audit is not None else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], key: str) -> Manifest:
        """Raises ``Damaged`` naming ``key`` where the record is not what ``to_json`` writes."""
        try:
            return cls(
                backup_id=data["backup_id"],
                type=data["type"],
                status=data["status"],
                started_at=from_text(data["started_at"]),
                finished_at=from_text(data["finished_at"]),
                snapshots=tuple(SnapshotSummary.from_json(one) for one in data["snapshots"]),
                failures=dict(data["failures"]),
                host=data["host"],
                program=data["program"],
                trigger=data["trigger"],
                findings=tuple(Finding.from_json(finding) for finding in data.get("findings", ())),
                audit=AuditHead.from_json(data["audit"]) if "audit" in data else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{key} is no manifest: {error}", key=key) from error
