"""Locks as wrappers pass them on: a storage without any is one whose objects may be deleted at any time."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from chrono_backups.errors import StorageError
from chrono_backups.storage.base import LockingStorage, Storage


def lock_days(storage: Storage) -> int:
    """Days that the storage locks a new object for; 0 where it locks none."""
    days: int = getattr(storage, "lock_days", 0)
    return days


def locked_until(storage: Storage, key: str) -> datetime | None:
    """When the object may be deleted, UTC; None: at any time. Raises ``ObjectMissing`` where the storage has locks."""
    return cast("LockingStorage", storage).locked_until(key) if hasattr(storage, "locked_until") else None


def extend_lock(storage: Storage, key: str, until: datetime) -> None:
    """Lock the object until ``until`` at least. Raises ``StorageError`` where the storage has no locks."""
    if not hasattr(storage, "extend_lock"):
        raise StorageError(f"{storage.name} can't lock objects", storage=storage.name, operation="extend_lock", key=key)
    cast("LockingStorage", storage).extend_lock(key, until)
