from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chrono_backups.events import Listener, silent
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage


@dataclass(frozen=True)
class ReplicationReport:
    objects_copied: int
    bytes_copied: int
    objects_present: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {}


def replicate(
    repository: Repository,
    destination: Storage,
    *,
    backup_ids: Sequence[str] | None = None,
    listener: Listener = silent,
) -> ReplicationReport:
    raise NotImplementedError
