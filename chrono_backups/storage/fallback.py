"""Reading one repository from several storages: the first that answers, then the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

from chrono_backups.clock import Clock
from chrono_backups.errors import ChronoBackupsError, ObjectMissing, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.keys import check_prefix
from chrono_backups.storage.retrying import RetryingStorage

T = TypeVar("T")
_ATTEMPTS_OF_MANY = 3
"""So often a storage is asked while there is another: a passing fault is no reason to read from a slower one."""
_FAULTS = (StorageUnavailable, StorageDenied)
"""What makes a storage one that does not answer, as opposed to one that has not the object."""


@runtime_checkable
class RedundantStorage(Protocol):
    """A storage that may have further copies of an object."""

    def copies(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes | bytearray]:
        """What other places than the one that ``get`` reads have of the object; those without are left out."""


def copies(storage: Storage, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes | bytearray]:
    """Further copies of an object, for who found the first one damaged; none where the storage is one place."""
    return storage.copies(key, offset, length) if isinstance(storage, RedundantStorage) else iter(())


class Place:
    """One storage among several: opened when it is first needed, and given up once it does not answer."""

    def __init__(
        self, name: str, open_storage: Callable[[], Storage], *, attempts: int, clock: Clock | None = None
    ) -> None:
        """``open_storage`` gives a storage that does not retry, and raises where it has not the repository to be read.

        ``attempts`` is how often it is asked once it is the last.
        """
        self.name = name
        self._open = open_storage
        self._attempts = attempts
        self._clock = clock
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self.fault: ChronoBackupsError | None = None

    def storage(self, *, patient: bool) -> Storage:
        """``patient``: ask it again as long as is usual; else a few times only, because another one waits.

        Raises the ``ChronoBackupsError`` that it was given up for.
        """
        with self._lock:
            if self.fault is not None:
                raise self.fault
            if self._storage is None:
                self._storage = self._open()
            inner = self._storage
        attempts = self._attempts if patient else min(self._attempts, _ATTEMPTS_OF_MANY)
        return RetryingStorage(inner, attempts=attempts, clock=self._clock)

    def close(self) -> None:
        """Let go of connections."""
        if self._storage is not None:
            self._storage.close()


class FallbackStorage:
    """Reads from the first of ``places`` that answers, and from the next when that one fails, at any moment.

    A place that is unavailable or denies a request is given up for good, and a finding says so: whoever reads a whole
    backup does not want to wait for it again with each object. An object that one place does not have is looked for in
    the next. All places have the same repository, so an object of one name is the same everywhere. Only reading is
    possible: ``put`` and ``delete`` raise.
    """

    def __init__(self, places: Sequence[Place], listener: Listener = silent) -> None:
        if not places:
            raise ValueError("at least one place is needed")
        self._places = tuple(places)
        self._listener = listener
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()

    @property
    def name(self) -> str:
        return self._first().name

    @property
    def location(self) -> str:
        return self._first().storage(patient=True).location

    def _first(self) -> Place:
        """The place that is read now; the first of all where none answers."""
        return next((place for place in self._places if place.fault is None), self._places[0])

    def _usable(self) -> Iterator[tuple[Place, Storage]]:
        """The places that are not given up, one after the other as they are needed."""
        for place in self._places:
            if place.fault is None:
                last = all(one is place or one.fault is not None for one in self._places)
                try:
                    storage = place.storage(patient=last)
                except ChronoBackupsError as error:
                    self._give_up(place, error)
                else:
                    yield place, storage

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        raise self._only_read("put", key)

    def delete(self, key: str) -> None:
        raise self._only_read("delete", key)

    def _only_read(self, operation: str, key: str) -> StorageDenied:
        message = f"{self.name} is read together with other storages, and nothing is changed so"
        return StorageDenied(message, storage=self.name, operation=operation, key=key)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        return self._ask(lambda storage: storage.get(key, offset, length))

    def info(self, key: str) -> ObjectInfo:
        return self._ask(lambda storage: storage.info(key))

    def usage(self) -> Usage:
        return self._ask(lambda storage: storage.usage())

    def _ask(self, call: Callable[[Storage], T]) -> T:
        """The first answer. Where no place has the object the first one's word counts."""
        first: StorageError | None = None
        for place, storage in self._usable():
            try:
                answer = call(storage)
            except _FAULTS as error:
                self._give_up(place, error)
            except StorageError as error:
                first = first or error
            else:
                if first is not None:
                    self._tell_elsewhere(first, place)
                return answer
        raise first or self._none_left()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        """One that breaks off goes on in the next place, behind the last key that it gave."""
        last = ""
        for place, storage in self._usable():
            try:
                for info in storage.list(prefix):
                    if info.key > last:
                        last = info.key
                        yield info
                return
            except StorageError as error:
                self._give_up(place, error)
        raise self._none_left()

    def copies(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes | bytearray]:
        """As the places behind the first have it."""
        for place, storage in islice(self._usable(), 1, None):
            try:
                content = storage.get(key, offset, length)
            except _FAULTS as error:
                self._give_up(place, error)
            except StorageError:
                continue
            else:
                self._tell("read-elsewhere", key, f"it is damaged in {self.name}, and read from {place.name}")
                yield content

    def _give_up(self, place: Place, error: ChronoBackupsError) -> None:
        place.fault = error
        left = next((one.name for one in self._places if one.fault is None), None)
        if left is not None:
            self._tell("storage-given-up", place.name, f"{error.message}; reading goes on from {left}")

    def _tell_elsewhere(self, error: StorageError, place: Place) -> None:
        why = "is missing" if isinstance(error, ObjectMissing) else "can't be read"
        where = error.storage or self._places[0].name
        self._tell("read-elsewhere", error.key, f"it {why} in {where}, and read from {place.name}")

    def _tell(self, code: str, subject: str, message: str) -> None:
        with self._lock:  # readers of several threads meet the same fault
            if (code, subject) in self._told:
                return
            self._told.add((code, subject))
        hint = "`chrono-backups verify --repair` mends it." if code == "read-elsewhere" else ""
        self._listener(Finding(code, "warning", subject, message, hint))

    def _none_left(self) -> ChronoBackupsError:
        """What the first place failed with; the others are named."""
        faults = [place.fault for place in self._places if place.fault is not None]
        assert faults, "there is a place that was not given up"
        first = faults[0]
        others = "; ".join(f"{place.name}: {place.fault.message}" for place in self._places[1:] if place.fault)
        if not others or not isinstance(first, StorageError):
            return first
        message = f"{first.message}; nor could another storage be read: {others}"
        return type(first)(message, storage=first.storage, operation=first.operation, key=first.key, hint=first.hint)

    def close(self) -> None:
        for place in self._places:
            with suppress(StorageError):
                place.close()
