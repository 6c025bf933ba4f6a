"""A storage that counts what passes through it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until
from chrono_backups.storage.operations import OPERATIONS, Operation


@dataclass(frozen=True)
class OperationMetrics:
    """One operation: calls that ended, seconds spent in them, and how many raised, by error class name.

    ``ObjectMissing`` and ``ObjectExists`` count as well: whether they were expected only the caller knows.
    """

    calls: int
    seconds: float
    errors: Mapping[str, int]

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())


@dataclass(frozen=True)
class StorageMetrics:
    """What passed through a storage until now: one consistent reading. Bytes are those of successful calls."""

    storage: str
    bytes_up: int
    bytes_down: int
    operations: Mapping[Operation, OperationMetrics]


class MeteredStorage:
    """Counts calls, bytes, seconds and errors, from any number of threads.

    A listing counts as one call when it ends or is given up; its seconds are those spent waiting for its
    next object, not those its reader spends between them.
    """

    def __init__(self, inner: Storage, *, clock: Clock | None = None) -> None:
        self._inner = inner
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._calls: Counter[Operation] = Counter()
        self._seconds: dict[Operation, float] = dict.fromkeys(OPERATIONS, 0.0)
        self._errors: dict[Operation, Counter[str]] = {operation: Counter() for operation in OPERATIONS}
        self._bytes_up = 0
        self._bytes_down = 0

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def lock_days(self) -> int:
        return lock_days(self._inner)

    def metrics(self) -> StorageMetrics:
        """The figures of this moment; they never change afterwards."""
        with self._lock:
            operations = {
                operation: OperationMetrics(
                    self._calls[operation], self._seconds[operation], MappingProxyType(dict(self._errors[operation]))
                )
                for operation in OPERATIONS
            }
            return StorageMetrics(self.name, self._bytes_up, self._bytes_down, MappingProxyType(operations))

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        with self._measured("put"):
            self._inner.put(key, data)
        with self._lock:
            self._bytes_up += data.nbytes if isinstance(data, memoryview) else len(data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        with self._measured("get"):
            content = self._inner.get(key, offset, length)
        with self._lock:
            self._bytes_down += len(content)
        return content

    def info(self, key: str) -> ObjectInfo:
        with self._measured("info"):
            return self._inner.info(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        began = self._clock.monotonic()
        try:
            listing = self._inner.list(prefix)
        except BaseException as error:
            self._count("list", self._clock.monotonic() - began, error)
            raise
        return self._list(listing)

    def _list(self, listing: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        seconds = 0.0
        failure: BaseException | None = None
        try:
            while True:
                began = self._clock.monotonic()
                try:
                    info = next(listing, None)
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    seconds += self._clock.monotonic() - began
                if info is None:
                    return
                yield info
        finally:
            self._count("list", seconds, failure)

    def delete(self, key: str) -> None:
        with self._measured("delete"):
            self._inner.delete(key)

    def usage(self) -> Usage:
        with self._measured("usage"):
            return self._inner.usage()

    def locked_until(self, key: str) -> datetime | None:
        with self._measured("locked_until"):
            return locked_until(self._inner, key)

    def extend_lock(self, key: str, until: datetime) -> None:
        with self._measured("extend_lock"):
            extend_lock(self._inner, key, until)

    def close(self) -> None:
        self._inner.close()

    @contextmanager
    def _measured(self, operation: Operation) -> Iterator[None]:
        began = self._clock.monotonic()
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._count(operation, self._clock.monotonic() - began, failure)

    def _count(self, operation: Operation, seconds: float, failure: BaseException | None) -> None:
        with self._lock:
            self._calls[operation] += 1
            self._seconds[operation] += seconds
            if failure is not None:
                self._errors[operation][type(failure).__name__] += 1
