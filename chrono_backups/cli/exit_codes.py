"""Error class → exit code: one row for every class of ``errors.py`` (a test demands it)."""

from __future__ import annotations

from chrono_backups import errors

DONE = 0
FAILED = 1
USAGE = 2
DAMAGED = 3
PARTIAL = 4
TARGET = 5
UNREACHABLE = 6
CANCELLED = 130

EXIT_CODES: dict[type[errors.ChronoBackupsError], int] = {
    errors.ChronoBackupsError: FAILED,
    errors.UsageError: USAGE,
    errors.SettingsError: USAGE,
    errors.Cancelled: CANCELLED,
    errors.StorageError: FAILED,
    errors.StorageUnavailable: UNREACHABLE,
    errors.StorageDenied: UNREACHABLE,
    errors.StorageFull: FAILED,
    errors.ObjectLocked: FAILED,
    errors.ObjectMissing: DAMAGED,
    errors.ObjectExists: FAILED,
    errors.SourceError: FAILED,
    errors.SourceUnavailable: UNREACHABLE,
    errors.SourceBusy: UNREACHABLE,
    errors.AnswerTooLarge: FAILED,
    errors.SourceRefused: FAILED,
    errors.WalGap: FAILED,
    errors.SlotLost: FAILED,
    errors.SlotBusy: FAILED,
    errors.RepositoryError: FAILED,
    errors.RepositoryMissing: DAMAGED,
    errors.RepositoryExists: USAGE,
    errors.UnsupportedFormat: FAILED,
    errors.KeyMissing: USAGE,
    errors.WrongKey: USAGE,
    errors.EncryptionMismatch: USAGE,
    errors.LeaseLost: FAILED,
    errors.BackupMissing: DAMAGED,
    errors.EntryMissing: DAMAGED,
    errors.Damaged: DAMAGED,
    errors.AuditUnwritable: FAILED,
    errors.BackupFailed: FAILED,
    errors.NotificationError: FAILED,
    errors.ChannelUnavailable: UNREACHABLE,
    errors.ChannelRefused: USAGE,
    errors.MessageRejected: FAILED,
    errors.RestoreError: TARGET,
    errors.TaskFailed: TARGET,
    errors.TargetNotEmpty: TARGET,
    errors.InsufficientSpace: TARGET,
}


def exit_code(error: errors.ChronoBackupsError) -> int:
    """The row of the error's class, or of its nearest ancestor."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
