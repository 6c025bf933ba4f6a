"""Which archived WAL is kept: all of it since the oldest kept base backup. Pure: what is stored in, verdicts out.

A base backup is *kept* while its manifest is there and a prune at this moment would not remove it, so that what was
forgotten goes together with its WAL, after the same grace period. An object goes only where all of this holds:

1. No kept base backup needs it: it lies before the start of each, or on a timeline that leads on from none.
2. It was passed: it lies before the start of a kept base backup, on the way to that one. What merely belongs to no
   base backup yet stays, as one may be under way that begins there.
3. No backup goes on that may have begun before the oldest kept base backup of the cluster did.

A base backup that begins from now on needs nothing before its own start, and a server's log only grows; the receiver
writes behind all that is stored. So neither waits for a prune nor loses to one.

Of a cluster without any base backup (it was replaced, and the last one of it was pruned) all but the newest segment and
the histories goes, once nothing came for ``ABANDONED`` and no backup goes on.

A kept base backup, whatever keeps it (a pin, too), keeps all WAL since, so that any moment since can be restored to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.identifiers import lsn_text
from chrono_backups.maintenance.exclusion import CLOCKS_DIFFER
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.recovery_points import Archived, Base
from chrono_backups.repository.wal_names import Lineage, Segment

ABANDONED = timedelta(days=7)


@dataclass(frozen=True)
class WalVerdict:
    """What becomes of one cluster's archived WAL."""

    system_identifier: str
    keep_from: str | None
    """The first segment that is needed; None where all is kept."""
    objects_kept: int
    bytes_kept: int
    remove: tuple[str, ...]
    """Names of objects to remove, without the system."""
    bytes_to_remove: int
    reason: str
    held_up_by: tuple[str, ...] = ()
    """Backups that go on, and that what could go has to wait for."""

    def without(self, names: Iterable[str], sizes: dict[str, int]) -> WalVerdict:
        """The same, keeping these (they are locked)."""
        kept = set(names)
        remove = tuple(name for name in self.remove if name not in kept)
        going = sum(sizes.get(name, 0) for name in remove)
        moved = len(self.remove) - len(remove)
        return replace(
            self,
            remove=remove,
            bytes_to_remove=going,
            objects_kept=self.objects_kept + moved,
            bytes_kept=self.bytes_kept + self.bytes_to_remove - going,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "system_identifier": self.system_identifier,
            "keep_from": self.keep_from,
            "objects_kept": self.objects_kept,
            "bytes_kept": self.bytes_kept,
            "objects_to_delete": len(self.remove),
            "bytes_to_delete": self.bytes_to_remove,
            "reason": self.reason,
            "waiting_for_backups": list(self.held_up_by),
        }


def judge_wal(
    one: Archived, bases: Sequence[Base], writers: Sequence[Lease], now: datetime, newest: datetime | None
) -> WalVerdict:
    """The verdict on one cluster's archive. ``bases``: those kept, of any cluster; ``writers``: backups that go on.

    ``newest``: when the newest archived WAL was written, by the server's clock; only asked for where no base is kept.
    """
    system = one.archive.system_identifier
    own = [base for base in bases if base.system_identifier == system]
    if not own:
        return _without_base(one, writers, now, newest)
    sizes = {base.segment_size for base in own}
    oldest = min(own, key=lambda base: (base.start_time, base.backup_id))
    first = Segment(oldest.timeline, oldest.start // oldest.segment_size).name(oldest.segment_size)
    if len(sizes) > 1:
        return _verdict(one, None, (), "whole: the cluster's segments changed their size, and names can't be compared")
    reason = f"back to the oldest kept base backup, {oldest.backup_id}: it begins at {lsn_text(oldest.start)}"
    reason += f", {to_text(oldest.start_time)}"
    ways = _Ways(one, own)
    passed = tuple(name for name in one.contents.sizes if ways.is_passed(name))
    held = tuple(sorted({lease.holder for lease in writers if lease.started_at < oldest.start_time + CLOCKS_DIFFER}))
    if passed and held:
        return _verdict(one, first, (), f"{reason}; what is before waits for backups that go on", held)
    return _verdict(one, first, passed, reason)


def _without_base(one: Archived, writers: Sequence[Lease], now: datetime, newest: datetime | None) -> WalVerdict:
    last = one.contents.newest
    if last is None:
        return _verdict(one, None, (), "whole: it is nothing but histories")
    if newest is None or newest + ABANDONED > now:
        return _verdict(one, None, (), "whole: there is no base backup of the cluster yet")
    gone = tuple(name for name in one.contents.sizes if (segment := _segment(name)) and segment != last)
    reason = f"in its newest segment alone: no base backup is left, and nothing came since {to_text(newest)}"
    if gone and writers:
        held = tuple(sorted({lease.holder for lease in writers}))
        return _verdict(one, None, (), f"{reason}; the rest waits for backups that go on", held)
    return _verdict(one, last.upper(), gone, reason)


def _verdict(
    one: Archived, keep_from: str | None, remove: tuple[str, ...], reason: str, held: tuple[str, ...] = ()
) -> WalVerdict:
    sizes = one.contents.sizes
    going = sum(sizes[name] for name in remove)
    kept = sum(sizes.values()) - going
    return WalVerdict(
        one.archive.system_identifier, keep_from, len(sizes) - len(remove), kept, remove, going, reason, held
    )


def _segment(name: str) -> str | None:
    """The segment that an object is, or is a piece of; None for a history and for what has no name of an archive."""
    segment = name.partition(".")[0]
    return segment if len(segment) == 24 else None


class _Ways:
    """Tells what lies on the way to, and behind, kept base backups of one cluster."""

    def __init__(self, one: Archived, bases: Sequence[Base]) -> None:
        self._size = bases[0].segment_size
        self._starts: dict[int, int] = {}
        """Timeline → number of the segment that the oldest base backup on it begins in."""
        for base in bases:
            number = base.start // self._size
            self._starts[base.timeline] = min(number, self._starts.get(base.timeline, number))
        newest: dict[int, int] = {}
        for base in bases:
            number = base.start // self._size
            newest[base.timeline] = max(number, newest.get(base.timeline, number))
        self._newest = newest
        self._lineages = {
            timeline: Lineage(timeline, ancestors, self._size) for timeline, ancestors in one.ancestors.items()
        }

    def is_passed(self, name: str) -> bool:
        """Whether the object is needed by no kept base backup, and lies before one on the way to it."""
        text = _segment(name)
        if text is None:
            return False
        try:
            segment = Segment.parse(text, self._size)
        except ValueError:
            return False
        return not self._is_needed(segment) and self._lies_before_one(segment)

    def _is_needed(self, segment: Segment) -> bool:
        return any(
            segment.number >= start and self._leads_to(timeline, start, segment)
            for timeline, start in self._starts.items()
        )

    def _leads_to(self, timeline: int, start: int, segment: Segment) -> bool:
        """Whether recovery of a base backup on ``timeline`` that begins in ``start`` may come to the segment."""
        if segment.timeline == timeline:
            return True
        lineage = self._lineages.get(segment.timeline)
        if lineage is None:  # its history is not stored, or damaged: it may
            return segment.timeline > timeline
        left = lineage.left_at(timeline)
        return left is not None and start <= left // self._size

    def _lies_before_one(self, segment: Segment) -> bool:
        for timeline, start in self._newest.items():
            if segment.number >= start:
                continue
            lineage = self._lineages.get(timeline)
            left = lineage.left_at(segment.timeline) if lineage is not None else None
            if segment.timeline == timeline or (left is not None and segment.number <= left // self._size):
                return True
        return False
