"""What an SFTP server's refusals mean for a storage: its statuses say little, so it is asked for more."""

from __future__ import annotations

from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.sftp_messages import NO_SUCH_FILE, PERMISSION_DENIED, UNSUPPORTED, SftpStatus
from chrono_backups.storage.sftp_session import SftpSession

_NEXT_TO_NOTHING = 64 * 1024
"""Bytes free; a full disk still shows a few blocks."""


class SftpErrors:
    """Makes a storage's errors. ``location`` is for people, ``root`` is the folder as the server knows it."""

    def __init__(self, *, name: str, location: str, root: str) -> None:
        self._name = name
        self._location = location
        self._root = root

    def exists(self, key: str) -> ObjectExists:
        return ObjectExists(f"{self._name}: {key} exists already", storage=self._name, operation="put", key=key)

    def object_and_folder(self, key: str) -> StorageError:
        message = f"{self._name}: {key} can't be both an object and a folder of objects"
        return StorageError(message, storage=self._name, operation="put", key=key)

    def missing(self, operation: str, key: str) -> ObjectMissing:
        return ObjectMissing(f"{self._name}: no object {key}", storage=self._name, operation=operation, key=key)

    def too_short(self, key: str, offset: int, end: int, size: int) -> StorageError:
        message = f"{self._name}: {key}: expected bytes {offset} to {end}, found only {size}"
        return StorageError(message, storage=self._name, operation="get", key=key)

    def not_here(self, operation: str, key: str = "") -> StorageError:
        """The folder is missing, or is a bare mount point: never taken for an empty storage."""
        return StorageError(
            f"{self._name}: {self._location} holds no storage: expected a folder with .tmp in it",
            storage=self._name,
            operation=operation,
            key=key,
            hint="If the folder lies on a disk that is not mounted on the server, mount it. If nothing was stored "
            "there yet, run `chrono-backups init`. Else correct BACKUP_SFTP_PATH.",
        )

    def busy(self, key: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"{self._name}: another writer is giving {key} its name and does not finish",
            storage=self._name,
            operation="put",
            key=key,
        )

    def refused(
        self, session: SftpSession, status: SftpStatus, operation: str, key: str = "", *, size: int | None = None
    ) -> StorageError:
        """What to raise for a status. ``size``: of the data that was being written, where it was."""
        kind: type[StorageError] = StorageError
        reason, hint = status.text or f"status {status.code}", "See the server's log and its disk."
        if status.code == PERMISSION_DENIED:
            kind, hint = StorageDenied, f"Let the account read and write {self._root} and all below it on the server."
        elif status.code == UNSUPPORTED:
            hint = "The server lacks what a storage needs of it; OpenSSH's has it."
        elif status.code != NO_SUCH_FILE and operation in {"put", "create", "delete"}:
            # "Failure" is all that a server says of a full disk, a quota, a read-only or a broken one.
            kind, reason, hint = self._look_closer(session, reason, hint, size)
        subject = f"{operation} {key}".rstrip()
        return kind(
            f"{self._name} ({self._location}): {subject} failed: {reason}",
            storage=self._name,
            operation=operation,
            key=key,
            hint=hint,
        )

    def _look_closer(
        self, session: SftpSession, reason: str, hint: str, size: int | None
    ) -> tuple[type[StorageError], str, str]:
        space = session.file_system(self._root or "/")
        make_room = "Free space there, or raise the account's quota or file size limit; then run it again."
        if space is not None and space.read_only:
            return StorageDenied, f"{reason}: the file system is mounted read-only", "Mount it writable on the server."
        if space is not None and (space.free < max(size or 0, _NEXT_TO_NOTHING) or space.free_files == 0):
            return StorageFull, f"no space left on the server's disk ({space.free} bytes are free)", make_room
        if size is not None:
            # Room there is, and yet it takes no more: a quota or a limit is by far the likeliest reason.
            free = "" if space is None else f", and {space.free} bytes are free"
            why = f"the server takes no more data ({reason}{free}): a quota, a file size limit or a broken disk"
            return StorageFull, why, make_room
        return StorageError, reason, hint
