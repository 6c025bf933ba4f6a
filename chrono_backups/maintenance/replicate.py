"""Replication: a replica is the same repository in another storage, a copy of its objects.

The order keeps the replica whole at every moment: key slots, then the header (a header in sight always has a slot
that opens it), packs, index, snapshots, manifests. The header comes before the packs, so that a replica that was
begun is known as such: it opens, shows the backups that are whole, and nobody initialises another repository there.

Sides are compared by one listing for each kind of object: names and sizes. Packs are hashed, and sealed records
opened, before they are stored; what is damaged at the source is named and not copied, nor is a backup that needs
it. What is damaged in the replica in a way that its size shows is replaced.

Archived WAL comes last (``wal_copies``): all that the base backups in the replica need.

Nothing else is ever removed from the replica. What was forgotten and pruned at the source since is still there;
tombstones are copied, and the replica is pruned by a prune of its own. A backup that was forgotten in the replica
is not brought back while its tombstone is there.

It may be interrupted anywhere, and repeated: what is there is not copied again. Backups may be taken and pruned at
the source meanwhile. At the destination it takes the part of a writer, with a lease, and excludes prune.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Finding, Listener, Progress, silent
from chrono_backups.maintenance.copying import Copier
from chrono_backups.maintenance.exclusion import Claim, claim
from chrono_backups.maintenance.identity import adopt_destination
from chrono_backups.maintenance.inspection import Findings, Inspector
from chrono_backups.maintenance.marks import MarkedIndex, rows_by_pack
from chrono_backups.maintenance.needs import needed_packs, not_covered
from chrono_backups.maintenance.packs import on_threads
from chrono_backups.maintenance.wal_copies import WalCopies
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.repository.evidence import backup_of
from chrono_backups.repository.format import open_object
from chrono_backups.repository.index import IndexTable, by_pack
from chrono_backups.repository.records import Manifest, Snapshot
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage

_ROUNDS = 10
THREADS = 6
"""Objects under way at once, each of which is held whole: a storage that is far away is kept busy by several, while
others are read and proven. A pack has 17 MiB at most."""
_AHEAD = 8
_AFTER = "Repair the source or take a new backup; then replicate again."


@dataclass(frozen=True)
class ReplicationReport:
    """What was copied, and what could not be."""

    objects_copied: int
    bytes_copied: int
    objects_present: int
    """Objects that were there before."""
    seconds: float
    withheld: tuple[str, ...] = ()
    """Backups that are not in the replica because something that they need could not be copied."""
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the replica has all that was asked for."""
        return not self.withheld and not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "complete": self.ok,
            "objects_copied": self.objects_copied,
            "bytes_copied": self.bytes_copied,
            "objects_present": self.objects_present,
            "seconds": self.seconds,
            "withheld": list(self.withheld),
            "findings": [finding.to_json() for finding in self.findings],
        }


def replicate(
    repository: Repository,
    destination: Storage,
    *,
    backup_ids: Sequence[str] | None = None,
    listener: Listener = silent,
) -> ReplicationReport:
    """Copy what the destination misses: all, or what the backups of ``backup_ids`` need.

    Raises ``BackupMissing`` for an unknown id; ``RepositoryError`` where the destination holds something else, or
    is being pruned; ``StorageError`` where a storage fails.
    """
    started = repository.clock.monotonic()
    chosen = None if backup_ids is None else [repository.backup(one).backup_id for one in backup_ids]
    findings = Findings(listener)
    target = Repository(destination, repository.keyring, repository.clock)
    copier = Copier(repository, target, findings)
    adopt_destination(repository, target, copier, findings)
    with claim(target, "replicate") as held:
        run = _Replication(repository, target, copier, held, findings, listener)
        run.run(chosen)
    seconds = repository.clock.monotonic() - started
    return ReplicationReport(
        copier.objects, copier.bytes, copier.present, seconds, tuple(sorted(run.withheld)), findings.found
    )


