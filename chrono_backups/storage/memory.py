"""Storages that live in this process: for tests, and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import ObjectExists, ObjectLocked, ObjectMissing, StorageError
from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.keys import check_key, check_prefix, check_range
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until


class MemoryStorage:
    """A storage as strict as the strictest real one; what it holds outlives ``close``.

    ``objects`` is open to tests that damage what is stored: replace, cut, swap or drop values at will.
    With ``lock_days`` it locks what is put, as the seam's ``LockingStorage`` says; ``locks`` is open to tests too.
    """

    def __init__(self, name: str = "memory", *, lock_days: int = 0, clock: Clock | None = None) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._folders: set[str] = set()
        self._clock = clock or SystemClock()
        self.lock_days = lock_days
        self.objects: dict[str, bytes] = {}
        self.locks: dict[str, datetime] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def location(self) -> str:
        return "memory"

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        check_key(key)
        content = bytes(data)
        with self._lock:
            if key in self.objects:
                raise ObjectExists(f"{key} exists already", storage=self.name, operation="put", key=key)
            self._claim_folders(key)
            self.objects[key] = content
            if self.lock_days:
                self.locks[key] = self._clock.now() + timedelta(days=self.lock_days)

    def _claim_folders(self, key: str) -> None:
        # A file system can't hold both `a` and `a/b`; a name that only fails there must fail here too.
        folders = [key[:position] for position, character in enumerate(key) if character == "/"]
        clash = key if key in self._folders else next((folder for folder in folders if folder in self.objects), None)
        if clash is not None:
            message = f"{clash} can't be both an object and a folder of objects"
            raise StorageError(message, storage=self.name, operation="put", key=key)
        self._folders.update(folders)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        check_key(key)
        check_range(offset, length)
        content = self._content(key, "get")
        end = len(content) if length is None else offset + length
        if offset > len(content) or end > len(content):
            message = f"{key}: expected bytes {offset} to {end}, the object has {len(content)}"
            raise StorageError(message, storage=self.name, operation="get", key=key)
        return content[offset:end]

    def info(self, key: str) -> ObjectInfo:
        check_key(key)
        return ObjectInfo(key, len(self._content(key, "info")))

    def _content(self, key: str, operation: str) -> bytes:
        with self._lock:
            content = self.objects.get(key)
        if content is None:
            raise ObjectMissing(f"no object {key}", storage=self.name, operation=operation, key=key)
        return content

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = [ObjectInfo(key, len(data)) for key, data in self.objects.items() if key.startswith(prefix)]
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            until = self.locks.get(key)
            if key in self.objects and until is not None and self._clock.now() < until:
                message = f"{key} is locked until {until:%Y-%m-%d %H:%M:%S} UTC"
                raise ObjectLocked(message, until=until, storage=self.name, operation="delete", key=key)
            self.objects.pop(key, None)
            self.locks.pop(key, None)

    def locked_until(self, key: str) -> datetime | None:
        check_key(key)
        self._content(key, "locked_until")
        until = self.locks.get(key)
        return until if until is not None and self._clock.now() < until else None

    def extend_lock(self, key: str, until: datetime) -> None:
        check_key(key)
        self._content(key, "extend_lock")
        with self._lock:
            self.locks[key] = max(until, self.locks.get(key, until))

    def usage(self) -> Usage:
        with self._lock:
            return Usage(used=sum(map(len, self.objects.values())), free=None)

    def close(self) -> None:
        """Nothing to let go of: a test opens the same storage again, as a new process would."""


class EventuallyConsistentStorage:
    """A storage whose ``list`` is behind: what a careless object store shows.

    Each change (put or delete) through this instance is seen by ``list`` only after ``lag`` further
    calls of ``list``, whatever their prefix; ``get`` and ``info`` see it at once. So it breaks the
    seam's duty on purpose; with a lag of 0 it keeps it.
    """

    def __init__(self, inner: Storage, *, lag: int) -> None:
        if lag < 0:
            raise ValueError(f"a list can't be ahead: lag {lag}")
        self._inner = inner
        self._lag = lag
        self._lock = threading.Lock()
        self._lists = 0
        # key → (number of the list call that first shows the change, what lists before it show)
        self._pending: dict[str, tuple[int, ObjectInfo | None]] = {}

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def lock_days(self) -> int:
        return lock_days(self._inner)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        with self._lock:
            self._inner.put(key, data)
            self._hide(key, None)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        return self._inner.get(key, offset, length)

    def info(self, key: str) -> ObjectInfo:
        return self._inner.info(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._lock:
            self._lists += 1
            self._pending = {key: change for key, change in self._pending.items() if change[0] > self._lists}
            shown = {info.key: info for info in self._inner.list(prefix)}
            for key, (_, before) in self._pending.items():
                shown.pop(key, None)
                if before is not None and key.startswith(prefix):
                    shown[key] = before
        return iter(sorted(shown.values(), key=lambda info: info.key))

    def delete(self, key: str) -> None:
        with self._lock:
            try:
                before = self._inner.info(key)
            except ObjectMissing:
                before = None
            self._inner.delete(key)
            if before is not None:
                self._hide(key, before)

    def _hide(self, key: str, before: ObjectInfo | None) -> None:
        """The newest change starts its lag anew; lists meanwhile go on showing what they showed."""
        if key in self._pending and self._pending[key][0] > self._lists + 1:
            before = self._pending[key][1]
        self._pending[key] = (self._lists + 1 + self._lag, before)

    def settle(self) -> None:
        """Bring ``list`` up to date at once."""
        with self._lock:
            self._pending.clear()

    def locked_until(self, key: str) -> datetime | None:
        return locked_until(self._inner, key)

    def extend_lock(self, key: str, until: datetime) -> None:
        extend_lock(self._inner, key, until)

    def usage(self) -> Usage:
        return self._inner.usage()

    def close(self) -> None:
        self._inner.close()
