"""The deleting half of prune. Each step leaves the repository whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chrono_backups.errors import ObjectLocked, StorageDenied, StorageError
from chrono_backups.events import Finding, Listener, Progress, Severity
from chrono_backups.maintenance.exclusion import Claim
from chrono_backups.maintenance.locks import Locks
from chrono_backups.maintenance.marks import rows_by_pack
from chrono_backups.maintenance.survey import Survey
from chrono_backups.maintenance.wal_retention import WalVerdict
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.repository.evidence import backup_of
from chrono_backups.repository.format import object_key
from chrono_backups.repository.index import by_pack
from chrono_backups.repository.repository import Condemned, Repository

_MAY_DELETE = "Run prune with an account that may delete (docs/operations.md); backups do without."
_SMALL = 65536
_SMALL_MOST = 16
"""So many index objects of fewer than ``_SMALL`` chunks are let be; beyond, they are made into few."""
_CHUNKS_MOST = 131072
"""Chunks in a rewritten index object, about: 6 MiB, and what its making takes in memory."""


class Sweep:
    """Deletes, and counts. What the storage refuses to delete is in ``locked``; what it keeps locked is not tried."""

    def __init__(self, repository: Repository, found: Survey, held: Claim, listener: Listener, locks: Locks) -> None:
        self._locks = locks
        self._repository = repository
        self._found = found
        self._held = held
        self._listener = listener
        self.locked: list[str] = []
        self._refusal: StorageError | None = None
        self.backups_removed = 0
        self.snapshots_removed = 0
        self.leases_removed = 0
        self.packs_deleted = 0
        self.bytes_freed = 0
        self.wal_deleted = 0
        self.index_written = 0
        self.index_deleted = 0

    def _delete(self, kind: Kind, name: str) -> bool:
        key = object_key(kind, name)
        self._held.keep()
        if self._locks.until(kind, name) is not None:
            return False
        try:
            self._repository.storage.delete(key)
        except (StorageDenied, ObjectLocked) as error:
            self.locked.append(key)
            self._refusal = self._refusal or error
            return False
        return True

    def findings(self) -> tuple[Finding, ...]:
        """What the storage refused, by its first refusal."""
        if self._refusal is None:
            return ()
        count = len(self.locked)
        others = f"; in all it refused to delete {count} objects" if count > 1 else ""
        message = f"{self._refusal.message}{others}"
        subject = self._repository.storage.name
        severity: Severity = "error" if isinstance(self._refusal, StorageDenied) else "warning"
        return (Finding("delete-refused", severity, subject, message, self._refusal.hint or _MAY_DELETE),)

    def records(self, backups: Sequence[str], snapshots: Iterable[str]) -> None:
        """Remove forgotten backups: manifest, snapshots, tombstone, so that none comes in sight again."""
        removed = [name for name in backups if name not in self._found.manifests or self._delete("manifest", name)]
        self.backups_removed = len(removed)
        refused = set(backups) - set(removed)
        for name in snapshots:
            if name.rsplit("-", 2)[0] not in refused:
                self.snapshots_removed += self._delete("snapshot", name)
        pinned = set(self._repository.names("pin"))
        for name in removed:
            if name in pinned:
                self._delete("pin", name)
            self._delete("forgotten", name)
        evidence = self._repository.names("drill")  # before the manifests: a new backup's is not taken for lost
        left = set(self._repository.names("manifest"))
        for name in evidence:
            if backup_of(name) not in left:
                self._delete("drill", name)

    def wal(self, verdict: WalVerdict, names: Iterable[str]) -> None:
        """Delete archived WAL that no base backup needs."""
        archived = next(one.archived for one in self._found.wal if one.system == verdict.system_identifier)
        for number, name in enumerate(names, 1):
            if self._delete("wal", f"{verdict.system_identifier}/{name}"):
                self.wal_deleted += 1
                self.bytes_freed += archived.contents.sizes.get(name, 0)
            self._listener(Progress("prune", "wal", self.bytes_freed, number, None, len(verdict.remove)))

    def leases(self, names: Iterable[str]) -> None:
        """Remove leases that have run out."""
        for name in names:
            self.leases_removed += self._delete("lease", name)

    def packs(self, doomed: dict[bytes, int], due: Sequence[Condemned]) -> None:
        """Delete the packs (digest → size), after no index object names them; then what condemned them."""
        named = self._rewrite_index(doomed.keys())
        total = sum(doomed.values())
        left = set(doomed)
        for number, (digest, size) in enumerate(doomed.items(), 1):
            if digest not in named and self._delete("pack", digest.hex()):
                left.discard(digest)
                self.packs_deleted += 1
                self.bytes_freed += size
            self._listener(Progress("prune", "packs", self.bytes_freed, number, total, len(doomed)))
        spared = {digest for digest in self._found.stored if self._found.live[digest]}
        gone = self._found.stored.keys() - doomed.keys() - spared
        for one in due:
            # A pack that is due and neither doomed nor spared was not in the plan that was shown.
            if left.isdisjoint(one.packs) and gone.isdisjoint(one.packs):
                self._delete("condemned", one.name)
        for name in self._found.void:
            self._delete("condemned", name)

    def _rewrite_index(self, doomed: Iterable[bytes]) -> set[bytes]:
        """Take packs that go, and those that are missing, off the index; the ones that it still names.

        What else the old objects say is in new ones before the first of the old ones goes. Small ones are gathered.
        """
        # One that is locked can't go, so a new one in its place would only be one more, at each prune.
        objects = [one for one in self._found.index_objects if self._locks.until("index", one.name) is None]
        locked = [one for one in self._found.index_objects if one not in objects]
        off = {*doomed, *(digest for digest in self._found.index.packs() if digest not in self._found.stored)}
        small = [one for one in objects if one.chunks < _SMALL]
        old = [one for one in objects if not off.isdisjoint(one.packs) or (len(small) > _SMALL_MOST and one in small)]
        kept = {digest for one in (*objects, *locked) if one not in old for digest in one.packs}
        moved = {digest for one in old for digest in one.packs} - off - kept
        for batch in self._batches(moved):
            self._held.keep()
            rows = rows_by_pack(self._found.index.select(lambda pack, batch=batch: pack.digest in batch))  # type: ignore[misc]
            self._repository.put_index(by_pack(rows).values())
            self.index_written += 1
        named = {digest for one in locked for digest in one.packs}
        for one in old:
            if self._delete("index", one.name):
                self.index_deleted += 1
            else:
                named |= one.packs
        return named & off

    def _batches(self, packs: set[bytes]) -> Iterable[set[bytes]]:
        """The packs, by as many as make one index object."""
        counts: dict[bytes, int] = {}
        for table in self._found.index.tables:
            for pack, count in table.chunks_of_packs():
                if pack.digest in packs:
                    counts[pack.digest] = counts.get(pack.digest, 0) + count
        batch: set[bytes] = set()
        chunks = 0
        for digest, count in sorted(counts.items()):
            if batch and chunks + count > _CHUNKS_MOST:
                yield batch
                batch, chunks = set(), 0
            batch.add(digest)
            chunks += count
        if batch:
            yield batch
