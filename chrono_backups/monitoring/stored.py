"""What a look at one storage tells: mostly names, and the few newest records, so that it costs little at any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.identifiers import BACKUP_TYPES, BackupType, parse_backup_id
from chrono_backups.repository.evidence import Evidence
from chrono_backups.repository.format import object_key
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

KIN = 10
"""So many of the newest backups of each type are read, and so many of the newest drills."""


@dataclass(frozen=True)
class Room:
    """Bytes of a storage: what the repository takes, what is free, and what there is for it in all (None: no end)."""

    used: int
    free: int | None
    whole: int | None

    @property
    def share(self) -> float | None:
        """How full it is, 0 to 1."""
        return None if not self.whole or self.free is None else min(1.0, max(0.0, 1 - self.free / self.whole))


@dataclass(frozen=True)
class Stored:
    """One storage's repository."""

    storage: str
    repository_id: str
    created_at: datetime
    backups: tuple[str, ...]
    """Ids of all that are not forgotten, the newest first."""
    forgotten: frozenset[str]
    newest: tuple[Manifest, ...]
    """The ``KIN`` newest of each type, the newest first."""
    damaged: tuple[Damaged, ...] = ()
    """Of the manifests that were to be read."""
    drills: tuple[Evidence, ...] = ()
    """The newest first."""
    condemned: tuple[datetime, ...] = ()
    """When what waits to be deleted was condemned, the oldest first."""
    leases: tuple[Lease, ...] = field(default=(), repr=False)

    def of_type(self, backup_type: BackupType) -> list[Manifest]:
        """The newest backups of that type, the newest first."""
        return [one for one in self.newest if one.type == backup_type]


def look(repository: Repository, *, enough: Callable[[], bool] = lambda: False) -> Stored:
    """Read it. ``enough`` ends the reading of records early: what was read until then is told."""
    forgotten = frozenset(repository.forgotten())
    names = [name for name in repository.names("manifest") if name not in forgotten and parse_backup_id(name)]
    names.sort(key=_moment, reverse=True)
    newest, damaged = _newest(repository, names, enough)
    return Stored(
        repository.storage.name,
        repository.id,
        datetime.fromisoformat(repository.keyring.header.created_at),
        tuple(names),
        forgotten,
        tuple(newest),
        tuple(damaged),
        tuple(_drills(repository, enough)),
        tuple(_condemned(repository)),
        tuple(repository.leases.all()),
    )


def _moment(name: str) -> tuple[datetime, str]:
    parsed = parse_backup_id(name)
    assert parsed is not None
    return parsed[1], name


def _newest(
    repository: Repository, names: Sequence[str], enough: Callable[[], bool]
) -> tuple[list[Manifest], list[Damaged]]:
    found: list[Manifest] = []
    damaged: list[Damaged] = []
    read = dict.fromkeys(BACKUP_TYPES, 0)
    for name in names:
        parsed = parse_backup_id(name)
        assert parsed is not None
        if read[parsed[0]] >= KIN:
            continue
        if enough():
            break
        read[parsed[0]] += 1
        try:
            found.append(repository.manifest(name))
        except ObjectMissing:  # forgotten and pruned meanwhile
            continue
        except Damaged as error:
            damaged.append(error)
    return sorted(found, key=lambda one: (one.started_at, one.backup_id), reverse=True), damaged


def _drills(repository: Repository, enough: Callable[[], bool]) -> list[Evidence]:
    found = []
    for name in sorted(repository.names("drill"), key=lambda name: name.rpartition("-")[2], reverse=True)[:KIN]:
        if enough():
            break
        try:
            found.append(Evidence.from_json(repository.record("drill", name), object_key("drill", name)))
        except (ObjectMissing, Damaged):  # pruned meanwhile; what is damaged proves nothing
            continue
    return found


def _condemned(repository: Repository) -> list[datetime]:
    """By the names, which begin with the time."""
    found = []
    for name in repository.names("condemned"):
        try:
            found.append(datetime.strptime(name.partition("-")[0], "%Y%m%dt%H%M%S").replace(tzinfo=UTC))
        except ValueError:
            continue
    return sorted(found)
