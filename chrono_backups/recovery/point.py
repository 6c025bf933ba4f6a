"""A recovery point to restore: which capture of each source, PostgreSQL's recovery target, and how far apart they are.

Without a target PostgreSQL **meets** the stores that were captured behind it, where the stored WAL leads there; else it
is restored to the end of its base backup, and what lies between is said. With a target PostgreSQL goes to it exactly;
the others are of the backup that was named, or for ``latest`` their newest captures at or before that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chrono_backups.boundary import Boundary, skew
from chrono_backups.clock import to_text
from chrono_backups.errors import Damaged, EntryMissing, RestoreError
from chrono_backups.events import Listener, silent
from chrono_backups.identifiers import SOURCE_NAMES, SourceName
from chrono_backups.recovery.postgres.restore import SOURCE, choose_base, holds_cluster
from chrono_backups.recovery.postgres.target import Target
from chrono_backups.recovery.postgres.wal_path import wal_path
from chrono_backups.repository.latest import latest
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

LATEST = "latest"


@dataclass(frozen=True)
class PointPart:
    """One source of a recovery point."""

    source: SourceName
    manifest: Manifest
    """Of the backup that its capture is in."""
    holds: Boundary | None
    """Which moment it will be at; None where that is not known before it is there."""

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "backup_id": self.manifest.backup_id,
            "first": to_text(self.holds.first) if self.holds is not None else None,
            "last": to_text(self.holds.last) if self.holds is not None else None,
        }


@dataclass(frozen=True)
class RecoveryPoint:
    """What a restore brings together."""

    parts: tuple[PointPart, ...]
    target: Target
    """PostgreSQL's."""
    moment: datetime | None
    """That the point is meant to be at; None where it is not known before it is there."""
    note: str
    """How PostgreSQL and the others come together, for people; empty where there is nothing to bring together."""

    def part(self, source: str) -> PointPart | None:
        return next((one for one in self.parts if one.source == source), None)

    @property
    def backups(self) -> tuple[str, ...]:
        """The backups it is made of, each once."""
        return tuple(dict.fromkeys(part.manifest.backup_id for part in self.parts))

    @property
    def captures(self) -> dict[str, Manifest]:
        """The backup that each source's capture is in."""
        return {part.source: part.manifest for part in self.parts}

    @property
    def skew_seconds(self) -> float | None:
        """From the first moment that a part is of to the last; None where one is not known."""
        held = [part.holds for part in self.parts]
        return skew(one for one in held if one is not None) if None not in held else None

    def distance(self, part: PointPart) -> tuple[float, float] | None:
        """How many seconds a part may be before the moment, and behind it."""
        if self.moment is None or part.holds is None:
            return None
        before = (self.moment - part.holds.first).total_seconds()
        behind = (part.holds.last - self.moment).total_seconds()
        return max(0.0, before), max(0.0, behind)

    def to_json(self) -> dict[str, Any]:
        parts = []
        for part in self.parts:
            before, behind = self.distance(part) or (None, None)
            parts.append({**part.to_json(), "seconds_before": before, "seconds_behind": behind})
        return {
            "moment": to_text(self.moment) if self.moment is not None else None,
            "postgres_target": str(self.target),
            "note": self.note,
            "skew_seconds": self.skew_seconds,
            "parts": parts,
        }


def plan_point(
    repository: Repository,
    backup_id: str,
    target: Target,
    sources: Sequence[SourceName] = (),
    *,
    listener: Listener = silent,
) -> RecoveryPoint:
    """Choose the captures for ``sources``, or for all that the backup has. Changes nothing.

    ``target``: ``TO_THE_END`` for whatever brings PostgreSQL nearest to the others. Raises ``BackupMissing``,
    ``EntryMissing``, ``RestoreError`` where the target can't be reached, ``Damaged``.
    """
    chosen = _manifest(repository, backup_id, target, sources)
    if target.kind == "end":
        return _as_captured(repository, chosen, _named(sources, chosen), target, listener)
    if backup_id != LATEST or target.moment is None:
        return at_target(chosen, _named(sources, chosen), target, None)
    manifests = repository.readable_backups()[0]
    whole = latest([one for one in manifests if one.started_at <= target.moment])
    return at_target(chosen, _named(sources, chosen, whole), target, manifests)


def _manifest(repository: Repository, backup_id: str, target: Target, sources: Sequence[SourceName]) -> Manifest:
    if backup_id != LATEST or target.kind in {"end", "latest"}:
        return repository.backup(backup_id, sources)
    if not sources or SOURCE in sources:
        return choose_base(repository, target, [SOURCE])
    return repository.backup(backup_id, sources)


