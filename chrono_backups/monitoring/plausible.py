"""Whether backups are as large as their kin, and stored at moments that can be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.monitoring.stored import KIN, Stored
from chrono_backups.repository.records import Manifest

CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True)
class SourceSize:
    """A source's content in a backup, and what is usual."""

    source: str
    size: int
    usual: float
    """The median of its kin; its own size where it has none."""
    kin: int

    def is_odd(self, factor: float) -> bool:
        """Whether it is ``factor`` times smaller or larger."""
        return not self.usual / factor <= self.size <= self.usual * factor


def sizes(manifest: Manifest, backups: Sequence[Manifest]) -> list[SourceSize]:
    """Each source of a backup against the ``KIN`` backups of its type before it, the newest first."""
    kin = [one for one in backups if one.type == manifest.type and one.started_at < manifest.started_at][:KIN]
    found = []
    for snapshot in manifest.snapshots:
        size = snapshot.statistics.bytes_total
        earlier = [same.statistics.bytes_total for one in kin if (same := one.snapshot(snapshot.source))]
        found.append(SourceSize(snapshot.source, size, median(earlier) if earlier else size, len(earlier)))
    return found


def odd_sizes(stored: Stored, factor: float) -> Iterator[Finding]:
    """Of the newest backup of each type."""
    for backup_type in dict.fromkeys(one.type for one in stored.newest):
        backups = stored.of_type(backup_type)
        for one in sizes(backups[0], backups):
            if one.is_odd(factor):
                kind = "smaller" if one.size < one.usual else "larger"
                yield Finding(
                    f"backup-suspiciously-{kind}",
                    "warning",
                    backups[0].backup_id,
                    f"{one.source} has {one.size} bytes, and in the {one.kin} backups before {one.usual:.0f}",
                    "`chrono-backups diff` of the two newest says what came and went.",
                )


def clock(stored: Stored, now: datetime) -> Iterator[Finding]:
    """A backup from the future means that a clock is wrong: retention and recovery points go by it."""
    ahead = [one for one in stored.newest if one.finished_at > now + CLOCK_TOLERANCE]
    if ahead:
        one = ahead[0]
        message = f"{one.backup_id} ended at {to_text(one.finished_at)} by its clock; it is {to_text(now)} here"
        yield Finding("clock-wrong", "warning", one.host, message, "Have both machines keep time by NTP.")
