"""Reading what is archived of clusters' WAL, as far as retention has to know it: names, histories, a moment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Listener
from chrono_backups.repository.recovery_points import Archived, Base, archived
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class ArchivedWal:
    """One cluster's archive."""

    archived: Archived
    newest: datetime | None
    """When its last WAL was written, by the server's clock; only known where no base backup of the cluster is there."""

    @property
    def system(self) -> str:
        return self.archived.archive.system_identifier


def archived_wal(repository: Repository, bases: Sequence[Base], listener: Listener) -> list[ArchivedWal]:
    """Every cluster's. Damaged histories are findings, and their timelines are not known then."""
    with_base = {base.system_identifier for base in bases}
    found = archived(repository, listener)
    return [ArchivedWal(one, _newest(one, system, with_base)) for system, one in sorted(found.items())]


def _newest(one: Archived, system: str, with_base: Collection[str]) -> datetime | None:
    last = one.contents.newest
    if system in with_base or last is None:
        return None
    try:
        return one.archive.read_segment(last).moment
    except (ObjectMissing, Damaged):  # it is kept then
        return None
