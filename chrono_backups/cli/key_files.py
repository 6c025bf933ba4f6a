"""Keys in files: made, written so that only their owner reads them, never over an existing file."""

from __future__ import annotations

import base64
import os
from contextlib import suppress

from chrono_backups.clock import Clock
from chrono_backups.errors import UsageError

KEY_SIZE = 32
_READ_AT_MOST = 4096


def new_key(clock: Clock) -> str:
    """A random key as text: URL-safe base64 of 32 bytes."""
    return text(clock.random_bytes(KEY_SIZE))


def text(key: bytes) -> str:
    """The key as settings take it."""
    return base64.urlsafe_b64encode(key).decode("ascii")


def write(path: str, key: str) -> None:
    """Create ``path`` with mode 0600, durable when it returns. ``UsageError`` where it exists or can't be made."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        hint = "An existing key file is never overwritten: it may be the only copy of a key."
        raise UsageError(f"{path} exists already", hint=hint) from error
    except OSError as error:
        raise UsageError(f"{path} can't be created: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(key.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(os.path.dirname(path) or ".")
    except OSError as error:
        remove(path)
        raise UsageError(f"{path} can't be written: {error.strerror}") from error


def read(path: str) -> str:
    """What the file holds, as text without white space at its ends. ``UsageError`` where it can't be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path as the operator typed it
            content = file.read(_READ_AT_MOST)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    return content.decode("ascii", "replace").strip()


def remove(path: str) -> None:
    """Remove a file that ``write`` made."""
    with suppress(OSError):
        os.unlink(path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
