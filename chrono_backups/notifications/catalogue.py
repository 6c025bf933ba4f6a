"""Every event that people can be told of: what routes and templates call it, and its headline.

Findings come from all rooms and have codes of their own; ``event_of`` says which event one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FAILURE, CONDITION, NEWS = "failure", "condition", "news"


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
        ("backup-overdue", "no-recent-backup", "backup-missing", "recent-backup-missing", "schedule-overdue"),
    ),
    "backup-small": Event(
        "Backup suspiciously small",
        "backups have their usual size again",
        "A source has less than half of what it had in the backups before.",
        ("backup-small", "backup-smaller"),
    ),
    "check-failed": Event("Check failed", "the check passes again", "A check of a backup failed, also in a green run."),
    "verify-failed": Event("Stored data is damaged", "all is whole again", "A verification found damage, or failed."),
    "drill-failed": Event(
        "Restore drill failed", "a drill succeeded", "A backup could not be proven to restore.", ("drill-failed",)
    ),
    "drill-overdue": Event(
        "Restore drill overdue",
        "a drill was done",
        "No backup was proven by a drill for too long.",
        ("drill-overdue", "drill-too-old", "drill-missing"),
    ),
    "restore-failed": Event("Restore failed", "a restore succeeded", "A restore was not carried out."),
    "replication-failed": Event("Replication failed", "replication works again", "Copying to other storages failed."),
    "replica-missing": Event(
        "Replica missing",
        "the replica is complete again",
        "A backup has no whole copy in a storage that should have one.",
        ("replica-missing", "replica-incomplete"),
    ),
    "retention-failed": Event("Retention failed", "retention works again", "Forgetting or pruning failed."),
    "retention-blocked": Event(
        "Retention blocked",
        "retention goes on",
        "Space can't be freed: a lease, a lock or a condemnation that does not end.",
        ("retention-blocked", "prune-blocked", "lease-stale"),
    ),
    "storage-unreachable": Event(
        "Storage unreachable",
        "the storage answers again",
        "A storage does not answer or refuses us.",
        ("storage-unreachable", "storage-unavailable", "storage-denied", "storage-hanging", "storage-timeout"),
    ),
    "storage-full": Event("Storage full", "the storage has room again", "No room for a backup.", ("storage-full",)),
    "storage-nearly-full": Event(
        "Storage nearly full",
        "the storage has room again",
        "Little room is left.",
        ("storage-nearly-full", "storage-filling", "disk-space-low", "disk-nearly-full"),
    ),
    "source-unreachable": Event(
        "Source unreachable",
        "the source answers again",
        "What is to be backed up does not answer.",
        ("source-unreachable", "source-unavailable"),
    ),
    "wal-gap": Event("Gap in the WAL", "the WAL has no gap", "No restore can pass it.", ("wal-gap", "wal-missing")),
    "wal-lagging": Event(
        "WAL archiving lags",
        "WAL archiving keeps up",
        "The newest archived WAL is older than BACKUP_WAL_MAX_LAG_SECONDS.",
        ("wal-lagging", "wal-lag", "wal-stale", "wal-receiver-failed"),
    ),
    "slot-in-danger": Event(
        "Replication slot in danger",
        "the replication slot is safe",
        "A server's slot is unused, lost or about to be.",
        ("slot-in-danger", "slot-lost", "slot-inactive", "slot-missing", "slot-unreserved"),
    ),
    "health": Event("Something is wrong", "it is well again", "Any finding of the health checks that is none above."),
    "channel-failing": Event(
        "Notifications do not arrive",
        "notifications arrive again",
        "A channel does not take messages; they are kept, and this is told on the others.",
        ("channel-failing",),
    ),
    "notify-settings": Event(
        "Notification settings are wrong",
        "notification settings are right",
        "A setting, route or template of notifications can't be used; the built-in one is.",
        ("settings.notifications", "template-broken"),
    ),
    "heartbeat-failing": Event(
        "Heartbeat not sent", "the heartbeat is sent", "BACKUP_HEARTBEAT_URL did not answer.", ("heartbeat-failing",)
    ),
    "backup-succeeded": Event("Backup made", "", "A complete backup was made."),
    "digest": Event("Daily digest", "", "The day's backups in one message."),
    "test": Event("Test message", "", "What `notify test` sends."),
}

NEWS_EVENTS = frozenset({"backup-succeeded", "digest", "test"})
"""Events that are no incidents: told once, and nothing has to become well."""

FAILED_VERB: Mapping[str, str] = {
    "backup": "backup-failed",
    "verify": "verify-failed",
    "drill": "drill-failed",
    "restore": "restore-failed",
    "replicate": "replication-failed",
    "forget": "retention-failed",
    "prune": "retention-failed",
    "wal-receive": "wal-lagging",
    "wal-push": "wal-lagging",
}
"""What the failure of a verb, or of the run that does the same, is."""

_OF_CODE = {code: name for name, event in EVENTS.items() for code in (name, *event.codes)}


def event_of(code: str) -> str:
    """The event that a finding of that code is; ``health`` where it is none of its own."""
    return _OF_CODE.get(code, "health")
