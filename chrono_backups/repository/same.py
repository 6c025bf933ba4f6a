"""Several storages that are to hold one repository: the first that is looked at says which."""

from __future__ import annotations

import threading

from chrono_backups.errors import ObjectMissing, RepositoryError, RepositoryMissing
from chrono_backups.repository.format import HEADER_KEY, Header
from chrono_backups.storage.base import Storage


class SameRepository:
    """Tells a storage that holds another repository than those looked at before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[str, bytes] | None = None

    def check(self, storage: Storage) -> None:
        """Raises ``RepositoryMissing``, ``RepositoryError`` for another one, ``Damaged`` or ``StorageError``."""
        place = f"{storage.name} ({storage.location})"
        try:
            header = Header.decode(storage.get(HEADER_KEY))
        except ObjectMissing as error:
            raise RepositoryMissing(
                f"there is no repository in {place}",
                hint="Make one: chrono-backups init. Or is the disk not mounted, or the path another?",
            ) from error
        with self._lock:
            known, other = self._known or (storage.name, header.repository_id)
            self._known = known, other
        if other != header.repository_id:
            raise RepositoryError(
                f"{place} holds another repository than {known}: {header.repository_id.hex()}, not {other.hex()}",
                hint="All enabled storages hold one repository. Name the one that is meant with --storage.",
            )
