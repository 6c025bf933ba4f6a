"""Leases: who is writing, for prune's eyes only (``docs/repository-format.md``, "Leases").

A lease reserves its backup's id and tells prune that chunks may be in use that no manifest names yet.
It is an object, written once; a writer that goes on for long adds a later one beside it. It holds for
``TERM`` at a time; a killed writer's lease simply runs out. Where a writer may not delete its leases, because the
storage locks objects or the writer has no right to, one more object beside them says that it let go.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.clock import Clock, from_text, to_text
from chrono_backups.errors import Damaged, LeaseLost, ObjectExists, ObjectLocked, ObjectMissing, StorageDenied
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.format import object_key, open_record, prefix, seal_record
from chrono_backups.storage.base import Storage

TERM = timedelta(hours=6)
_RELEASED = "released"


def _held(names: Sequence[str]) -> list[str]:
    released = {holder for holder, _, end in (name.partition(".") for name in names) if end == _RELEASED}
    return [name for name in names if name.partition(".")[0] not in released]


@dataclass(frozen=True)
class Lease:
    """One writer's claim."""

    name: str
    """The backup id, or what else it is for; a renewal has ``.1``, ``.2``, … behind it."""
    host: str
    process: int
    started_at: datetime
    expires_at: datetime

    @property
    def holder(self) -> str:
        """The name without the renewal's number."""
        return self.name.partition(".")[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "host": self.host,
            "process": self.process,
            "started_at": to_text(self.started_at),
            "expires_at": to_text(self.expires_at),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], key: str) -> Lease:
        try:
            return cls(
                record["name"],
                record["host"],
                record["process"],
                from_text(record["started_at"]),
                from_text(record["expires_at"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{key} is no lease: {error}", key=key) from error


class Leases:
    """The leases of one repository."""

    def __init__(self, storage: Storage, keys: Keys, clock: Clock) -> None:
        self._storage = storage
        self._keys = keys
        self._clock = clock
        self._own: dict[str, list[str]] = {}
        """The names of those that were put here, by holder."""

    def take(self, holder: str) -> Lease:
        """Claim that name. Raises ``ObjectExists`` where it is claimed."""
        now = self._clock.now()
        return self._put(Lease(holder, socket.gethostname(), os.getpid(), now, now + TERM))

    def keep(self, lease: Lease) -> Lease:
        """The lease, renewed once half its term is over. Raises ``LeaseLost`` where it has run out."""
        now = self._clock.now()
        self.check(lease)
        if now < lease.expires_at - TERM / 2:
            return lease
        number = int(lease.name.partition(".")[2] or 0) + 1
        renewed = Lease(f"{lease.holder}.{number}", lease.host, lease.process, lease.started_at, now + TERM)
        try:
            return self._put(renewed)
        except ObjectExists:  # another step of the same backup renewed it
            return self._read(renewed.name)

    def check(self, lease: Lease) -> None:
        """Raises ``LeaseLost`` where the lease has run out."""
        now = self._clock.now()
        if now >= lease.expires_at:
            raise LeaseLost(
                f"the lease of {lease.holder} ran out at {to_text(lease.expires_at)}, it is {to_text(now)}",
                hint="Was the machine suspended? Run the backup again: what it stored is used.",
            )

    def find(self, holder: str) -> Lease:
        """The newest lease of that holder. Raises ``LeaseLost`` where there is none."""
        with suppress(ObjectMissing, IndexError):  # one request instead of two where it was put here
            return self._read(self._own.get(holder, [])[-1])
        mine = self._all(name for name in self._held() if name.partition(".")[0] == holder)
        if not mine:
            raise LeaseLost(f"{holder} has no lease: it was committed, abandoned or pruned", hint="Start a new backup.")
        return max(mine, key=lambda lease: lease.expires_at)

    def release(self, holder: str) -> None:
        """Let go of all leases of that holder: those put here, or else all that are found.

        What another process added to those put here runs out by itself.
        """
        kept = False
        for name in self._own.pop(holder, None) or self.names():
            if name.partition(".")[0] == holder:
                try:
                    self._storage.delete(object_key("lease", name))
                except (ObjectLocked, StorageDenied):
                    kept = True
        if kept:
            now = self._clock.now()
            with suppress(ObjectExists):
                self._put(Lease(f"{holder}.{_RELEASED}", socket.gethostname(), os.getpid(), now, now))
            self._own.pop(holder, None)

    def names(self) -> list[str]:
        """The names of all leases, run out or not."""
        start = prefix("lease")
        return [info.key.removeprefix(start) for info in self._storage.list(start)]

    def all(self) -> list[Lease]:
        """All leases that were not let go of, run out or not."""
        return self._all(self._held())

    def released(self) -> list[Lease]:
        """The leases that were let go of and are still stored, with the objects that say so."""
        names = self.names()
        return self._all(sorted(set(names) - set(_held(names))))

    def _held(self) -> list[str]:
        return _held(self.names())

    def _all(self, names: Iterable[str]) -> list[Lease]:
        found = []
        for name in names:
            with suppress(ObjectMissing):  # released meanwhile
                found.append(self._read(name))
        return found

    def _read(self, name: str) -> Lease:
        key = object_key("lease", name)
        return Lease.from_json(open_record(self._keys, "lease", name, self._storage.get(key)), key)

    def _put(self, lease: Lease) -> Lease:
        record = seal_record(self._keys, "lease", lease.name, lease.to_json(), self._clock)
        self._storage.put(object_key("lease", lease.name), record)
        self._own.setdefault(lease.holder, []).append(lease.name)
        return lease
