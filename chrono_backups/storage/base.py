"""The seam between the repository and where its objects lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """An object's key and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Usage:
    """Bytes of a storage: stored objects, and what is free (None where the storage can't tell)."""

    used: int
    free: int | None


class Storage(Protocol):
    """Named byte strings, written once.

    Duties of every implementation, held by ``chrono_backups_tests/contracts/storage_contract.py``:

    * Keys are ``/``-separated segments of ``[a-z0-9._-]``, at most 200 characters, no segment empty or
      beginning with a dot. Any other key is a ``ValueError`` before anything is touched. No key is the
      beginning, up to a ``/``, of another one's.
    * ``put`` is atomic and durable when it returns: a crash or failure at any moment leaves the whole
      object or none, never a part under its name; what a reader sees is complete. The object is
      visible to ``get``, ``info`` and ``list`` at once, from any process.
    * ``put`` creates once: where the key exists it raises ``ObjectExists`` and leaves the object
      untouched; of any number of racing writers exactly one succeeds.
    * ``get`` returns exactly the bytes asked for, or raises: what is not there is ``ObjectMissing``, a
      range that passes the end a ``StorageError``, never fewer bytes.
    * ``list`` yields keys in ascending order, complete, each once, streaming; it never shows temporary
      names.
    * ``delete`` of a missing object is no error; the object is gone for good when it returns.
    * Nothing but ``StorageError`` and its kinds comes out; only ``StorageUnavailable`` is worth a retry.
    * All methods may be called from several threads at once. ``close`` ends it; it may be called twice.
    """

    @property
    def name(self) -> str:
        """What the operator calls this storage: ``local``, ``aws_s3``, …"""

    @property
    def location(self) -> str:
        """Where it is, for people: a path or a URL without secrets."""

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` as a new object. Raises ``ObjectExists`` where the key exists."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        """``length`` bytes from ``offset``; all to the end where ``length`` is None."""

    def info(self, key: str) -> ObjectInfo:
        """The object's size. Raises ``ObjectMissing``."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix`` (a plain string prefix), in ascending key order."""

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""

    def usage(self) -> Usage:
        """How much is stored and how much room is left."""

    def close(self) -> None:
        """Let go of connections."""


class LockingStorage(Storage, Protocol):
    """A storage that can keep objects from being deleted, by anyone, until a time.

    Its ``put`` stores each object locked for ``lock_days`` from now, where that is not 0, and its ``delete`` of an
    object whose time has not come raises ``ObjectLocked``.
    """

    @property
    def lock_days(self) -> int:
        """Days that a new object is locked for; 0: none is."""

    def locked_until(self, key: str) -> datetime | None:
        """When the object may be deleted, UTC; None: at any time. Raises ``ObjectMissing``."""

    def extend_lock(self, key: str, until: datetime) -> None:
        """Lock the object until ``until`` at least; a lock is never made shorter. Raises ``ObjectMissing``."""
