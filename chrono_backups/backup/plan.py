"""What a backup will be, before it is taken, and what became of each source: values that cross steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import ObjectExists
from chrono_backups.identifiers import BackupType, SourceName, backup_id, next_second
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class BackupPlan:
    """A backup that has an id, reserved by a lease, and nothing else yet."""

    backup_id: str
    type: BackupType
    sources: tuple[SourceName, ...]
    started_at: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "type": self.type,
            "sources": list(self.sources),
            "started_at": to_text(self.started_at),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BackupPlan:
        return cls(data["backup_id"], data["type"], tuple(data["sources"]), from_text(data["started_at"]))


@dataclass(frozen=True)
class Outcome:
    """What became of one source: a snapshot, or an error with the name of its class."""

    source: SourceName
    snapshot_id: str | None
    error: str | None = None
    error_kind: str | None = None

    def masked(self, redact: Callable[[str], str]) -> Outcome:
        """Without secrets that a driver's message may have quoted: it is stored, and shown as long as the backup is."""
        return self if self.error is None else replace(self, error=redact(self.error))

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "snapshot_id": self.snapshot_id,
            "error": self.error,
            "error_kind": self.error_kind,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        return cls(data["source"], data["snapshot_id"], data["error"], data["error_kind"])


def plan_backup(repository: Repository, backup_type: BackupType, sources: Sequence[SourceName]) -> BackupPlan:
    """Reserve the next free backup id."""
    started_at = repository.clock.now()
    taken = set(repository.names("manifest"))
    name = backup_id(backup_type, started_at)
    while True:
        if name not in taken:
            try:
                repository.leases.take(name)
            except ObjectExists:
                pass
            else:
                # Looked up under the lease: its last holder may have committed just before it let go.
                repository.memory.begin(name)
                forgotten, names = repository.backup_names(name)
                taken = {*names, *forgotten}
                if name not in taken:
                    return BackupPlan(name, backup_type, tuple(sources), started_at)
                repository.leases.release(name)
        name = next_second(name)
