"""A storage that fails as scripted: how tests reach the paths that only a bad day does.

Calls are counted from 0: all of them, or those of one operation where a fault names it. ``close`` and
the properties do not count. A fault that was never reached fails the test, because then the test did
not prove what it says.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import StorageError, StorageUnavailable
from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until
from chrono_backups.storage.operations import OPERATIONS, Operation

ErrorFactory = Callable[[str], BaseException]
"""Makes the error out of a message; the error classes themselves will do."""


@dataclass(frozen=True)
class Fail:
    """The ``call``-th call raises; ``after_effect``: it did its work, and only the answer was lost.

    A listing whose answer is lost breaks off behind its first object.
    """

    call: int
    operation: Operation | None = None
    error: ErrorFactory = StorageUnavailable
    after_effect: bool = False


@dataclass(frozen=True)
class FailFrom:
    """Every call from the ``call``-th on raises: what a killed process leaves behind.

    ``after_effect`` lets the first of them do its work. The default error is one that is not retried.
    """

    call: int
    operation: Operation | None = None
    error: ErrorFactory = StorageError
    after_effect: bool = False


@dataclass(frozen=True)
class Cut:
    """The ``call``-th get returns the first ``keep`` bytes only."""

    call: int
    keep: int

    @property
    def operation(self) -> Operation:
        return "get"


@dataclass(frozen=True)
class Flip:
    """The ``call``-th get returns its byte at ``position`` (negative: from the end) changed by ``mask``."""

    call: int
    position: int
    mask: int = 0x01

    @property
    def operation(self) -> Operation:
        return "get"


@dataclass(frozen=True)
class Delay:
    """The ``call``-th call takes ``seconds`` longer."""

    call: int
    seconds: float
    operation: Operation | None = None


Fault = Fail | FailFrom | Cut | Flip | Delay
_Failure = (Fail, FailFrom)
T = TypeVar("T")


class FaultyStorage:
    """Carries out ``faults`` on calls to ``inner``; ``close`` raises ``AssertionError`` for unreached ones."""

    def __init__(self, inner: Storage, *faults: Fault, clock: Clock | None = None) -> None:
        self._inner = inner
        self._faults = faults
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._calls: Counter[Operation] = Counter()
        self._reached: set[int] = set()

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def lock_days(self) -> int:
        return lock_days(self._inner)

    @property
    def calls(self) -> int:
        """How many calls there were."""
        with self._lock:
            return self._calls.total()

    def calls_of(self, operation: Operation) -> int:
        """How many calls of one operation there were."""
        return self._calls[operation]

    @property
    def unreached(self) -> tuple[Fault, ...]:
        """The faults that have not come about yet. A crash loop is through when its fault is among them."""
        return tuple(fault for number, fault in enumerate(self._faults) if number not in self._reached)

    def assert_all_reached(self) -> None:
        """Raise ``AssertionError`` naming the faults that did not come about."""
        if self.unreached:
            counts = ", ".join(f"{self._calls[operation]} {operation}" for operation in OPERATIONS)
            raise AssertionError(f"faults never reached: {self.unreached}; calls were: {counts}")

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        self._carry_out("put", key, lambda: self._inner.put(key, data))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        call = self._begin("get", key)
        return self._damaged(self._answer(call, lambda: self._inner.get(key, offset, length)), call)

    def info(self, key: str) -> ObjectInfo:
        return self._carry_out("info", key, lambda: self._inner.info(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._list(prefix, self._begin("list", prefix))

    def _list(self, prefix: str, call: _Call) -> Iterator[ObjectInfo]:
        # As with real drivers nothing happens before the first object is asked for.
        self._strike(call)
        listing = self._inner.list(prefix)
        if call.answer_lost:
            yield from islice(listing, 1)
            self._lose_answer(call)
        yield from listing

    def delete(self, key: str) -> None:
        self._carry_out("delete", key, lambda: self._inner.delete(key))

    def usage(self) -> Usage:
        return self._carry_out("usage", "", self._inner.usage)

    def locked_until(self, key: str) -> datetime | None:
        return self._carry_out("locked_until", key, lambda: locked_until(self._inner, key))

    def extend_lock(self, key: str, until: datetime) -> None:
        self._carry_out("extend_lock", key, lambda: extend_lock(self._inner, key, until))

    def close(self) -> None:
        self._inner.close()
        self.assert_all_reached()

    def _carry_out(self, operation: Operation, key: str, effect: Callable[[], T]) -> T:
        return self._answer(self._begin(operation, key), effect)

    def _answer(self, call: _Call, effect: Callable[[], T]) -> T:
        self._strike(call)
        try:
            answer = effect()
        except StorageError:
            self._lose_answer(call)  # a refusal is an answer too
            raise
        self._lose_answer(call)
        return answer

    def _begin(self, operation: Operation, key: str) -> _Call:
        """Count the call and find the faults that are due in it."""
        with self._lock:
            of_all, of_operation = self._calls.total(), self._calls[operation]
            self._calls[operation] += 1
        call = _Call(f"call {of_all} ({operation} {of_operation}: {key!r})")
        for number, fault in enumerate(self._faults):
            if fault.operation not in {None, operation}:
                continue
            position = of_all if fault.operation is None else of_operation
            if position == fault.call or (isinstance(fault, FailFrom) and position > fault.call):
                late = isinstance(fault, _Failure) and fault.after_effect and position == fault.call
                (call.after if late else call.before).append((number, fault))
        return call

    def _strike(self, call: _Call) -> None:
        """What is due before the call has an effect."""
        for number, fault in call.before:
            if isinstance(fault, Delay):
                self._reached.add(number)
                self._clock.sleep(fault.seconds)
            elif isinstance(fault, _Failure):
                self._reached.add(number)
                raise fault.error(f"scripted fault before {call.title}")

    def _lose_answer(self, call: _Call) -> None:
        for number, fault in call.after:
            if isinstance(fault, _Failure):
                self._reached.add(number)
                raise fault.error(f"scripted fault after {call.title}")

    def _damaged(self, content: bytes | bytearray, call: _Call) -> bytes | bytearray:
        """What is left of the content. A fault that changes nothing (an empty object's) is not reached."""
        damaged = bytearray(content)
        for number, fault in call.before:
            if isinstance(fault, Cut) and fault.keep < len(damaged):
                del damaged[fault.keep :]
                self._reached.add(number)
            elif isinstance(fault, Flip) and fault.mask and -len(damaged) <= fault.position < len(damaged):
                damaged[fault.position] ^= fault.mask
                self._reached.add(number)
        return bytes(damaged) if call.before else content


class _Call:
    """One call: its title for messages, and the numbered faults due before and after its effect."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.before: list[tuple[int, Fault]] = []
        self.after: list[tuple[int, Fault]] = []

    @property
    def answer_lost(self) -> bool:
        return bool(self.after)
