"""What an ``OSError`` of a file system means for a storage."""

from __future__ import annotations

import errno
import os

from chrono_backups.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNAVAILABLE = {
    # The device or the file server.
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EBUSY, errno.EREMOTEIO,
    # The way to the file server, or a FUSE daemon that died.
    errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EPIPE,
    # This machine, for the moment.
    errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK,
}  # fmt: skip


def storage_error(error: OSError, *, storage: str, operation: str, key: str, location: str) -> StorageError:
    """The error to raise ``from error``; ``location`` is the storage's root, for the operator's eyes."""
    kind: type[StorageError] = StorageError
    hint = ""
    if error.errno in _FULL:
        kind = StorageFull
        hint = f"Free space or raise the quota or file size limit where {location} lies; then run it again."
    elif error.errno in _DENIED:
        kind = StorageDenied
        hint = f"Let the user this program runs as (uid {os.geteuid()}) read and write {location} and all below it."
    elif error.errno in _UNAVAILABLE:
        kind = StorageUnavailable
        hint = f"See that the disk or share of {location} is mounted and healthy."
    reason = error.strerror or str(error)
    subject = f"{operation} {key}".rstrip()
    return kind(
        f"{storage} ({location}): {subject} failed: {reason}", storage=storage, operation=operation, key=key, hint=hint
    )
