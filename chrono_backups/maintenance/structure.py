"""What backups are made of, followed from their manifests down to every chunk's place, without reading content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.maintenance.inspection import HINT, Findings, Inspector, digest_of
from chrono_backups.maintenance.listings import Listings, read_chunks, row_chunks
from chrono_backups.maintenance.marks import LOST, NEEDED, MarkedIndex
from chrono_backups.pipeline.encryption import HEADER_SIZE
from chrono_backups.pipeline.packing import TRAILER
from chrono_backups.repository.format import object_key, open_record, prefix
from chrono_backups.repository.index import Pack
from chrono_backups.repository.listing import Extent, Segment, decode_extents, order
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import Manifest, Snapshot
from chrono_backups.repository.repository import Repository


class PackFault(NamedTuple):
    """What is wrong with a pack, before it is known what that spoils."""

    digest: bytes
    code: str
    message: str


class Structure:
    """Reads records, index, the list of packs and all listings, in an order that running backups don't upset.

    Manifests come before the index and the index before the packs: what a manifest needs was stored before it.
    """

    def __init__(
        self,
        repository: Repository,
        inspector: Inspector,
        backup_id: str | None,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._repository = repository
        self._inspector = inspector
        self._findings: Findings = inspector.findings
        self.backup_id = backup_id
        self._progress = progress
        self.index = MarkedIndex(())
        self.stored: dict[bytes, int] = {}
        """Digest and size of every pack in the storage."""
        self.listings = Listings()
        self.faults: list[PackFault] = []
        self.nowhere: set[bytes] = set()
        """Needed chunks that the index does not know."""
        self._unread: set[str] = set()
        """Backups in sight whose manifest can't be read."""
        self._bounds: dict[int, tuple[bytes, bytes]] = {}

    @property
    def chunks(self) -> int:
        """How many places of chunks backups rely on."""
        return sum(1 for _ in self.index.marked(NEEDED))

    def reader(self) -> ChunkReader:
        """Reads chunks by this index; the caller closes it."""
        return ChunkReader(self._repository.storage, self._repository.keys, self.index)

    def read(self) -> None:
        """All of it."""
        self._backups()
        tables = self._inspector.index_tables()
        self.index = MarkedIndex(tables.values())
        self._check_tables()
        self._packs()
        reader = self.reader()
        try:
            self._follow(reader)
        finally:
            reader.close()
        self._check_order()

    # Backups.

    def _backups(self) -> None:
        forgotten = set(self._repository.forgotten())
        names = self._repository.names("manifest") if self.backup_id is None else [self._chosen()]
        visible = [name for name in names if name not in forgotten]
        needed: dict[str, str] = {}
        manifests = self._inspector.each(visible, self._manifest)
        self._unread = set(visible) - manifests.keys()
        for name, manifest in manifests.items():
            needed.update((summary.snapshot_id, name) for summary in manifest.snapshots)
        self._inspector.each([name for name in names if name in forgotten], self._manifest, relied_on=False)
        others = self._repository.names("snapshot") if self.backup_id is None else []
        self._check_claimed(others, {*names, *forgotten})
        every = list(dict.fromkeys((*needed, *others)))
        for done, name in enumerate(every, 1):
            self._progress("snapshots", done, len(every))
            self._snapshot(name, needed.get(name))

    def _check_claimed(self, snapshots: Iterable[str], known: set[str]) -> None:
        """Name snapshots of which no manifest speaks: of killed runs, or what is left of a lost manifest."""
        unclaimed = [name for name in snapshots if _backup_of(name) not in known]
        if not unclaimed:
            return
        # Looked up in this order: a backup lets its lease go when its manifest is there.
        known |= {lease.partition(".")[0] for lease in self._repository.leases.names()}
        known |= set(self._repository.names("manifest"))
        for name in unclaimed:
            if _backup_of(name) not in known:
                message = f"no manifest names it: {_backup_of(name)} was not finished, or its manifest is lost"
                hint = "`prune` removes it. If the backup was once listed, copy its manifest from a replica."
                self._findings.add("unclaimed", object_key("snapshot", name), message, hint, "warning")

    def _chosen(self) -> str:
        assert self.backup_id is not None
        return self._repository.backup(self.backup_id).backup_id if self.backup_id == "latest" else self.backup_id

    def _manifest(self, name: str) -> Manifest:
        key = object_key("manifest", name)
        record = open_record(self._repository.keys, "manifest", name, self._inspector.get(key))
        manifest = Manifest.from_json(record, key)
        if manifest.backup_id != name:
            raise Damaged(f"{key} is the manifest of {manifest.backup_id}", key=key)
        return manifest

    def _snapshot(self, name: str, backup_id: str | None) -> None:
        key = object_key("snapshot", name)
        try:
            record = open_record(self._repository.keys, "snapshot", name, self._inspector.get(key))
            snapshot = Snapshot.from_json(record, key)
            if snapshot.snapshot_id != name or backup_id not in {None, snapshot.backup_id}:
                raise Damaged(f"{key} is the snapshot {snapshot.snapshot_id} of {snapshot.backup_id}", key=key)
        except ObjectMissing:
            if backup_id is not None and backup_id in self._in_sight():
                self._findings.add("missing", key, f"it is missing, and spoils {backup_id}", HINT)
        except Damaged as error:
            if backup_id is None:
                self._findings.damage(error, relied_on=_backup_of(name) in self._unread)
            else:
                self._findings.add("damaged", key, f"{error.message}; it spoils {backup_id}", HINT)
        else:
            if backup_id is not None:
                self.listings.add(snapshot)

    def _in_sight(self) -> set[str]:
        return set(self._repository.names("manifest")) - set(self._repository.forgotten())

    # Index and packs.

    def _check_tables(self) -> None:
        """Every chunk lies within its pack."""
        sizes: dict[bytes, int] = {}
        for table in self.index.tables:
            for pack in table.packs:
                if sizes.setdefault(pack.digest, pack.size) != pack.size:
                    self.faults.append(PackFault(pack.digest, "index", "two index objects give it two sizes"))
            ends = [pack.size - TRAILER.size for pack in table.packs]
            for number, offset, sealed in zip(table.pack, table.offset, table.sealed, strict=True):
                if offset < HEADER_SIZE or offset + sealed > ends[number]:
                    self.faults.append(
                        PackFault(table.packs[number].digest, "index", f"the index has a chunk beyond it, at {offset}")
                    )

    def _packs(self) -> None:
        """Find the packs that are missing or not in their size, and mark what that loses."""
        for info in self._repository.storage.list(prefix("pack")):
            digest = digest_of(info.key)
            if digest is None:
                hint = "Nothing of ours needs it."
                self._findings.add("stray", info.key, "it has no name of a pack", hint, "warning")
            else:
                self.stored[digest] = info.size
        present: dict[bytes, int] = {}
        for digest, pack in self.index.packs().items():
            size = self.stored.get(digest)
            if size is None and self._is_there(pack):
                size = self.stored[digest] = pack.size  # stored since the list was read
            if size == pack.size:
                continue
            present[digest] = size or 0
            if size is None:
                self.faults.append(PackFault(digest, "missing", "it is missing"))
            else:
                self.faults.append(PackFault(digest, "damaged", f"it has {size} bytes instead of {pack.size}"))
        for table, row in self.index.select(lambda pack: pack.digest in present):
            if table.offset[row] + table.sealed[row] > present[table.packs[table.pack[row]].digest]:
                table.marks[row] |= LOST

    def _is_there(self, pack: Pack) -> bool:
        try:
            return self._repository.storage.info(object_key("pack", pack.name)).size == pack.size
        except ObjectMissing:
            return False

    def packs_to_prove(self) -> dict[bytes, int]:
        """Digest and size of the packs whose bytes matter: all, or those that the one backup needs."""
        if self.backup_id is None:
            return self.stored
        needed = {table.packs[table.pack[row]].digest for table, row in self.index.marked(NEEDED)}
        return {digest: size for digest, size in self.stored.items() if digest in needed}

    # Listings.

    def _follow(self, reader: ChunkReader) -> None:
        """Mark every chunk that backups need."""
        rows: set[bytes] = set()
        total = len(self.listings.chunk_ids)
        for chunk_id in self.listings.chunk_ids:
            self._need(chunk_id)
        for done, (number, content) in enumerate(self.listings.read(reader, self.index), 1):
            self._progress("listings", done, total)
            if isinstance(content, Damaged):
                self._unreadable(self.listings.chunk_ids[number], content)
                continue
            try:
                self._bounds[number] = self._check(content)
                for segment in content:
                    rows.update(row_chunks(segment))
            except (Damaged, ValueError, IndexError, KeyError) as error:
                self._malformed(number, error)
        for chunk_id, stored_rows in read_chunks(reader, sorted(rows), lambda one: one):
            if isinstance(stored_rows, Damaged):
                self._unreadable(chunk_id, stored_rows)
            else:
                self._check_extents(decode_extents(stored_rows))

    def _need(self, chunk_id: bytes) -> int:
        """Mark the chunk as needed; its size, or 0 where the index does not know it."""
        places = self.index.mark(chunk_id, NEEDED)
        if not places:
            self.nowhere.add(chunk_id)
            return 0
        table, row = places[0]
        return table.size[row]

    def _unreadable(self, chunk_id: bytes, error: Damaged) -> None:
        """A listing or extent rows that can't be had from any of its places."""
        for table, row in self.index.mark(chunk_id, LOST):
            self.faults.append(PackFault(table.packs[table.pack[row]].digest, "damaged", error.message))

    def _check(self, content: list[Segment]) -> tuple[bytes, bytes]:
        """The first and last path of a listing chunk, once its segments are found to be well-formed."""
        paths = []
        for segment in content:
            if len(segment.names) != len(segment):
                raise ValueError(f"{len(segment.names)} names for {len(segment)} entries")
            for chunk_id in segment.chunk_ids():
                self._need(chunk_id)
            for position in range(len(segment)):
                self._check_extents(segment.extents(position))
            paths.append(order(segment.path))
        if not paths or sorted(paths) != paths:
            raise ValueError("its segments are not in order")
        return paths[0], paths[-1]

    def _check_extents(self, extents: Iterable[Extent]) -> None:
        for extent in extents:
            if extent.chunk_id is not None:
                size = self._need(extent.chunk_id)
                if size and extent.offset + extent.length > size:
                    raise ValueError(f"an extent ends beyond its chunk {extent.chunk_id.hex()}")

    def _malformed(self, number: int, error: Exception) -> None:
        for holder in self.listings.held_by({number}):
            key = object_key("snapshot", holder.snapshot_id)
            self._findings.add("malformed", key, f"its listing is malformed: {error}; it spoils {holder.backup_id}")

    def _check_order(self) -> None:
        """The listing chunks of each snapshot follow one another as it says."""
        for holder in self.listings.holders:
            known = [number for number in holder.listing if number in self._bounds]
            bounds = [self._bounds[number] for number in known]
            firsts = [order(self.listings.first_paths[number]) for number in known]
            ordered = all(before[1] <= after[0] for before, after in pairwise(bounds))
            if not ordered or firsts != [bound[0] for bound in bounds]:
                key = object_key("snapshot", holder.snapshot_id)
                self._findings.add("malformed", key, f"its listing is not in order; it spoils {holder.backup_id}")


def _backup_of(snapshot_id: str) -> str:
    return snapshot_id.rsplit("-", 2)[0]
