"""Room, replicas, retention and proofs: whether what is stored is where it should be, and restores. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.identifiers import parse_backup_id
from chrono_backups.monitoring.settings import HealthSettings
from chrono_backups.monitoring.stored import Room, Stored

_PRUNES_MISSED = timedelta(days=2)
"""Retention runs daily; two days late is more than a run that failed."""
_NAMED = 5


def room(storage: str, seen: Room, newest_stored: int, settings: HealthSettings) -> Iterator[Finding]:
    """``newest_stored``: bytes that the largest of the newest backups added."""
    hint = "`chrono-backups forget --dry-run` and `prune` make room; a shorter BACKUP_RETENTION_DAYS makes more."
    share = seen.share
    if share is not None and share * 100 >= settings.disk_warning:
        severity = "error" if share * 100 >= settings.disk_critical else "warning"
        code = "storage-full" if severity == "error" else "storage-nearly-full"
        message = f"it is {share:.0%} full, {seen.free} bytes are free"
        yield Finding(code, severity, storage, message, hint)  # type: ignore[arg-type]
    elif seen.free is not None and newest_stored and seen.free < 2 * newest_stored:
        message = f"{seen.free} bytes are free, and one of the newest backups took {newest_stored}"
        yield Finding("storage-nearly-full", "warning", storage, message, hint)


def replicas(primary: Stored, other: Stored, settings: HealthSettings, now: datetime) -> Iterator[Finding]:
    """What another storage lacks of the primary one's backups."""
    if other.repository_id != primary.repository_id:
        message = f"it holds another repository than {primary.storage}: nothing is replicated to it"
        yield Finding("another-repository", "error", other.storage, message, "Give it a place of its own.")
        return
    held = {*other.backups, *other.forgotten}
    old = now - timedelta(hours=settings.replica_hours)
    missing = [name for name in primary.backups if name not in held and (at := parse_backup_id(name)) and at[1] < old]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        message = f"it has no replica of {named}"
        yield Finding(
            "replica-missing", "warning", other.storage, message, f"`chrono-backups replicate --to {other.storage}`"
        )


def retention(stored: Stored, grace: timedelta, now: datetime) -> Iterator[Finding]:
    """What prune should have deleted long ago."""
    late = [moment for moment in stored.condemned if moment < now - grace - _PRUNES_MISSED]
    if not late:
        return
    holding = [lease for lease in stored.leases if lease.started_at < now - _PRUNES_MISSED and lease.expires_at > now]
    why = (
        f"; {holding[0].holder} of {holding[0].host} has gone on since {to_text(holding[0].started_at)}"
        if holding
        else ""
    )
    yield Finding(
        "retention-blocked",
        "warning",
        stored.storage,
        f"what was condemned at {to_text(late[0])} is not deleted{why}",
        "`chrono-backups prune --dry-run` says what it waits for: a backup that goes on, locks, damage, or to be run.",
    )


def drills(stored: Stored, settings: HealthSettings, now: datetime) -> Iterator[Finding]:
    """Whether a restore was proven, and when last."""
    if not settings.drill_days or not stored.backups:
        return
    hint = "`chrono-backups drill` restores the newest backup to a throwaway place and proves it right."
    oldest_wanted = now - timedelta(days=settings.drill_days)
    newest = stored.drills[0] if stored.drills else None
    if newest is not None and not newest.proven and not newest.details.get("good"):
        message = f"the drill of {to_text(newest.started_at)} did not find it right"
        yield Finding("drill-failed", "error", newest.backup_id, message, "`chrono-backups drill --list` tells of it.")
    proven = next((one for one in stored.drills if one.proven), None)
    if proven is None:
        if stored.created_at < oldest_wanted:
            yield Finding("drill-missing", "warning", stored.storage, "no backup was ever proven by a drill", hint)
    elif proven.finished_at < oldest_wanted:
        message = f"the last backup proven by a drill is {proven.backup_id}, at {to_text(proven.finished_at)}"
        yield Finding("drill-too-old", "warning", stored.storage, message, hint)


def largest_stored(stored: Sequence[Stored]) -> int:
    """Bytes that the largest of the newest backups added, whatever storage tells of it."""
    return max((one.statistics.bytes_stored for each in stored for one in each.newest), default=0)