def _named(sources: Sequence[SourceName], *manifests: Manifest | None) -> list[SourceName]:
    """Those that were asked for, else all that the backups have."""
    held = {one.source for manifest in manifests if manifest is not None for one in manifest.snapshots}
    return [name for name in SOURCE_NAMES if name in (sources or held)]


def _as_captured(
    repository: Repository, manifest: Manifest, names: Sequence[SourceName], target: Target, listener: Listener
) -> RecoveryPoint:
    """Of one backup, with PostgreSQL as near to the others as WAL leads."""
    for name in names:
        if manifest.snapshot(name) is None:
            raise _missing(manifest, name)
    others = [name for name in names if name != SOURCE]
    if SOURCE not in names or not holds_cluster(manifest):
        return as_captured(manifest, names, target, reached=False, why="")
    met = manifest.meeting
    if met is None or met[0] not in others:
        return as_captured(manifest, names, target, reached=False, why="")
    meets = replace(target, kind="lsn", value=met[1].lsn, exclusive=True)
    summary = manifest.snapshot(SOURCE)
    assert summary is not None
    try:
        wal_path(repository, summary.facts, meets, listener=listener)
    except (RestoreError, Damaged) as error:
        return as_captured(manifest, names, target, reached=False, why=error.message)
    return as_captured(manifest, names, meets, reached=True, why="")


def as_captured(
    manifest: Manifest, names: Sequence[SourceName], target: Target, *, reached: bool, why: str
) -> RecoveryPoint:
    """Pure: the point of one backup. ``reached``: WAL leads to ``target``, where PostgreSQL meets the others; else
    ``why`` says what is missing, or is empty where there is nothing to meet.
    """
    held = {name: one for name, one in manifest.boundaries.items() if name in names}
    note = ""
    moment = max(one.last for one in held.values())
    met = manifest.meeting
    if met is not None and SOURCE in held and (reached or why):
        moment = held[met[0]].last
        if reached:
            held[SOURCE] = Boundary(moment, moment, held[SOURCE].position)
            note = f"PostgreSQL meets {met[0]} at {met[1].lsn}"
        else:
            apart = (moment - held[SOURCE].last).total_seconds()
            note = f"PostgreSQL ends {apart:.1f} s before {met[0]}, where its base backup does: {why}"
    elif SOURCE in held and holds_cluster(manifest):
        moment = held[SOURCE].last
    parts = tuple(PointPart(name, manifest, held[name]) for name in names)
    return RecoveryPoint(parts, target, moment, note)


def at_target(
    chosen: Manifest, names: Sequence[SourceName], target: Target, manifests: Sequence[Manifest] | None
) -> RecoveryPoint:
    """Pure: PostgreSQL at ``target``, upon the base backup of ``chosen``, and the others of ``chosen`` too; or of
    ``manifests``, where those are given, each at its newest capture at or before the target's time.

    One that was only captured later is at its first capture. Raises ``EntryMissing`` where a source is not held.
    """
    moment = target.moment
    parts = []
    for name in names:
        if name == SOURCE:
            parts.append(PointPart(name, chosen, Boundary(moment, moment) if moment is not None else None))
            continue
        taken = chosen if manifests is None or moment is None else _newest(chosen, manifests, name, moment)
        if taken.snapshot(name) is None:
            raise _missing(taken, name)
        parts.append(PointPart(name, taken, taken.boundaries[name]))
    others = ", ".join(part.source for part in parts if part.source != SOURCE)
    whence = f"as in {chosen.backup_id}" if manifests is None else "as captured last before it"
    late = [part.source for part in parts if part.holds is not None and moment is not None and part.holds.last > moment]
    note = f"PostgreSQL at {target}; {others} {whence}" if others else ""
    note += f"; {', '.join(late)} behind it, as there is nothing older" if late and manifests is not None else ""
    return RecoveryPoint(tuple(parts), target, moment, note)


def _newest(chosen: Manifest, manifests: Sequence[Manifest], source: SourceName, moment: datetime) -> Manifest:
    held = [one for one in manifests if one.snapshot(source) is not None]
    if not held:
        raise _missing(chosen, source)
    within = [one for one in held if one.boundaries[source].last <= moment]
    if not within:  # nothing is older: the first capture comes nearest, and how far it is behind is told
        return min(held, key=lambda one: one.boundaries[source].last)
    return max(within, key=lambda one: one.boundaries[source].last)


def _missing(manifest: Manifest, source: SourceName) -> EntryMissing:
    held = ", ".join(one.source for one in manifest.snapshots)
    why = manifest.failures.get(source)
    message = f"{manifest.backup_id} has no source {source}" + (f": {why}" if why else "")
    return EntryMissing(message, hint=f"It has {held}.")
