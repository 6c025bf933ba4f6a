"""What a PostgreSQL cluster can be restored to: ranges of positions and times, and the gaps between them.

A range begins where a base backup ends (before that it is not consistent) and goes on as far as the archive has the WAL
that follows, without a hole, on one branch of timelines. Whatever lies in a range is reached from the newest base
backup before it. Computed from manifests and the names of archived WAL; only histories and, for its time, the last
object of each range are opened.

A range's ``end_time`` is when the server's log ended at ``end``, by the server's clock: all that was committed until
then is in the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import Damaged, ObjectMissing, RestoreError
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import lsn_number, lsn_text
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import Contents, WalArchive, cover, moment_of
from chrono_backups.repository.wal_names import Lineage, Segment, Switch

_RANGES_SHOWN = 6


@dataclass(frozen=True)
class Base:
    """A base backup."""

    backup_id: str
    system_identifier: str
    timeline: int
    start: int
    end: int
    """Where it becomes consistent."""
    end_time: datetime
    segment_size: int
    start_time: datetime

    @classmethod
    def of(cls, backup_id: str, facts: Mapping[str, Any]) -> Base:
        """The one that a snapshot of the source ``postgres`` holds."""
        return cls(
            backup_id,
            str(facts["system_identifier"]),
            int(facts["timeline"]),
            lsn_number(facts["start_lsn"]),
            lsn_number(facts["end_lsn"]),
            from_text(facts["stop_time"]),
            int(facts["wal_segment_size"]),
            from_text(facts["start_time"]),
        )


def bases(manifests: Iterable[Manifest]) -> list[Base]:
    """The base backups among them, the oldest first."""
    found = []
    for manifest in manifests:
        summary = manifest.snapshot("postgres")
        if summary is not None and "end_lsn" in summary.facts:
            found.append(Base.of(manifest.backup_id, summary.facts))
    return sorted(found, key=lambda one: (one.end_time, one.backup_id))


@dataclass(frozen=True)
class Way:
    """The WAL behind a base backup, without a hole, on the way to a timeline."""

    base: Base
    lineage: Lineage
    end: int
    """As far as it is stored."""

    @property
    def timeline(self) -> int:
        return self.lineage.timeline


@dataclass(frozen=True)
class RecoverableRange:
    """Everything from ``start`` to ``end`` can be restored to."""

    system_identifier: str
    timeline: int
    start: int
    start_time: datetime
    end: int
    end_time: datetime | None
    """None where the archive does not tell."""
    backups: tuple[str, ...]
    """The base backups in it, the oldest first."""

    def to_json(self) -> dict[str, Any]:
        return {
            "system_identifier": self.system_identifier,
            "timeline": self.timeline,
            "start_lsn": lsn_text(self.start),
            "start_time": to_text(self.start_time),
            "end_lsn": lsn_text(self.end),
            "end_time": to_text(self.end_time) if self.end_time else None,
            "backups": list(self.backups),
        }

    def __str__(self) -> str:
        end_time = to_text(self.end_time) if self.end_time else "a time that is not known"
        return (
            f"{to_text(self.start_time)} to {end_time} (LSN {lsn_text(self.start)} to {lsn_text(self.end)}, "
            f"timeline {self.timeline})"
        )


@dataclass(frozen=True)
class Gap:
    """WAL that is missing between two ranges, or behind the last one though more is archived."""

    system_identifier: str
    timeline: int
    start: int
    end: int
    first: str
    """Name of the first segment that is missing, in part or whole."""
    last: str

    def to_json(self) -> dict[str, Any]:
        return {
            "system_identifier": self.system_identifier,
            "timeline": self.timeline,
            "start_lsn": lsn_text(self.start),
            "end_lsn": lsn_text(self.end),
            "first_segment": self.first,
            "last_segment": self.last,
        }

    def __str__(self) -> str:
        segments = self.first if self.first == self.last else f"{self.first} to {self.last}"
        return f"LSN {lsn_text(self.start)} to {lsn_text(self.end)} of timeline {self.timeline}: {segments}"


@dataclass
class Archived:
    """What is known of one cluster's archive."""

    archive: WalArchive
    contents: Contents = field(default_factory=Contents)
    ancestors: dict[int, tuple[Switch, ...]] = field(default_factory=dict)
    """By timeline; of those whose history is stored, and the first."""

    @classmethod
    def read(cls, archive: WalArchive, contents: Contents, listener: Listener) -> Archived:
        """Reads the histories. One that is damaged is a finding: its timeline can't be reached."""
        found: dict[int, tuple[Switch, ...]] = {1: ()}
        for timeline in contents.histories:
            try:
                found[timeline] = archive.ancestors(timeline)
            except ObjectMissing:
                continue
            except Damaged as error:
                listener(Finding("damaged", "error", error.key, error.message, error.hint))
        return cls(archive, contents, found)

    def lineages(self, base: Base) -> list[Lineage]:
        """The timelines that can follow a base backup, its own first."""
        own = Lineage(base.timeline, self.ancestors.get(base.timeline, ()), base.segment_size)
        found = [own]
        for timeline, ancestors in sorted(self.ancestors.items()):
            lineage = Lineage(timeline, ancestors, base.segment_size)
            left = lineage.left_at(base.timeline)
            if left is not None and left >= base.end:
                found.append(lineage)
        return found

    def way(self, base: Base, lineage: Lineage) -> Way:
        """How far the stored WAL goes behind a base backup."""
        size, position = base.segment_size, base.end
        runs = self.contents.runs(size)
        number = position // size
        while True:
            timeline, end = lineage.stretch(number)
            last = runs.last(timeline, number)
            if last is None:
                name = Segment(timeline, number).name(size).lower()
                return Way(base, lineage, max(position, number * size + self.contents.reach(name)))
            number = last + 1 if end is None else min(last + 1, end)
            position = number * size

    def ways(self, base: Base) -> list[Way]:
        """The ways behind a base backup that lead onto their timelines; at least that on its own."""
        found = []
        for lineage in self.lineages(base):
            way = self.way(base, lineage)
            begun = lineage.ancestors[-1].position if lineage.ancestors else 0
            if lineage.timeline == base.timeline or way.end > begun:
                found.append(way)
        return found

    def end_time(self, way: Way) -> datetime | None:
        """When the server's log ended where the way does. Raises ``Damaged``."""
        if way.end <= way.base.end:
            return way.base.end_time
        name = way.lineage.segment((way.end - 1) // way.base.segment_size).name(way.base.segment_size).lower()
        if name in self.contents.segments:
            return self.archive.read_segment(name).moment
        return moment_of(self.archive.read_piece(cover(self.contents.pieces[name])[-1]))

    def stored_behind(self, way: Way) -> int | None:
        """The number of the next segment behind a hole at the end of the way; None where nothing comes any more."""
        size = way.base.segment_size
        stored = (self.contents.runs(size), self.contents.begun(size))
        for one in stored:
            one.check()
        number = way.end // size + 1
        while True:
            timeline, end = way.lineage.stretch(number)
            behind = [found for one in stored if (found := one.first_from(timeline, number)) is not None]
            if behind and (end is None or min(behind) < end):
                return min(behind)
            if end is None:
                return None
            number = end


@dataclass(frozen=True)
class RecoveryPoints:
    """All ranges, by cluster and timeline, and the gaps."""

    ranges: tuple[RecoverableRange, ...]
    gaps: tuple[Gap, ...]

    def to_json(self) -> dict[str, Any]:
        return {"ranges": [one.to_json() for one in self.ranges], "gaps": [one.to_json() for one in self.gaps]}

    def find(
        self,
        *,
        time: datetime | None = None,
        lsn: int | None = None,
        timeline: int | None = None,
        system_identifier: str | None = None,
    ) -> RecoverableRange:
        """The range that a time or a position lies in; without either the newest. Of several the newest timeline's.

        Raises ``RestoreError`` naming what can be restored to.
        """
        chosen = [
            one
            for one in self.ranges
            if timeline in (None, one.timeline) and system_identifier in (None, one.system_identifier)
        ]
        inside = [one for one in chosen if _holds(one, time, lsn)]
        if inside:
            return max(inside, key=lambda one: (one.end_time or one.start_time, one.timeline))
        what = to_text(time) if time is not None else f"LSN {lsn_text(lsn)}" if lsn is not None else "any target"
        shown = sorted(chosen, key=lambda one: one.start_time)[-_RANGES_SHOWN:]
        ranges = "; ".join(str(one) for one in shown) or "nothing: there is no base backup"
        raise RestoreError(
            f"{what} is outside of what can be restored to: {ranges}",
            hint="`chrono-backups recovery-points` lists the ranges and the gaps between them.",
        )


def _holds(one: RecoverableRange, time: datetime | None, lsn: int | None) -> bool:
    if time is not None:
        return one.start_time <= time <= (one.end_time or one.start_time)
    return lsn is None or one.start <= lsn <= one.end


def archived(repository: Repository, listener: Listener = silent) -> dict[str, Archived]:
    """Every cluster's archive, by system identifier."""
    found = {}
    for system, contents in WalArchive.systems(repository).items():
        found[system] = Archived.read(WalArchive(repository, system), contents, listener)
    return found


def recovery_points(repository: Repository, listener: Listener = silent) -> RecoveryPoints:
    """What can be restored to. Damage is a finding, and what depends on it is left out."""
    manifests, damaged = repository.readable_backups()
    for error in damaged.values():
        listener(Finding("damaged", "error", error.key, error.message, error.hint))
    archives = archived(repository, listener)
    ranges: list[RecoverableRange] = []
    gaps: list[Gap] = []
    by_branch: dict[tuple[str, int], list[Way]] = {}
    known: dict[str, Archived] = {}
    for base in bases(manifests):
        one = known[base.system_identifier] = archives.get(base.system_identifier) or Archived(
            WalArchive(repository, base.system_identifier)
        )
        for way in one.ways(base):
            by_branch.setdefault((base.system_identifier, way.timeline), []).append(way)
    for (system, _), ways in sorted(by_branch.items()):
        found, missing = _branch(known[system], ways, listener)
        ranges += found
        gaps += missing
    return RecoveryPoints(tuple(ranges), tuple(gaps))


def _branch(one: Archived, ways: list[Way], listener: Listener) -> tuple[list[RecoverableRange], list[Gap]]:
    """The ranges of one timeline: ways that end at the same place are one, as the later begins in the earlier."""
    joined: dict[int, list[Way]] = {}
    for way in sorted(ways, key=lambda way: way.base.end):
        joined.setdefault(way.end, []).append(way)
    ranges, gaps = [], []
    groups = [joined[end] for end in sorted(joined)]
    for position, group in enumerate(groups):
        first, last = group[0], group[-1]
        try:
            end_time = one.end_time(last)
        except (Damaged, ObjectMissing) as error:
            listener(Finding("damaged", "error", error.key, error.message, error.hint))
            end_time = None
        backups = tuple(way.base.backup_id for way in group)
        base = first.base
        ranges.append(
            RecoverableRange(
                base.system_identifier, first.timeline, base.end, base.end_time, first.end, end_time, backups
            )
        )
        behind = one.stored_behind(last)
        following = groups[position + 1][0].base.end if position + 1 < len(groups) else None
        ends = [number for number in (following, None if behind is None else behind * base.segment_size) if number]
        if ends:
            gaps.append(_gap(last, min(ends)))
    return ranges, gaps


def _gap(way: Way, end: int) -> Gap:
    size = way.base.segment_size
    first, last = (way.lineage.segment(number).name(size) for number in (way.end // size, (end - 1) // size))
    return Gap(way.base.system_identifier, way.timeline, way.end, end, first, last)
