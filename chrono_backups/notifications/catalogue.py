"""Every event that people can be told of: what routes and templates call it, and its headline.

Findings come from all rooms and have codes of their own; ``event_of`` says which event one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """``headline`` is what went wrong, without the subject; ``well`` is said of the subject when it is over."""

    headline: str
    well: str
    about: str
    codes: tuple[str, ...] = ()
    """Codes of findings that are this event."""


EVENTS: Mapping[str, Event] = {
    "backup-failed": Event("Backup failed", "backups work again", "A backup was not made."),
    "backup-partial": Event("Backup incomplete", "backups are complete again", "A source is missing from a backup."),
    "backup-cancelled": Event("Backup cancelled", "backups work again", "Somebody, or a stopping machine, ended it."),
    "backup-over-time": Event(
        "Backup took too long", "backups end in time again", "BACKUP_TIMEOUT_SECONDS passed, and it was stopped."
    ),
    "backup-overdue": Event(
        "Backup overdue",
        "the backup is there",
        "A schedule's backup is not there when it should be, for whatever reason.",
        ("backup-too-old", "no-backup", "no-complete-backup"),
    ),
    "backup-size": Event(
        "Backup of a suspicious size",
        "backups have their usual size again",
        "A source is far smaller, or larger, than in the backups before.",
        ("backup-suspiciously-small", "backup-suspiciously-large"),
    ),
    "check-failed": Event("Check failed", "the check passes again", "A check of a backup failed, also in a green run."),
    "verify-failed": Event("Stored data is damaged", "all is whole again", "A verification found damage, or failed."),
    "drill-failed": Event("Restore drill failed", "a drill succeeded", "A backup could not be proven to restore."),
    "drill-overdue": Event(
        "Restore drill overdue",
        "a drill was done",
        "No backup was proven by a drill for too long.",
        ("drill-too-old", "drill-missing"),
    ),
    "restore-failed": Event("Restore failed", "a restore succeeded", "A restore was not carried out."),
    "replication-failed": Event("Replication failed", "replication works again", "Copying to other storages failed."),
    "replica-missing": Event(
        "Replica missing",
        "the replica is complete again",
        "A backup has no whole copy in a storage that should have one.",
        ("another-repository",),
    ),
    "retention-failed": Event("Retention failed", "retention works again", "Forgetting or pruning failed."),
    "retention-blocked": Event(
        "Retention blocked",
        "retention goes on",
        "Space can't be freed: a lease, a lock or a condemnation that does not end.",
    ),
    "storage-unreachable": Event(
        "Storage unreachable",
        "the storage answers again",
        "A storage does not answer or refuses us.",
        ("storage-unavailable", "storage-denied", "storage-hangs", "repository-missing"),
    ),
    "storage-full": Event("Storage full", "the storage has room again", "No room for a backup."),
    "storage-nearly-full": Event(
        "Storage nearly full",
        "the storage has room again",
        "Little room is left.",
    ),
    "source-unreachable": Event(
        "Source unreachable",
        "the source answers again",
        "What is to be backed up does not answer.",
        ("source-unavailable", "source-hangs"),
    ),
    "wal-gap": Event("Gap in the WAL", "the WAL has no gap", "No restore can pass it."),
    "wal-lagging": Event(
        "WAL archiving lags",
        "WAL archiving keeps up",
        "The newest archived WAL is older than BACKUP_WAL_MAX_LAG_SECONDS.",
        ("wal-lag", "wal-hangs"),
    ),
    "slot-in-danger": Event(
        "Replication slot in danger",
        "the replication slot is safe",
        "A server's slot is unused, lost or about to be.",
        ("postgres-slot-lost", "postgres-slot-unreserved", "postgres-slot-idle"),
    ),
    "run-failed": Event("Run failed", "the run succeeds again", "A run of Dagster's that is none of the above failed."),
    "health": Event("Something is wrong", "it is well again", "Any finding of the health checks that is none above."),
    "channel-failing": Event(
        "Notifications do not arrive",
        "notifications arrive again",
        "A channel does not take messages; they are kept, and this is told on the others.",
    ),
    "notify-settings": Event(
        "Notification settings are wrong",
        "notification settings are right",
        "A setting, route or template of notifications can't be used; the built-in one is.",
        ("template-broken",),
    ),
    "heartbeat-failing": Event("Heartbeat not sent", "the heartbeat is sent", "BACKUP_HEARTBEAT_URL did not answer."),
    "backup-succeeded": Event("Backup made", "", "A complete backup was made."),
    "digest": Event("Daily digest", "", "The day's backups in one message."),
    "test": Event("Test message", "", "What `notify test` sends."),
}

NEWS_EVENTS = frozenset({"backup-succeeded", "digest", "test"})
"""Events that are no incidents: told once, and nothing has to become well."""

_OF_CODE = {code: name for name, event in EVENTS.items() for code in (name, *event.codes)}


def event_of(code: str) -> str:
    """The event that a finding of that code is; ``health`` where it is none of its own."""
    return _OF_CODE.get(code, "health")
