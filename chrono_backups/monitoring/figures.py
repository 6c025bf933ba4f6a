"""The figures that tell how backups do: rates, durations, growth, recovery, errors. Pure.

What a run that failed leaves in the repository is nothing, so rates need a record of runs: the audit log is one.
Without it the rate is that of what is stored, complete against partial, and ``recorded`` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean, median
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.identifiers import BACKUP_TYPES, SOURCE_NAMES
from chrono_backups.monitoring.audit.runs import Run
from chrono_backups.monitoring.health import HealthReport
from chrono_backups.monitoring.stored import Room
from chrono_backups.monitoring.wal import WalState, lag_seconds
from chrono_backups.repository.evidence import Evidence
from chrono_backups.repository.records import Manifest

WINDOW = timedelta(days=30)
"""What rates, growth and errors are counted over."""
_NEWEST = 30
"""So many backups of a type make its average and its trend."""
_FURTHEST_DAYS = 36525
_SHORTEST = timedelta(days=1)
_RECURRING = 3
_TREND_LEAST = 4


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)


@dataclass(frozen=True)
class TypeFigures:
    """Of one backup type; durations in seconds."""

    count: int
    last_at: datetime
    last_complete_at: datetime | None
    last_seconds: float
    average_seconds: float
    trend: float | None
    """The median of the newer half's durations over that of the older half's; None of too few."""
    last_bytes_total: int
    last_bytes_stored: int

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "last_at": to_text(self.last_at),
            "last_complete_at": _text(self.last_complete_at),
            "last_duration_seconds": round(self.last_seconds, 3),
            "average_duration_seconds": round(self.average_seconds, 3),
            "duration_trend": None if self.trend is None else round(self.trend, 3),
            "last_bytes_total": self.last_bytes_total,
            "last_bytes_stored": self.last_bytes_stored,
        }


@dataclass(frozen=True)
class StorageFigures:
    """Of one storage; bytes."""

    used: int
    free: int | None
    capacity: int | None
    growth_per_day: float | None
    """What backups added a day, as if nothing were pruned; None of too short a time."""
    full_at: datetime | None
    """When it is full at that rate; None: not within a hundred years, or not known."""

    def to_json(self) -> dict[str, Any]:
        return {
            "used_bytes": self.used,
            "free_bytes": self.free,
            "capacity_bytes": self.capacity,
            "growth_bytes_per_day": None if self.growth_per_day is None else round(self.growth_per_day),
            "full_at": _text(self.full_at),
        }


@dataclass(frozen=True)
class RecoveryFigures:
    """Of restore drills; seconds."""

    drills: int = 0
    proven: int = 0
    last_at: datetime | None = None
    last_proven_at: datetime | None = None
    last_seconds: float | None = None
    average_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "drills": self.drills,
            "proven": self.proven,
            "last_drill_at": _text(self.last_at),
            "last_proven_at": _text(self.last_proven_at),
            "last_seconds": self.last_seconds,
            "average_seconds": self.average_seconds,
        }


@dataclass(frozen=True)
class Figures:
    """All of them, at a moment."""

    at: datetime
    health: HealthReport = field(repr=False)
    total: int
    types: Mapping[str, TypeFigures]
    recorded: bool
    """Runs are known from the audit log, also those that left no backup."""
    results: Mapping[str, int]
    """Backup runs of the window by result."""
    errors: Mapping[str, int]
    """Errors of all runs of the window by kind."""
    storages: Mapping[str, StorageFigures]
    recovery: RecoveryFigures
    rpo: Mapping[str, float]
    """By source: seconds between now and the newest moment that can be restored."""
    wal_lag: float | None
    wal: WalState | None

    @property
    def success_rate(self) -> float | None:
        """Complete backups among the runs that have ended; None where there was none."""
        ended = sum(count for result, count in self.results.items() if result != "running")
        return self.results.get("done", 0) / ended if ended else None

    def to_json(self) -> dict[str, Any]:
        rate = self.success_rate
        return {
            "at": to_text(self.at),
            "window_days": WINDOW.days,
            "status": self.health.status,
            "checks": dict(self.health.checks),
            "success_rate": None if rate is None else round(rate, 4),
            "runs": {"recorded": self.recorded, **self.results},
            "errors": dict(self.errors),
            "recurring_errors": sorted(kind for kind, count in self.errors.items() if count >= _RECURRING),
            "total_backups": self.total,
            "backups": {name: one.to_json() for name, one in self.types.items()},
            "storages": {name: one.to_json() for name, one in self.storages.items()},
            "recovery": self.recovery.to_json(),
            "rpo_seconds": {name: round(seconds, 1) for name, seconds in self.rpo.items()},
            "wal": self._wal(),
        }

    def _wal(self) -> dict[str, Any] | None:
        if self.wal is None or not self.wal.archived:
            return None
        behind = self.wal.behind_bytes
        return {"lag_seconds": self.wal_lag, "behind_bytes": behind, "gaps": len(self.wal.gaps)}


def figures(
    now: datetime,
    health: HealthReport,
    backups: Sequence[Manifest],
    drills: Sequence[Evidence],
    runs: Sequence[Run] | None,
) -> Figures:
    """From all backups and drills, the newest first, and the window's runs; None where no audit log is kept."""
    window = [one for one in backups if one.started_at > now - WINDOW]
    ended = Counter[str](run.outcome for run in runs or () if run.act == "backup")
    results = (
        ended if runs is not None else Counter("done" if one.status == "complete" else "partial" for one in window)
    )
    return Figures(
        now,
        health,
        len(backups),
        {name: _of_type(kin) for name in BACKUP_TYPES if (kin := [one for one in backups if one.type == name])},
        runs is not None,
        dict(sorted(results.items())),
        dict(sorted(Counter(run.error or run.outcome for run in runs or () if _went_wrong(run)).items())),
        {name: _of_storage(room, window, now) for name, room in health.rooms.items()},
        _recovery(drills),
        _rpo(backups, health.wal, now),
        None if health.wal is None else lag_seconds(health.wal, now),
        health.wal,
    )


