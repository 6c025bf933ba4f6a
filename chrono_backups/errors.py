"""Every error this package raises on purpose.

The class says the kind, the attributes carry the facts, ``hint`` says what the operator can do::

    ChronoBackupsError
    ├── UsageError                 the call's own words are wrong
    ├── SettingsError              settings are wrong; carries every problem found
    ├── Cancelled                  the operator or a time limit stopped the work
    ├── StorageError               an object could not be stored or fetched
    │   ├── StorageUnavailable     passing: the only one that is retried
    │   ├── StorageDenied          the storage answered: no right to do this
    │   ├── StorageFull            no room, or past the configured limit
    │   ├── ObjectLocked           the storage keeps it until a time that has not come
    │   ├── ObjectMissing          no object of that key
    │   └── ObjectExists           created once already
    ├── SourceError                a source could not be captured
    │   ├── SourceUnavailable      passing: may be retried
    │   │   └── SourceBusy         it answered that it can't now, and has not
    │   ├── AnswerTooLarge         more than is to be held in memory
    │   ├── SourceRefused          the source's server answered with an error
    │   ├── WalGap                 the server has no longer the WAL that would follow what is stored
    │   ├── SlotLost               the replication slot was invalidated
    │   └── SlotBusy               somebody else streams from the replication slot
    ├── RepositoryError
    │   ├── RepositoryMissing      nothing was initialised there
    │   ├── RepositoryExists       something was initialised there already
    │   ├── UnsupportedFormat      written by a version this one can't read
    │   ├── KeyMissing             encrypted, and no key is configured
    │   ├── WrongKey               encrypted under other keys than the one configured
    │   ├── EncryptionMismatch     settings and repository disagree about encryption
    │   ├── LeaseLost              a writer outlived its lease
    │   ├── BackupMissing          no backup of that id
    │   └── EntryMissing           no such path in that backup
    ├── Damaged                    stored data is not what was written
    ├── AuditUnwritable            an act was not begun, or not recorded
    ├── BackupFailed               no source could be captured
    ├── NotificationError          a message could not be delivered; it is kept and tried again
    │   ├── ChannelUnavailable     passing: no answer, busy, asked to be left alone for a while
    │   ├── ChannelRefused         the channel's settings are wrong: login, address, key
    │   └── MessageRejected        the channel works, and does not take this message
    └── RestoreError
        ├── TaskFailed             a task of ours failed on the server that is restored
        ├── TargetNotEmpty         the restore would touch existing data
        └── InsufficientSpace      the restore does not fit

Messages name the thing, what was expected and what was found; never a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


class ChronoBackupsError(Exception):
    """Base of all. ``str()`` is one line for the operator; ``hint`` is the remedy, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ChronoBackupsError):
    """The command or call itself is wrong."""


@dataclass(frozen=True)
class Problem:
    """One wrong setting: the variable, what was found (secrets masked), what is accepted."""

    variable: str
    found: str
    accepted: str

    def __str__(self) -> str:
        return f"{self.variable}: found {self.found}; accepted: {self.accepted}"


class SettingsError(ChronoBackupsError):
    """All that is wrong with the settings, at once."""

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{count} setting{'s are' if count != 1 else ' is'} wrong:\n{lines}", hint=hint)


class Cancelled(ChronoBackupsError):
    """The work was stopped; the repository is whole and what was stored is used by the next run."""


