"""Copying one object to a replica: proven before it is stored, and never in the place of a good one."""

from __future__ import annotations

import threading
from contextlib import suppress

from chrono_backups.errors import Damaged, ObjectExists, ObjectLocked, ObjectMissing, StorageDenied
from chrono_backups.maintenance.inspection import Findings, Inspector, digest_of
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.pipeline.packing import pack_digest
from chrono_backups.repository.format import object_key, open_object, prefix
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage

_THERE = "It is left as it is in the replica. Verify the replica."


class Copier:
    """Copies objects from a repository to a storage, and counts. May be shared by threads."""

    def __init__(self, source: Repository, target: Repository, findings: Findings) -> None:
        self._source = Inspector(source, findings)
        self._target = target
        self._keys = source.keys
        self._findings = findings
        self._lock = threading.Lock()
        self.objects = 0
        self.bytes = 0
        self.present = 0

    @property
    def destination(self) -> Storage:
        return self._target.storage

    def sizes(self, repository: Repository, kind: Kind) -> dict[str, int]:
        """Name → size of all objects of that kind."""
        start = prefix(kind)
        return {
            info.key.removeprefix(start): info.size
            for info in repository.storage.list(start)
            if kind != "pack" or digest_of(info.key) is not None
        }

    def read(self, kind: Kind, name: str) -> bytes | bytearray:
        """A sound object of the source. Raises ``Damaged``, ``ObjectMissing``."""
        key = object_key(kind, name)
        stored = self._source.get(key)
        if kind != "pack":
            open_object(self._keys, kind, name, stored)
        elif pack_digest(stored).hex() != name:
            raise Damaged(f"{key} is damaged: its bytes are not those that it is named by", key=key)
        return stored

    def put(self, key: str, data: bytes | bytearray) -> None:
        """Store an object at the destination; where another replication was first that is fine."""
        with suppress(ObjectExists):
            self.destination.put(key, data)
            with self._lock:
                self.objects += 1
                self.bytes += len(data)

    def copy(self, kind: Kind, name: str, size: int, there: int | None) -> bool:
        """Make the destination have the object, which it has in size ``there``; whether it has it now.

        Damage of the source's object is a finding. Raises ``ObjectMissing`` where the source has it no more.
        """
        if there == size:
            with self._lock:
                self.present += 1
            return True
        try:
            stored = self.read(kind, name)
        except Damaged as error:
            self._findings.damage(error)
            return False
        key = object_key(kind, name)
        if there is not None and not self._clear(kind, name, key):
            return False
        self.put(key, stored)
        return True

    def _clear(self, kind: Kind, name: str, key: str) -> bool:
        """Remove what the destination has by that name, if it is damaged."""
        try:
            stored = self.destination.get(key)
            if kind == "pack":
                sound = pack_digest(stored).hex() == name
            else:
                sound = bool(open_object(self._keys, kind, name, stored))
        except Damaged:
            sound = False
        except ObjectMissing:
            return True
        if sound:
            message = "the replica has another object of that name, which is sound"
            self._findings.add("conflict", key, message, _THERE)
            return False
        return self.replace(key)

    def replace(self, key: str) -> bool:
        """Delete a damaged object of the destination; whether it could be."""
        try:
            self.destination.delete(key)
        except (StorageDenied, ObjectLocked) as error:
            message = f"the replica's object is damaged, and may not be deleted: {error.message}"
            self._findings.add("damaged-in-replica", key, message, _THERE)
            return False
        self._findings.add("replaced", key, "the replica's object was damaged, and is replaced", severity="warning")
        return True
