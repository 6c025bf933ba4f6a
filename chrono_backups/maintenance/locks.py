"""Locks: what the storage still keeps, and keeping locked what backups rely on.

An object is locked when it is put, for ``lock_days``. What is relied on for longer has its lock extended: every
object but the records of forgotten backups, condemned packs, and what is only of the moment (leases, condemnations).
It happens once less than half of ``lock_days`` remains, and not with every prune. To know that without asking for each
object, a *stamp* is stored when all were extended: it says until when. Whatever was put since is locked for longer than
the stamp says, by its own put.

An index object names many packs, and may not be deleted before the last of them. So one that names a condemned pack is
not extended: the rest of what it says is put into a new one first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import Damaged, ObjectMissing, StorageError
from chrono_backups.events import Listener, Progress, silent
from chrono_backups.maintenance.exclusion import Claim, claim
from chrono_backups.maintenance.inspection import Findings, Inspector, digest_of
from chrono_backups.maintenance.marks import MarkedIndex, rows_by_pack
from chrono_backups.maintenance.packs import on_threads
from chrono_backups.maintenance.survey import Survey
from chrono_backups.maintenance.wal_retention import WalVerdict, judge_wal
from chrono_backups.maintenance.wal_survey import archived_wal
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.repository.evidence import backup_of
from chrono_backups.repository.format import FOLDERS, HEADER_KEY, KEYS_FOLDER, object_key, prefix
from chrono_backups.repository.index import by_pack
from chrono_backups.repository.recovery_points import bases
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until

_THREADS = 8
_PASSING: tuple[Kind, ...] = ("lease", "condemned", "forgotten", "lock")
"""What nothing relies on for longer than it is locked for anyway."""
_OF_BACKUPS: tuple[Kind, ...] = ("manifest", "snapshot", "pin", "drill")


@dataclass(frozen=True)
class LockedObject:
    """What would be deleted, and the storage keeps."""

    key: str
    size: int
    until: datetime


class Locks:
    """Tells what is locked, asking the storage once for an object; asks nothing of a storage without locks."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.days = lock_days(storage)
        self._known: dict[str, datetime | None] = {}

    def until(self, kind: Kind, name: str) -> datetime | None:
        """When the object may be deleted; None: now."""
        if not self.days:
            return None
        key = object_key(kind, name)
        if key not in self._known:
            try:
                self._known[key] = locked_until(self._storage, key)
            except ObjectMissing:
                self._known[key] = None
        return self._known[key]


def locks_to_json(locked: Sequence[LockedObject]) -> dict[str, Any]:
    """How much is locked, and when the first and the last of it may be deleted."""
    return {
        "objects_locked": len(locked),
        "bytes_locked": sum(one.size for one in locked),
        "unlocked_from": to_text(min(one.until for one in locked)) if locked else None,
        "unlocked_until": to_text(max(one.until for one in locked)) if locked else None,
    }


