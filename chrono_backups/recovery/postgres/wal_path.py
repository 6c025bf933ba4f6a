"""Which archived WAL a recovery needs on its way to a target, and whether it is all there.

A base backup holds the WAL up to its own end; from there on the archive's is needed
(``repository/recovery_points.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.errors import RestoreError
from chrono_backups.events import Listener, silent
from chrono_backups.identifiers import lsn_number, lsn_text
from chrono_backups.recovery.postgres.target import Target
from chrono_backups.repository.recovery_points import Archived, Base, Way
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive

_SEE = "`chrono-backups recovery-points` shows what can be reached."


@dataclass(frozen=True)
class WalPath:
    """The way from a base backup to a target."""

    system_identifier: str
    segment_size: int
    timeline: int
    """That the target is on."""
    timeline_setting: str
    """As ``recovery_target_timeline``."""
    files: tuple[str, ...] = ()
    """Names of the archived segments behind the base backup's end, in order; the last may be stored in part."""
    histories: tuple[int, ...] = ()
    """Timelines whose history is stored: the server reads them, and no new one takes the number of any."""
    until: datetime | None = None
    """Segments whose log ended well behind this moment are not needed."""


@dataclass(frozen=True)
class Reach:
    """How far the stored WAL leads on the way to one timeline."""

    way: Way
    moment: datetime | None
    """When the server's log ended there, by its clock; None where that is not known."""
    is_gap: bool
    """There is more behind a hole."""

    def holds(self, target: Target) -> bool:
        """Whether the target is not behind its end."""
        match target.kind:
            case "time":
                assert target.moment is not None
                return self.moment is None or target.moment <= self.moment
            case "lsn":
                return lsn_number(target.value) <= self.way.end
            case "latest":
                return not self.is_gap
            case _:
                return True

    @property
    def shown(self) -> str:
        """Its end, for people."""
        when = f", {to_text(self.moment)}" if self.moment else ""
        gap = ", where WAL is missing" if self.is_gap else ""
        return f"{lsn_text(self.way.end)}{when}{gap} (timeline {self.way.timeline})"


def wal_path(
    repository: Repository, facts: Mapping[str, Any], target: Target, *, listener: Listener = silent
) -> WalPath:
    """The way to ``target``. Raises ``RestoreError`` where it can't be reached, naming what can; ``Damaged``."""
    base = Base.of("", facts)
    archive = WalArchive(repository, base.system_identifier)
    contents = archive.contents()
    system, size, histories = base.system_identifier, base.segment_size, contents.histories
    if target.kind == "end":
        return WalPath(system, size, base.timeline, "current", (), histories)
    one = Archived.read(archive, contents, listener)
    found = [
        Reach(way, one.end_time(way), one.stored_behind(way) is not None)
        for way in sorted(one.ways(base), key=lambda way: way.timeline, reverse=True)
        if target.timeline in {None, way.timeline}
    ]
    if not found:
        raise RestoreError(
            f"timeline {target.timeline} does not lead on from the base backup, which ends on timeline "
            f"{base.timeline} at {facts['end_lsn']}",
            hint=f"Name another timeline, or an older backup. {_SEE}",
        )
    # The newest timeline only: an older one goes on behind the switch where a server that was given up wrote on.
    if not found[0].holds(target):
        raise _out_of_reach(target, found, base, facts)
    way = found[0].way
    return WalPath(system, size, way.timeline, str(way.timeline), _segments(way), histories, target.moment)


def _segments(way: Way) -> tuple[str, ...]:
    size = way.base.segment_size
    if way.end <= way.base.end:
        return ()
    numbers = range(way.base.end // size, (way.end - 1) // size + 1)
    return tuple(way.lineage.segment(number).name(size) for number in numbers)


def _out_of_reach(target: Target, found: Sequence[Reach], base: Base, facts: Mapping[str, Any]) -> RestoreError:
    first = f"{facts['end_lsn']}, {facts['stop_time']}"
    if all(one.way.end <= base.end for one in found):
        message = f"{target} can't be reached: no WAL is stored behind the base backup's end, {first}"
        return RestoreError(message, hint="Restore without a target, and run `chrono-backups wal-receive` from now on.")
    ends = "; or, with --target-timeline, to ".join(one.shown for one in found)
    return RestoreError(f"{target} can't be reached: what can is from {first} to {ends}", hint=_SEE)
