"""A storage that asks again when the other one was unavailable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import ObjectExists, ObjectMissing, StorageUnavailable
from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.keys import check_prefix
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until

T = TypeVar("T")


class RetryingStorage:
    """Repeats calls that raised ``StorageUnavailable``, and none that raised anything else.

    At most ``attempts`` calls are made. Before the n-th repetition it waits a random time between a half and the
    whole of ``first_wait`` × 2ⁿ⁻¹ seconds, but at least the error's ``retry_after`` seconds where a driver set that
    attribute, and never longer than ``longest_wait``. Chance keeps writers that failed together from coming back
    together; the half that is certain keeps it from using up the attempts before an outage has had time to pass.
    After the last attempt its error is raised as it is.

    A put whose answer was lost may have taken effect, and its repetition then meets its own object.
    So a repeated put that raises ``ObjectExists`` looks: where size and bytes are its own, it succeeded.
    Two writers of the same bytes under the same key can't be told apart by this; a claim that only one
    may win needs something of its writer in it.

    A listing that breaks off is taken up again behind the last key it gave; each object it gives starts
    the attempts anew.
    """

    def __init__(
        self,
        inner: Storage,
        *,
        attempts: int = 8,
        first_wait: float = 0.5,
        longest_wait: float = 60.0,
        clock: Clock | None = None,
        on_retry: Callable[[StorageUnavailable, float], None] | None = None,
    ) -> None:
        """``on_retry`` is told each error and the seconds to be waited, before the wait."""
        if attempts < 1:
            raise ValueError(f"at least one attempt is needed, not {attempts}")
        self._inner = inner
        self._attempts = attempts
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._clock = clock or SystemClock()
        self._on_retry = on_retry

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
        answer_lost = False

        def attempt() -> None:
            nonlocal answer_lost
            try:
                self._inner.put(key, data)
            except StorageUnavailable:
                answer_lost = True
                raise
            except ObjectExists:
                if not (answer_lost and self._holds(key, data)):
                    raise

        self._call(attempt)

    def _holds(self, key: str, data: bytes | bytearray | memoryview) -> bool:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        try:
            return self._inner.info(key).size == size and bytes(self._inner.get(key)) == bytes(data)
        except ObjectMissing:
            return False

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        return self._call(lambda: self._inner.get(key, offset, length))

    def info(self, key: str) -> ObjectInfo:
        return self._call(lambda: self._inner.info(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        last = ""
        failures = 0
        while True:
            try:
                for info in self._inner.list(prefix):
                    if info.key > last:
                        last, failures = info.key, 0
                        yield info
                return
            except StorageUnavailable as error:
                failures += 1
                self._wait(error, failures)

    def delete(self, key: str) -> None:
        self._call(lambda: self._inner.delete(key))

    def usage(self) -> Usage:
        return self._call(self._inner.usage)

    def locked_until(self, key: str) -> datetime | None:
        return self._call(lambda: locked_until(self._inner, key))

    def extend_lock(self, key: str, until: datetime) -> None:
        self._call(lambda: extend_lock(self._inner, key, until))

    def close(self) -> None:
        self._inner.close()

    def _call(self, attempt: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return attempt()
            except StorageUnavailable as error:
                failures += 1
                self._wait(error, failures)

    def _wait(self, error: StorageUnavailable, failures: int) -> None:
        """Wait before the next attempt, or raise ``error`` if there is none left."""
        if failures >= self._attempts:
            raise error
        # ldexp overflows where the exponent is absurd; 2**60 first waits are longer than any longest wait.
        most = min(self._longest_wait, math.ldexp(self._first_wait, min(failures - 1, 60)))
        chance = int.from_bytes(self._clock.random_bytes(7), "big") / 2**56
        seconds = min(self._longest_wait, max(most * (1 + chance) / 2, _retry_after(error)))
        if self._on_retry is not None:
            self._on_retry(error, seconds)
        self._clock.sleep(seconds)


def _retry_after(error: StorageUnavailable) -> float:
    """Seconds the storage asked to be left alone for; 0 where it said nothing usable."""
    seconds = getattr(error, "retry_after", None)
    return float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 0.0
