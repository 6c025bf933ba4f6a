"""Evidence of drills: which backups were restored to a scratch place, when, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.identifiers import BackupType, parse_backup_id
from chrono_backups.repository.format import object_key
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class Evidence:
    """Of one drill."""

    backup_id: str
    started_at: datetime
    finished_at: datetime
    proven: bool
    """Everything that was restored was found to be what was captured."""
    details: Mapping[str, Any]
    """What was done, how long it took, what was reached and found."""

    @property
    def name(self) -> str:
        """``BACKUP-ID-TIME``, the object's."""
        return f"{self.backup_id}-{self.started_at:%Y%m%dt%H%M%S%f}"

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "started_at": to_text(self.started_at),
            "finished_at": to_text(self.finished_at),
            "proven": self.proven,
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], key: str) -> Evidence:
        """Raises ``Damaged`` naming ``key`` where the record is not what ``to_json`` writes."""
        try:
            return cls(
                str(data["backup_id"]),
                from_text(data["started_at"]),
                from_text(data["finished_at"]),
                bool(data["proven"]),
                dict(data["details"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{key} is no evidence of a drill: {error}", key=key) from error


def backup_of(name: str) -> str:
    """The backup that the evidence of that name is of."""
    return name.rpartition("-")[0]


def put_evidence(repository: Repository, evidence: Evidence) -> None:
    """Store it for good: it goes with its backup."""
    repository.put_record("drill", evidence.name, evidence.to_json())


def evidence(repository: Repository, backup_id: str | None = None) -> list[Evidence]:
    """All that can be read, of one backup or of all, the newest drill first."""
    found = []
    for name in repository.names("drill"):
        if backup_id in {None, backup_of(name)}:
            try:
                found.append(Evidence.from_json(repository.record("drill", name), object_key("drill", name)))
            except (ObjectMissing, Damaged):  # pruned meanwhile; what is damaged proves nothing, and `verify` names it
                continue
    return sorted(found, key=lambda one: one.started_at, reverse=True)


def newest_evidence(repository: Repository, backup_type: BackupType) -> Evidence | None:
    """Of the newest drill of a backup of that type; reads as few records as it takes."""
    found = []
    for name in repository.names("drill"):
        parsed = parse_backup_id(backup_of(name))
        if parsed is not None and parsed[0] == backup_type:
            found.append((name.rpartition("-")[2], name))
    for _, name in sorted(found, reverse=True):
        with suppress(ObjectMissing, Damaged):
            return Evidence.from_json(repository.record("drill", name), object_key("drill", name))
    return None


def proven(repository: Repository) -> set[str]:
    """Ids of the backups whose newest drill found everything true."""
    newest = {one.backup_id: one.proven for one in reversed(evidence(repository))}
    return {backup_id for backup_id, good in newest.items() if good}