class KeptByLocks:
    """Takes what is locked out of what a prune would delete, and keeps account of it in ``locked``, by key."""

    def __init__(self, found: Survey, locks: Locks) -> None:
        self._found = found
        self._locks = locks
        self.locked: dict[str, LockedObject] = {}

    def _is_kept(self, kind: Kind, name: str, size: int = 0, until: datetime | None = None) -> bool:
        until = max(filter(None, (until, self._locks.until(kind, name))), default=None)
        if until is not None:
            key = object_key(kind, name)
            self.locked[key] = LockedObject(key, size, until)
        return until is not None

    def packs(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that may go. A pack is kept by the lock of an index object that names it, too."""
        if not self._locks.days:
            return list(digests)
        named: dict[bytes, datetime] = {}
        for one in self._found.index_objects:
            until = self._locks.until("index", one.name)
            if until is not None:
                named.update((digest, max(until, named.get(digest, until))) for digest in one.packs)
        stored = self._found.stored
        return [one for one in digests if not self._is_kept("pack", one.hex(), stored[one], named.get(one))]

    def backups(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of which all records may go."""
        snapshots: dict[str, list[str]] = {}
        if self._locks.days:
            for name in self._found.snapshots:
                snapshots.setdefault(name.rsplit("-", 2)[0], []).append(name)

        def is_kept(name: str) -> bool:
            kept = name in self._found.manifests and self._is_kept("manifest", name)
            return any([kept, *(self._is_kept("snapshot", one) for one in snapshots.get(name, ()))])

        return tuple(name for name in names if not is_kept(name))

    def wal(self, verdict: WalVerdict) -> WalVerdict:
        """The verdict, without the objects that may not go."""
        if not self._locks.days or not verdict.remove:
            return verdict
        system = verdict.system_identifier
        sizes = next(one.archived.contents.sizes for one in self._found.wal if one.system == system)
        kept = [name for name in verdict.remove if self._is_kept("wal", f"{system}/{name}", sizes[name])]
        return verdict.without(kept, sizes)

    def snapshots(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those that may go."""
        return tuple(name for name in names if not self._is_kept("snapshot", name))


@dataclass(frozen=True)
class LockReport:
    """What an extension did."""

    lock_days: int
    extended: int
    """Objects; 0 where it is not time yet."""
    until: datetime | None
    """What all objects that backups rely on are locked until, at least; None in a storage without locks."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        until = to_text(self.until) if self.until else None
        return {
            "lock_days": self.lock_days,
            "extended": self.extended,
            "locked_until": until,
            "seconds": round(self.seconds, 3),
        }


def extend_locks(repository: Repository, listener: Listener = silent) -> LockReport:
    """Extend all locks, where it is time to. Raises ``RepositoryError`` while the repository is being pruned."""
    if not lock_days(repository.storage):
        return LockReport(0, 0, None)
    with claim(repository, "prune") as held:
        return extend_under(repository, held, listener)


def extend_under(repository: Repository, held: Claim, listener: Listener = silent) -> LockReport:
    """``extend_locks`` by somebody who holds the repository already."""
    days = lock_days(repository.storage)
    if not days:
        return LockReport(0, 0, None)
    started = repository.clock.monotonic()
    now = repository.clock.now()
    stamp = _newest_stamp(repository)
    if stamp is not None and stamp - now >= timedelta(days=days) / 2:
        return LockReport(days, 0, stamp)
    until = now + timedelta(days=days)
    keys = list(_relied_on(repository))

    def extend(key: str) -> bool:
        try:
            extend_lock(repository.storage, key, until)
        except ObjectMissing:  # forgotten, or removed by another hand meanwhile
            return False
        return True

    extended = 0
    with closing(on_threads(extend, keys, _THREADS)) as results:
        for number, done in enumerate(results, 1):
            held.keep()
            extended += done
            listener(Progress("lock", "objects", 0, number, None, len(keys)))
    repository.put_record("lock", repository.unique_name(), {"at": to_text(now), "until": to_text(until)})
    _drop_stamps(repository, now)
    return LockReport(days, extended, until, repository.clock.monotonic() - started)


def _newest_stamp(repository: Repository) -> datetime | None:
    """What the newest stamp says; None where there is none that can be read."""
    for name in reversed(repository.names("lock")):
        try:
            return from_text(repository.record("lock", name)["until"])
        except (Damaged, ObjectMissing, KeyError, TypeError, ValueError):
            continue
    return None


def _drop_stamps(repository: Repository, now: datetime) -> None:
    """Remove stamps that say nothing any more; the newest one stays."""
    for name in repository.names("lock")[:-1]:
        try:
            if from_text(repository.record("lock", name)["until"]) < now:
                repository.storage.delete(object_key("lock", name))
        except (Damaged, StorageError, KeyError, TypeError, ValueError):
            continue


def _relied_on(repository: Repository) -> Iterator[str]:
    """The keys of all objects to keep."""
    storage = repository.storage
    condemned = {pack for one in repository.condemned() for pack in one.packs}
    forgotten = set(repository.forgotten())
    left = _without(repository, condemned)
    wal = _wal_to_let_go(repository)
    yield HEADER_KEY
    yield from (info.key for info in storage.list(f"{KEYS_FOLDER}/"))
    for kind in FOLDERS:
        if kind in _PASSING:
            continue
        for info in storage.list(prefix(kind)):
            name = info.key.removeprefix(prefix(kind))
            backup_id = name.rsplit("-", 2)[0] if kind == "snapshot" else backup_of(name) if kind == "drill" else name
            if kind == "pack" and digest_of(info.key) in condemned:
                continue
            if (kind in _OF_BACKUPS and backup_id in forgotten) or (kind == "index" and name in left):
                continue
            if kind == "wal" and name in wal:
                continue
            yield info.key


def _wal_to_let_go(repository: Repository) -> set[str]:
    """Names of archived WAL that no base backup in sight needs any more; none while that can't be known."""
    manifests, damaged = repository.readable_backups()
    if damaged:
        return set()
    kept, now = bases(manifests), repository.clock.now()
    verdicts = [judge_wal(one.archived, kept, (), now, one.newest) for one in archived_wal(repository, kept, silent)]
    return {f"{one.system_identifier}/{name}" for one in verdicts for name in one.remove}


def _without(repository: Repository, condemned: set[bytes]) -> set[str]:
    """The index objects that name condemned packs, once others say what else they say."""
    if not condemned:
        return set()
    tables = Inspector(repository, Findings()).index_tables()
    left = {name for name, table in tables.items() if any(pack.digest in condemned for pack in table.packs)}
    said = {pack.digest for name, table in tables.items() if name not in left for pack in table.packs}
    for name in sorted(left):
        moved = {pack.digest for pack in tables[name].packs} - condemned - said
        if moved:
            index = MarkedIndex([tables[name]])
            rows = rows_by_pack(index.select(lambda pack, moved=moved: pack.digest in moved))  # type: ignore[misc]
            repository.put_index(by_pack(rows).values())
            said |= moved
    return left