def _went_wrong(run: Run) -> bool:
    return run.outcome in {"failed", "killed", "cancelled"} or bool(run.error)


def _of_type(kin: Sequence[Manifest]) -> TypeFigures:
    took = [(one.finished_at - one.started_at).total_seconds() for one in kin[:_NEWEST]]
    complete = next((one for one in kin if one.status == "complete"), None)
    newest = kin[0]
    return TypeFigures(
        len(kin),
        newest.started_at,
        complete.started_at if complete else None,
        took[0],
        fmean(took),
        _trend(took),
        newest.statistics.bytes_total,
        newest.statistics.bytes_stored,
    )


def _trend(newest_first: Sequence[float]) -> float | None:
    if len(newest_first) < _TREND_LEAST:
        return None
    half = len(newest_first) // 2
    older = median(newest_first[-half:])
    return median(newest_first[:half]) / older if older else None


def _of_storage(room: Room, window: Sequence[Manifest], now: datetime) -> StorageFigures:
    growth = _growth(window, now)
    full_at = None
    if growth and room.free is not None:
        days = room.free / growth
        full_at = now + timedelta(days=days) if days < _FURTHEST_DAYS else None
    return StorageFigures(room.used, room.free, room.whole, growth, full_at)


def _growth(window: Sequence[Manifest], now: datetime) -> float | None:
    """Bytes a day that backups added. The first one of a young repository stored everything: it is no growth."""
    if len(window) < 2 or now - window[-1].started_at < _SHORTEST:
        return None
    days = (now - window[-1].started_at) / timedelta(days=1)
    return sum(one.statistics.bytes_stored for one in window[:-1]) / days


def _recovery(drills: Sequence[Evidence]) -> RecoveryFigures:
    if not drills:
        return RecoveryFigures()
    took = [round((one.finished_at - one.started_at).total_seconds(), 3) for one in drills]
    proven = [one for one in drills if one.proven]
    last = proven[0].finished_at if proven else None
    average = round(fmean(took[:_NEWEST]), 3)
    return RecoveryFigures(len(drills), len(proven), drills[0].finished_at, last, took[0], average)


def _rpo(backups: Sequence[Manifest], wal: WalState | None, now: datetime) -> dict[str, float]:
    found: dict[str, float] = {}
    for source in SOURCE_NAMES:
        held = next((summary for one in backups if (summary := one.snapshot(source)) is not None), None)
        if held is not None:
            found[source] = max(0.0, (now - held.started_at).total_seconds())
    if "postgres" in found and wal is not None and wal.archived and wal.end_time is not None:
        behind = 0.0 if wal.behind_bytes == 0 else (now - wal.end_time).total_seconds()
        found["postgres"] = max(0.0, min(found["postgres"], behind))
    return found
