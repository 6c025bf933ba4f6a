from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.events import Listener, silent
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class PrunePlan:
    def to_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class PruneReport:
    def to_json(self) -> dict[str, Any]:
        return {}


def plan_prune(repository: Repository, *, grace: timedelta, now: datetime, listener: Listener = silent) -> PrunePlan:
    raise NotImplementedError


def prune(repository: Repository, plan: PrunePlan, listener: Listener = silent) -> PruneReport:
    raise NotImplementedError
