"""What is safe whatever goes wrong now: the newest good recovery point, and when one was last proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chrono_backups.clock import from_text, to_text

if TYPE_CHECKING:
    from chrono_backups.repository.evidence import Evidence
    from chrono_backups.repository.records import Manifest


@dataclass(frozen=True)
class Standing:
    """As it was at ``known_at``. Ids are empty and times None where there is no such backup."""

    known_at: datetime
    newest_id: str = ""
    newest_at: datetime | None = None
    """When the newest complete backup was begun: what was written after that is not in it."""
    proven_id: str = ""
    proven_at: datetime | None = None
    proven_by: str = ""
    """``drill`` or ``verify``."""

    def to_json(self) -> dict[str, Any]:
        times = ("known_at", "newest_at", "proven_at")
        return asdict(self) | {name: to_text(at) for name in times if (at := getattr(self, name)) is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Standing:
        times = {name: from_text(data[name]) for name in ("known_at", "newest_at", "proven_at") if data[name]}
        return cls(**{**data, **times})

    def with_proof(self, backup_id: str, at: datetime, by: str) -> Standing:
        """With a later proof, if it is one."""
        if self.proven_at is not None and self.proven_at >= at:
            return self
        return replace(self, proven_id=backup_id, proven_at=at, proven_by=by)


def standing_of(manifests: Sequence[Manifest], drills: Sequence[Evidence], now: datetime) -> Standing:
    """What backups (newest first) and the drills of them say."""
    from chrono_backups.repository.latest import latest  # noqa: PLC0415 - not for those who only send

    newest = latest(manifests, ())
    newest = newest if newest is not None and newest.status == "complete" else None
    proven = next((one for one in drills if one.proven), None)
    return Standing(
        known_at=now,
        newest_id=newest.backup_id if newest else "",
        newest_at=newest.started_at if newest else None,
        proven_id=proven.backup_id if proven else "",
        proven_at=proven.finished_at if proven else None,
        proven_by="drill" if proven else "",
    )