class _Replication:
    def __init__(
        self,
        source: Repository,
        target: Repository,
        copier: Copier,
        held: Claim,
        findings: Findings,
        listener: Listener,
    ) -> None:
        self._source = source
        self._target = target
        self._copier = copier
        self._held = held
        self._findings = findings
        self._listener = listener
        self.withheld: set[str] = set()

    def run(self, chosen: Sequence[str] | None) -> None:
        """All of it. The source is listed from the top down, so that what a listed backup needs is listed too."""
        here = self._manifests(chosen)
        there = self._copier.sizes(self._target, "manifest")
        hidden = self._hidden(here, chosen)
        fresh = self._read_manifests(name for name in here if there.get(name) != here[name] and name not in hidden)
        snapshots = self._read_snapshots(fresh if chosen is None else self._read_manifests(chosen))
        index = MarkedIndex(Inspector(self._source, self._findings).index_tables().values() if snapshots else ())
        needed = None if chosen is None else self._needed(index, snapshots)
        present = self._packs(needed)
        self._index(present, needed)
        for backup_id in not_covered(self._source, index, snapshots, present):
            self._withhold(backup_id, "something that it needs is damaged or missing")
        self._records("snapshot", [one.snapshot_id for one in snapshots if one.backup_id not in self.withheld])
        if chosen is None:
            self._lost_snapshots(here, there)
        self._records("manifest", [name for name in here if name not in self.withheld and name not in hidden])
        self._marks()
        WalCopies(self._source, self._target, self._copier, self._held, self._findings, self._listener).run(
            every=chosen is None
        )

    # Backups.

    def _hidden(self, here: Collection[str], chosen: Sequence[str] | None) -> set[str]:
        """The backups that were forgotten in the replica."""
        hidden = set(self._target.forgotten())
        for name in sorted(hidden & set(here)):
            message = "it was forgotten in the replica, and is not brought back while its tombstone is there"
            self._findings.add("forgotten-in-replica", name, message, severity="info")
            if chosen is not None:
                self.withheld.add(name)
        return hidden

    def _manifests(self, chosen: Sequence[str] | None) -> dict[str, int]:
        """Name and size of the manifests to have in the replica."""
        sizes = self._copier.sizes(self._source, "manifest")
        forgotten = set(self._source.forgotten())
        return {
            name: size for name, size in sizes.items() if name not in forgotten and (chosen is None or name in chosen)
        }

    def _read_manifests(self, names: Iterable[str]) -> list[Manifest]:
        found = []
        for name in names:
            try:
                found.append(self._source.manifest(name))
            except ObjectMissing:  # forgotten and pruned meanwhile
                self.withheld.add(name)
            except Damaged as error:
                self._findings.damage(error)
                self.withheld.add(name)
        return found

    def _read_snapshots(self, manifests: Iterable[Manifest]) -> list[Snapshot]:
        found = []
        for manifest in manifests:
            for summary in manifest.snapshots:
                try:
                    found.append(self._source.snapshot(summary.snapshot_id))
                except Damaged as error:
                    self._findings.damage(error)
                    self._withhold(manifest.backup_id, error.message)
        return found

    def _withhold(self, backup_id: str, why: str) -> None:
        self.withheld.add(backup_id)
        self._findings.add("withheld", backup_id, f"it is not in the replica: {why}", _AFTER)

    # Packs.

    def _needed(self, index: MarkedIndex, snapshots: Sequence[Snapshot]) -> set[bytes]:
        """The packs that these snapshots need, as far as they can those that the replica has."""
        here = self._copier.sizes(self._source, "pack")
        there = self._copier.sizes(self._target, "pack")
        present = {bytes.fromhex(name) for name, size in there.items() if here.get(name, size) == size}
        return needed_packs(self._source, index, snapshots, present, {bytes.fromhex(name) for name in here})

    def _packs(self, needed: set[bytes] | None) -> set[bytes]:
        """Copy the packs that are needed (None: all); those that are in the replica then."""
        here = self._copier.sizes(self._source, "pack")
        if needed is not None:
            here = {name: size for name, size in here.items() if bytes.fromhex(name) in needed}
        there = self._copier.sizes(self._target, "pack")
        missing = [name for name, size in here.items() if there.get(name) != size]
        total, done = sum(here[name] for name in missing), 0

        def copy(name: str) -> bool:
            try:
                return self._copier.copy("pack", name, here[name], there.get(name))
            except ObjectMissing:  # swept at the source since it was listed
                return False

        self._copier.present += len(here) - len(missing)
        have = set(there) - set(missing)
        with closing(on_threads(copy, missing, THREADS, ahead=_AHEAD)) as results:
            for number, (name, copied) in enumerate(zip(missing, results, strict=True), 1):
                if copied:
                    have.add(name)
                self._held.keep()
                done += here[name]
                self._listener(Progress("replicate", "packs", done, number, total, len(missing)))
        return {bytes.fromhex(name) for name in have}

    # Index.

    def _index(self, present: set[bytes], needed: set[bytes] | None) -> None:
        """Copy the index objects of which all packs are in the replica; of others, make one over those that are.

        A prune of the source may replace index objects meanwhile; then the new ones are copied.
        """
        for _ in range(_ROUNDS):
            here = self._copier.sizes(self._source, "index")
            there = self._copier.sizes(self._target, "index")
            self._copier.present += sum(there.get(name) == size for name, size in here.items())
            parts: list[IndexTable] = []
            gone = False
            for name in [name for name, size in here.items() if there.get(name) != size]:
                self._held.keep()
                try:
                    table = self._index_table(name)
                    if table is not None and {pack.digest for pack in table.packs} <= present:
                        self._copier.copy("index", name, here[name], there.get(name))
                    elif table is not None:
                        parts.append(table)
                except ObjectMissing:
                    gone = True
            self._part_of_index(parts, present if needed is None else present & needed)
            if not gone:
                return

    def _index_table(self, name: str) -> IndexTable | None:
        try:
            return IndexTable(open_object(self._source.keys, "index", name, self._copier.read("index", name)))
        except Damaged as error:
            self._findings.damage(error)
            return None

    def _part_of_index(self, parts: Sequence[IndexTable], present: set[bytes]) -> None:
        """Put what these tables say of the packs that are in the replica, unless it knows them already."""
        wanted = {pack.digest for table in parts for pack in table.packs} & present
        if wanted:
            for table in Inspector(self._target, self._findings).index_tables().values():
                wanted -= {pack.digest for pack in table.packs}
        if wanted:
            rows = rows_by_pack(MarkedIndex(parts).select(lambda pack: pack.digest in wanted))
            self._target.put_index(by_pack(rows).values())
            self._copier.objects += 1

    # Records.

    def _records(self, kind: Kind, names: Iterable[str]) -> None:
        wanted = list(names)
        if not wanted:
            return
        here = self._copier.sizes(self._source, kind)
        there = self._copier.sizes(self._target, kind)

        def copy(name: str) -> None:
            with suppress(ObjectMissing):  # forgotten and pruned meanwhile
                self._copier.copy(kind, name, here[name], there.get(name))

        with closing(on_threads(copy, [name for name in wanted if name in here], THREADS)) as results:
            for _ in results:
                self._held.keep()

    def _lost_snapshots(self, here: Collection[str], there: Collection[str]) -> None:
        """Snapshots of backups that the replica has in sight and that were lost there."""
        in_sight = set(here) & set(there)
        names = self._source.names("snapshot")
        self._records("snapshot", [name for name in names if name.rsplit("-", 2)[0] in in_sight])

    def _marks(self) -> None:
        """Pins of the backups in the replica, tombstones, and evidence of drills."""
        there = set(self._target.names("manifest"))
        for kind in ("pin", "forgotten"):
            self._records(kind, [name for name in self._source.names(kind) if name in there])
        self._records("drill", [name for name in self._source.names("drill") if backup_of(name) in there])
