"""Which moment a snapshot holds, and how far the snapshots of one backup lie apart: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chrono_backups.clock import from_text, to_text


@dataclass(frozen=True)
class PostgresPosition:
    """Where PostgreSQL's log was at a moment: whatever had been committed by then lies before it."""

    lsn: str
    timeline: int
    server_time: datetime
    """By the server's clock."""
    archived: bool
    """Somebody keeps the log: a slot of ours that is in use, or an archive command."""

    def to_json(self) -> dict[str, Any]:
        return {
            "lsn": self.lsn,
            "timeline": self.timeline,
            "server_time": to_text(self.server_time),
            "archived": self.archived,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PostgresPosition:
        return cls(str(data["lsn"]), int(data["timeline"]), from_text(data["server_time"]), bool(data["archived"]))


@dataclass(frozen=True)
class Boundary:
    """All that a snapshot holds was so at some moment from ``first`` to ``last``, by the clock of who captured it.

    A store that is captured as of one moment has the same ``first`` and ``last``; a tree that is walked while it
    changes, or an index that is read page by page, has the whole of its capture.
    """

    first: datetime
    last: datetime
    position: Mapping[str, Any] = field(default_factory=dict)
    """What the store itself calls it: ``lsn`` and ``timeline``, a replication offset, a task, a listing's digest."""
    postgres: PostgresPosition | None = None
    """Where PostgreSQL's log was at ``last``, where that was asked for."""

    @property
    def seconds(self) -> float:
        return (self.last - self.first).total_seconds()

    def to_json(self) -> dict[str, Any]:
        return {
            "first": to_text(self.first),
            "last": to_text(self.last),
            "position": dict(self.position),
            "postgres": self.postgres.to_json() if self.postgres is not None else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Boundary | None:
        """None for None: of snapshots that were taken before boundaries were recorded."""
        if data is None:
            return None
        met = data["postgres"]
        return cls(
            from_text(data["first"]),
            from_text(data["last"]),
            dict(data["position"]),
            PostgresPosition.from_json(met) if met is not None else None,
        )


def skew(boundaries: Iterable[Boundary]) -> float:
    """Seconds from the first moment that something is of to the last one; 0 for none."""
    found = list(boundaries)
    if not found:
        return 0.0
    return (max(one.last for one in found) - min(one.first for one in found)).total_seconds()


def meeting(boundaries: Mapping[str, Boundary]) -> tuple[str, PostgresPosition] | None:
    """Where PostgreSQL meets the other stores, and which source's boundary that is; None where nobody asked.

    The last of the boundaries that know PostgreSQL's position: nothing in those stores is then newer than the database
    that it was made from.
    """
    known = [(one.last, source, one.postgres) for source, one in boundaries.items() if one.postgres is not None]
    if not known:
        return None
    _, source, position = max(known, key=lambda one: one[:2])
    return source, position