class StorageError(ChronoBackupsError):
    """An operation on a storage failed. ``storage``, ``operation`` and ``key`` name it."""

    def __init__(self, message: str, *, storage: str = "", operation: str = "", key: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.storage = storage
        self.operation = operation
        self.key = key


class StorageUnavailable(StorageError):
    """The storage did not answer or was busy; the same call may succeed later. Retried."""

    retry_after: float | None = None
    """Seconds that the storage asked to be left alone for."""


class StorageDenied(StorageError):
    """The storage refused for want of rights."""


class StorageFull(StorageError):
    """There is no room, or the configured limit would be passed; nothing was written."""


class ObjectLocked(StorageError):
    """The storage keeps the object until ``until``, whoever asks to delete it."""

    def __init__(self, message: str, *, until: datetime, storage: str = "", operation: str = "", key: str = "") -> None:
        super().__init__(
            message, storage=storage, operation=operation, key=key, hint="It can be deleted after that time."
        )
        self.until = until


class ObjectMissing(StorageError):
    """There is no object of that key."""


class ObjectExists(StorageError):
    """An object of that key exists and was to be created once."""


class SourceError(ChronoBackupsError):
    """A source could not be captured. ``source`` names it."""

    def __init__(self, message: str, *, source: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.source = source


class SourceUnavailable(SourceError):
    """The source did not answer; it may later."""


class SourceBusy(SourceUnavailable):
    """The source answered that it can't now, and has not. ``retry_after``: seconds it asked for, where it did."""

    def __init__(self, message: str, *, source: str = "", retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, source=source, hint=hint)
        self.retry_after = retry_after


class AnswerTooLarge(SourceError):
    """The source's answer is larger than is to be held in memory."""


class SourceRefused(SourceError):
    """The source's server answered with an error.

    ``code`` is the server's own word for it, where it gave one: PostgreSQL's SQLSTATE, Meilisearch's error code;
    ``status`` that of an answer by HTTP.
    """

    def __init__(self, message: str, *, source: str = "", code: str = "", status: int = 0, hint: str = "") -> None:
        super().__init__(message, source=source, hint=hint)
        self.code = code
        self.status = status


class WalGap(SourceError):
    """The server has no longer the WAL that would follow what is stored."""


class SlotLost(SourceError):
    """The replication slot was invalidated: the server keeps nothing for it any more."""


class SlotBusy(SourceError):
    """Another receiver streams from the replication slot."""


class RepositoryError(ChronoBackupsError):
    """A repository can't be used as asked."""


class RepositoryMissing(RepositoryError):
    """No repository was initialised in that storage."""


class RepositoryExists(RepositoryError):
    """A repository was already initialised in that storage."""


class UnsupportedFormat(RepositoryError):
    """The stored format is newer than this program."""


class KeyMissing(RepositoryError):
    """The repository is encrypted and no key is configured."""


class WrongKey(RepositoryError):
    """The configured key opens none of the key slots. ``known`` lists the slots' key ids."""

    def __init__(self, message: str, *, known: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.known = tuple(known)


class EncryptionMismatch(RepositoryError):
    """Encryption was asked of a plain repository, or none of an encrypted one."""


class LeaseLost(RepositoryError):
    """A writer's lease ran out before it could commit; nothing was committed."""


class BackupMissing(RepositoryError):
    """The repository holds no backup of that id."""


class EntryMissing(RepositoryError):
    """The backup holds no entry of that path."""


class Damaged(ChronoBackupsError):
    """A stored object is not what was written. ``key`` names the object."""

    def __init__(self, message: str, *, key: str, hint: str = "") -> None:
        super().__init__(message, hint=hint or "Run `chrono-backups verify --full` to see all that is damaged.")
        self.key = key


class AuditUnwritable(ChronoBackupsError):
    """The audit log can't be written. Of an act that changes something it is raised before anything was done."""


class BackupFailed(ChronoBackupsError):
    """No source could be captured, so there is nothing to commit. ``failures``: source → reason."""

    def __init__(self, message: str, *, failures: dict[str, str] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.failures = dict(failures or {})


class NotificationError(ChronoBackupsError):
    """A message did not go out. ``channel`` names the way it was to take."""

    def __init__(self, message: str, *, channel: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.channel = channel


class ChannelUnavailable(NotificationError):
    """The channel did not answer or was busy; ``retry_after`` seconds is what it asked for, if it did."""

    def __init__(self, message: str, *, channel: str = "", hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, channel=channel, hint=hint)
        self.retry_after = retry_after


class ChannelRefused(NotificationError):
    """The channel answered that it does not know us: settings are wrong, or were revoked."""


class MessageRejected(NotificationError):
    """The channel works and does not take this message."""


class RestoreError(ChronoBackupsError):
    """A restore can't be carried out as asked."""


class TaskFailed(RestoreError):
    """A task of ours failed or was cancelled on the server. ``code`` is its word for why."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class TargetNotEmpty(RestoreError):
    """The target holds data that the restore was not told to touch."""


class InsufficientSpace(RestoreError):
    """The target's file system has less room than the restore needs."""
