"""How an operation ended, whoever started it: which incidents that opens, and which it ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from chrono_backups.errors import (
    ChronoBackupsError,
    SourceUnavailable,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.events import Finding
from chrono_backups.identifiers import BACKUP_TYPES
from chrono_backups.notifications.incidents import Incident, Sighting

How = Literal["done", "failed", "cancelled", "over-time"]

VERIFICATION, DRILL, RETENTION, REPLICATION, RESTORE = "verification", "drill", "retention", "replication", "restore"

_CODES: dict[str, str] = {
    StorageUnavailable.__name__: "storage-unavailable",
    StorageDenied.__name__: "storage-denied",
    StorageFull.__name__: "storage-full",
    SourceUnavailable.__name__: "source-unavailable",
}
"""Causes that fail one operation after the other: each is one incident, whatever it makes fail."""


def backup_operation(backup_type: str) -> str:
    """What people, and incidents, call the taking of such a backup."""
    return f"{backup_type} backup"


def type_in(text: str) -> str:
    """The backup type that an operation or a finding's subject is about, or nothing."""
    first = text.partition(" ")[0].removesuffix("_backup")
    return first if first in BACKUP_TYPES else ""


@dataclass(frozen=True)
class Ended:
    """How one operation ended."""

    operation: str
    """As ``full backup``. Its next success ends what it opened."""
    event: str
    """What its failure is."""
    how: How = "done"
    findings: tuple[Finding, ...] = ()
    """What is wrong although it came to its end."""
    message: str = ""
    """Why it failed."""
    hint: str = ""
    kind: str = ""
    """The error's class."""
    place: str = ""
    """The storage or the source that the error names."""
    storage: str = ""
    """The storage that it worked with: once it is done, that can be reached."""
    backup_id: str = ""
    backup_type: str = ""
    link: str = ""

    def by(self, error: ChronoBackupsError) -> Ended:
        """Failed by that error."""
        place = error.storage if isinstance(error, StorageError) else getattr(error, "source", "")
        return replace(
            self, how="failed", message=error.message, hint=error.hint, kind=type(error).__name__, place=place
        )


def sightings(ended: Ended) -> list[Sighting]:
    """What is wrong."""
    found = [_sighting(ended, finding) for finding in ended.findings]
    if ended.how == "done":
        return found
    what = f"The {ended.operation} "
    if ended.how == "cancelled":
        code = "backup-cancelled" if ended.backup_type else ended.event
        finding = Finding(code, "warning", ended.operation, f"{what}was cancelled{_because(ended)}", ended.hint)
    elif ended.how == "over-time":
        code = "backup-over-time" if ended.backup_type else ended.event
        hint = ended.hint or "Give it more time (BACKUP_TIMEOUT_SECONDS), or let it read less at once."
        finding = Finding(code, "error", ended.operation, f"{what}took too long and was stopped{_because(ended)}", hint)
    elif ended.kind in _CODES and ended.place:
        code, message = _CODES[ended.kind], f"{what}failed: {ended.message}"
        finding = Finding(code, "error", ended.place, message, ended.hint)
    else:
        finding = Finding(ended.event, "error", ended.operation, f"{what}failed{_because(ended)}", ended.hint)
    return [*found, _sighting(ended, finding)]


def _because(ended: Ended) -> str:
    return f": {ended.message}" if ended.message else ""


def _sighting(ended: Ended, finding: Finding) -> Sighting:
    return Sighting(
        finding,
        operation=ended.operation,
        backup_id=ended.backup_id,
        backup_type=ended.backup_type,
        link=ended.link,
    )


def ends(ended: Ended, incident: Incident) -> bool:
    """Whether an incident is over, if it is none of what was seen: the operation that opened it came to its end."""
    if ended.how != "done":
        return False
    if incident.last.operation == ended.operation:
        return True
    finding = incident.last.finding
    return finding.code in _CODES.values() and finding.subject == ended.storage and finding.subject != ""
