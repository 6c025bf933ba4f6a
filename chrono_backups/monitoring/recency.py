"""Whether every backup is there that should be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType, parse_backup_id
from chrono_backups.monitoring.settings import HealthSettings
from chrono_backups.monitoring.stored import Stored
from chrono_backups.repository.records import Manifest

_RUN_IT = "Look at the failed run, or at what should have started it: the daemon, cron. Then: `chrono-backups backup`."


def recent_backups(
    stored: Stored, due: Mapping[BackupType, datetime], settings: HealthSettings, now: datetime
) -> Iterator[Finding]:
    """What is overdue, partial, damaged or too old. ``due``: when each scheduled type was to begin last."""
    for error in stored.damaged:
        yield Finding("manifest-damaged", "error", error.key, error.message, error.hint)
    if not stored.backups:
        yield Finding(
            "no-backup",
            "error",
            stored.storage,
            "the repository holds no backup yet",
            "Take one: `chrono-backups backup`.",
        )
        return
    begun = min(stored.created_at, *(_moment(name) for name in stored.backups))
    for backup_type, moment in due.items():
        yield from _scheduled(stored, backup_type, moment, begun, settings, now)
    yield from _age(stored, settings, now)


def _moment(backup_id: str) -> datetime:
    parsed = parse_backup_id(backup_id)
    assert parsed is not None
    return parsed[1]


def _scheduled(
    stored: Stored, backup_type: BackupType, due: datetime, begun: datetime, settings: HealthSettings, now: datetime
) -> Iterator[Finding]:
    since = [
        one for one in stored.newest if one.started_at >= due - timedelta(seconds=1) and _stands_for(one, backup_type)
    ]
    if due < begun or any(one.status == "complete" for one in since):
        return
    if since:
        missing = "; ".join(f"{source}: {reason}" for source, reason in since[0].failures.items())
        yield Finding(
            "backup-partial",
            "error",
            f"{backup_type} backup",
            f"{since[0].backup_id} is partial, and there is no complete one since {to_text(due)}; it lacks {missing}",
            "Mend the source, and take another one.",
        )
    elif now >= due + timedelta(minutes=settings.overdue_minutes) and not _goes_on(stored, backup_type, due, now):
        newest = next(
            (one for one in stored.newest if one.status == "complete" and _stands_for(one, backup_type)), None
        )
        what = f"the newest is {newest.backup_id}" if newest else "there is none at all"
        message = f"it was due at {to_text(due)} and is not there; {what}"
        yield Finding("backup-overdue", "error", f"{backup_type} backup", message, _RUN_IT)


def _stands_for(manifest: Manifest, backup_type: BackupType) -> bool:
    """Whether what that backup took is at least what one of the type takes; a full one reads every byte."""
    if backup_type == "full":
        return manifest.type == "full"
    return set(SOURCES_OF_TYPE[backup_type]) <= set(SOURCES_OF_TYPE[manifest.type])


def _goes_on(stored: Stored, backup_type: BackupType, due: datetime, now: datetime) -> bool:
    """Whether one of the type is being taken: it has a lease that holds, and no manifest."""
    begun = due - timedelta(seconds=1)
    held = (lease for lease in stored.leases if lease.expires_at > now and lease.started_at >= begun)
    return any(
        lease.holder not in stored.backups and (parsed := parse_backup_id(lease.holder)) and parsed[0] == backup_type
        for lease in held
    )


def _age(stored: Stored, settings: HealthSettings, now: datetime) -> Iterator[Finding]:
    newest = next((one for one in stored.newest if one.status == "complete"), None)
    if newest is None:
        message = "none of the newest backups is complete"
        yield Finding("no-complete-backup", "error", stored.storage, message, "`chrono-backups show latest` says why.")
    elif settings.max_age_hours is not None and now - newest.started_at > timedelta(hours=settings.max_age_hours):
        message = f"the newest complete backup, {newest.backup_id}, is older than {settings.max_age_hours:g} hours"
        yield Finding("backup-too-old", "error", stored.storage, message, _RUN_IT)
