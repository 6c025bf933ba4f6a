"""Restoring a store over what it holds now: the seam that every store's restorer has.

Plan, then execute. A plan has asked the server and read the backup, can be printed, and has changed nothing; ``check``
raises where it would be refused; ``execute`` carries it out, and leaves the old data intact wherever it fails before
the new takes its place. The safety backup of what is overwritten is the caller's: between ``check`` and ``execute``.

A store joins with a line in ``RESTORERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chrono_backups.clock import Clock
from chrono_backups.errors import EntryMissing, UsageError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.settings import MeilisearchSettings, RedisSettings


@dataclass(frozen=True)
class Stores:
    """How the stores are reached."""

    redis: RedisSettings
    meilisearch: MeilisearchSettings
    clock: Clock


@dataclass(frozen=True)
class Wanted:
    """Which part of a store; without any word all of it.

    Then what Redis holds beside the backup is gone; indexes of Meilisearch that the backup does not hold stay.
    """

    patterns: Sequence[str] = ()
    """Redis: of keys, as ``KEYS`` understands them. Meilisearch: uids of indexes."""
    databases: Sequence[int] = ()
    """Redis: by their numbers."""

    @property
    def everything(self) -> bool:
        return not self.patterns and not self.databases


@dataclass
class StoreReport:
    """What the restore of one store did."""

    source: SourceName
    items: int = 0
    """Keys or documents."""
    bytes: int = 0
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    """What only that store knows, fit for JSON."""
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "items": self.items,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "details": self.details,
            "findings": [finding.to_json() for finding in self.findings],
        }


class StorePlan(Protocol):
    """A store's restore, computed and not yet carried out."""

    @property
    def source(self) -> SourceName:
        """Which store."""

    @property
    def backup_id(self) -> str:
        """What is restored."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What is to be known before it is carried out."""

    @property
    def when_cancelled(self) -> str:
        """The state that a cancelled ``execute`` leaves, in words."""

    def facts(self) -> Sequence[tuple[str, str]]:
        """What people are shown of the plan: a word, and what it is; an empty one is left out."""

    def check(self) -> None:
        """Raises ``RestoreError`` or ``Damaged`` where the plan would be refused. Changes nothing."""

    def to_json(self) -> dict[str, Any]:
        """The plan, fit for JSON."""

    def execute(self, listener: Listener) -> StoreReport:
        """Carry it out. Raises ``RestoreError``, ``SourceError``, ``Damaged``, ``StorageError``."""


Planner = Callable[[Repository, Manifest, Stores, Wanted], StorePlan]
"""Computes a plan. Raises ``UsageError`` where the store is not configured or ``Wanted`` makes no sense to it,
``RestoreError``, ``SourceError``."""


def _meilisearch(repository: Repository, manifest: Manifest, stores: Stores, wanted: Wanted) -> StorePlan:
    # Within, for what a restorer needs of this seam is above.
    from chrono_backups.recovery.meilisearch.restore import plan_meilisearch  # noqa: PLC0415

    return plan_meilisearch(repository, manifest, stores, wanted)


def _redis(repository: Repository, manifest: Manifest, stores: Stores, wanted: Wanted) -> StorePlan:
    from chrono_backups.recovery.redis.restore import plan_redis  # noqa: PLC0415 - as above

    return plan_redis(repository, manifest, stores, wanted)


RESTORERS: Mapping[SourceName, Planner] = {"redis": _redis, "meilisearch": _meilisearch}
"""The stores that can be restored in place."""


def plan_store(
    repository: Repository, manifest: Manifest, source: SourceName, stores: Stores, wanted: Wanted
) -> StorePlan:
    """As ``Planner``; ``EntryMissing`` where the backup does not hold the source."""
    if source not in RESTORERS:
        raise UsageError(f"{source} is not restored in place", hint="Restore it with --to DIR.")
    if manifest.snapshot(source) is None:
        why = manifest.failures.get(source)
        held = ", ".join(one.source for one in manifest.snapshots)
        message = f"{manifest.backup_id} has no source {source}" + (f": {why}" if why else "")
        raise EntryMissing(message, hint=f"It has {held}.")
    return RESTORERS[source](repository, manifest, stores, wanted)
