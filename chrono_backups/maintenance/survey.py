"""Marking: what backups in sight need, and what is stored besides. The reading half of prune; changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from chrono_backups.clock import from_text
from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Listener, Progress
from chrono_backups.identifiers import parse_backup_id
from chrono_backups.maintenance.exclusion import CLOCKS_DIFFER, has_run_out, purpose_of
from chrono_backups.maintenance.inspection import Findings, Inspector, digest_of
from chrono_backups.maintenance.listings import Listings, chunks_of_rows, raise_unavailable, read_chunks, row_chunks
from chrono_backups.maintenance.marks import NEEDED, MarkedIndex, Place
from chrono_backups.maintenance.wal_survey import ArchivedWal, archived_wal
from chrono_backups.repository.format import object_key, prefix
from chrono_backups.repository.index import IndexTable
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.recovery_points import Base, bases
from chrono_backups.repository.repository import Condemned, Repository
from chrono_backups.storage.locking import lock_days

CHOSEN = 4
"""This place of a needed chunk is the one that is kept."""
LISTING = 8
"""The chunk describes others."""


@dataclass(frozen=True)
class IndexObject:
    """What an index object covers."""

    name: str
    chunks: int
    packs: frozenset[bytes]

    @property
    def written_at(self) -> datetime | None:
        """By its name; None where that does not say."""
        try:
            return datetime.strptime(self.name.partition("-")[0], "%Y%m%dt%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            return None


@dataclass
class Survey:
    """A repository as prune sees it."""

    now: datetime
    writers: list[Lease] = field(default_factory=list)
    """Backups that go on."""
    expired: list[str] = field(default_factory=list)
    """Names of leases that nobody relies on."""
    condemned: list[Condemned] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    """Names of condemnations that can't be read: nobody can carry them out."""
    forgotten: dict[str, datetime | None] = field(default_factory=dict)
    """Tombstones, and since when; None where one can't be read."""
    manifests: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    claimed: set[str] = field(default_factory=set)
    """Snapshots of backups in sight."""
    bases: list[Base] = field(default_factory=list)
    """Of all manifests that can be read, forgotten ones too."""
    wal: list[ArchivedWal] = field(default_factory=list)
    index_objects: list[IndexObject] = field(default_factory=list)
    index: MarkedIndex = field(default_factory=lambda: MarkedIndex(()))
    stored: dict[bytes, int] = field(default_factory=dict)
    """Digest → size of every pack in the storage."""
    live: Counter[bytes] = field(default_factory=Counter)
    """Digest → bytes of chosen chunks."""
    filled: dict[bytes, int] = field(default_factory=dict)
    """Digest → bytes of all chunks: the pack's size less its header and directory."""

    def whole(self, place: Place) -> bool:
        """Whether the place's pack is stored in its size."""
        table, row = place
        pack = table.packs[table.pack[row]]
        return self.stored.get(pack.digest) == pack.size


def survey(repository: Repository, now: datetime, listener: Listener) -> Survey:
    """Read and mark. Raises ``Damaged`` where the repository is not whole; ``listener`` has all that is wrong.

    The order matters, see ``prune``: leases, then condemnations, then manifests, then the index, then the packs; and
    WAL after the manifests, whose base backups say what is kept of it.
    """
    findings = Findings(listener)
    found = Survey(now)
    _read_leases(repository, found)
    _read_condemned(repository, found, findings)
    listings = _read_backups(repository, found, findings)
    found.wal = archived_wal(repository, found.bases, listener)
    inspector = Inspector(repository, findings)
    tables = inspector.index_tables()
    found.index = MarkedIndex(tables.values())
    found.index_objects = [_index_object(name, table) for name, table in tables.items()]
    for info in repository.storage.list(prefix("pack")):
        digest = digest_of(info.key)
        if digest is not None:
            found.stored[digest] = info.size
    reader = ChunkReader(repository.storage, repository.keys, found.index)
    try:
        _mark(reader, listings, found, findings, listener)
    finally:
        reader.close()
    errors = findings.errors
    if errors:
        raise Damaged(
            f"nothing is pruned while the repository is damaged: {errors[0].subject}: {errors[0].message}"
            + (f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""),
            key=errors[0].subject,
            hint="`chrono-backups verify` says which backups that spoils. Repair, or forget those backups.",
        )
    _choose(found)
    return found


def _index_object(name: str, table: IndexTable) -> IndexObject:
    return IndexObject(name, len(table), frozenset(pack.digest for pack in table.packs))


def _read_leases(repository: Repository, found: Survey) -> None:
    locked = timedelta(days=lock_days(repository.storage))
    for lease in repository.leases.released():
        if lease.started_at + locked <= found.now:
            found.expired.append(lease.name)
    for lease in repository.leases.all():
        if has_run_out(repository, lease):
            if lease.started_at + locked <= found.now:
                found.expired.append(lease.name)
        elif purpose_of(lease) is None:
            found.writers.append(lease)


def _read_condemned(repository: Repository, found: Survey, findings: Findings) -> None:
    for name in repository.names("condemned"):
        try:
            record = repository.record("condemned", name)
            packs = tuple(bytes.fromhex(pack) for pack in record["packs"])
            found.condemned.append(Condemned(name, from_text(record["at"]), packs))
        except ObjectMissing:
            continue
        except (Damaged, KeyError, TypeError, ValueError) as error:
            found.void.append(name)
            message = f"it can't be read and is lifted: {error}"
            findings.add("condemnation-lifted", object_key("condemned", name), message, severity="warning")


def _read_backups(repository: Repository, found: Survey, findings: Findings) -> Listings:
    found.manifests = repository.names("manifest")
    for name in repository.forgotten():
        try:
            found.forgotten[name] = from_text(repository.record("forgotten", name)["at"])
        except ObjectMissing:
            continue
        except (Damaged, KeyError, TypeError, ValueError) as error:
            found.forgotten[name] = None
            findings.add("tombstone-damaged", object_key("forgotten", name), str(error), severity="warning")
    listings = Listings()
    for name in found.manifests:
        if name in found.forgotten:
            with suppress(ObjectMissing, Damaged):
                found.bases += bases([repository.manifest(name)])
            continue
        try:
            manifest = repository.manifest(name)
            found.bases += bases([manifest])
            for summary in manifest.snapshots:
                found.claimed.add(summary.snapshot_id)
                listings.add(repository.snapshot(summary.snapshot_id))
        except ObjectMissing:  # another prune removed it, and this one only plans
            continue
        except Damaged as error:
            if name not in repository.forgotten() and name in repository.names("manifest"):
                findings.damage(error)
    found.snapshots = repository.names("snapshot")
    return listings


def _mark(reader: ChunkReader, listings: Listings, found: Survey, findings: Findings, listener: Listener) -> None:
    """Mark every chunk that a backup in sight needs; each has a place in a whole pack."""
    marker = _Marker(found, findings)
    rows: set[bytes] = set()
    for chunk_id in listings.chunk_ids:
        marker.mark(chunk_id, NEEDED | LISTING)
    for done, (_, content) in enumerate(listings.read(reader, found.index), 1):
        listener(Progress("prune", "listings", 0, done, None, len(listings.chunk_ids)))
        if isinstance(content, Damaged):
            raise_unavailable(content)
            findings.damage(content)
            continue
        for segment in content:
            for chunk_id in segment.chunk_ids():
                marker.mark(chunk_id, NEEDED)
            rows.update(row_chunks(segment))
    for chunk_id in rows:
        marker.mark(chunk_id, NEEDED | LISTING)
    for _, stored in read_chunks(reader, sorted(rows), lambda one: one):
        if isinstance(stored, Damaged):
            raise_unavailable(stored)
            findings.damage(stored)
            continue
        for chunk_id in chunks_of_rows(stored):
            marker.mark(chunk_id, NEEDED)


class _Marker:
    def __init__(self, found: Survey, findings: Findings) -> None:
        self._found = found
        self._findings = findings

    def mark(self, chunk_id: bytes, mark: int) -> None:
        places = self._found.index.mark(chunk_id, mark)
        if not any(map(self._found.whole, places)):
            where = object_key("pack", places[0][0].packs[places[0][0].pack[places[0][1]]].name) if places else "index"
            self._findings.add("chunk-missing", where, f"chunk {chunk_id.hex()} is needed, and in no whole pack")


def _choose(found: Survey) -> None:
    """Of several places of a needed chunk choose one: in a pack that is not condemned, and the fullest."""
    condemned = {pack for one in found.condemned for pack in one.packs}
    needed: Counter[bytes] = Counter()
    for table, row in found.index.marked(NEEDED):
        needed[table.packs[table.pack[row]].digest] += table.sealed[row]
    for table in found.index.tables:
        filled: Counter[int] = Counter()
        for number, sealed in zip(table.pack, table.sealed, strict=True):
            filled[number] += sealed
        # A table may have a pack's rows twice, where two index objects name it.
        found.filled |= {
            table.packs[number].digest: min(size, table.packs[number].size) for number, size in filled.items()
        }

    def rank(place: Place) -> tuple[bool, float, bytes]:
        table, row = place
        pack = table.packs[table.pack[row]]
        return pack.digest in condemned, -needed[pack.digest] / pack.size, pack.digest

    for place in found.index.marked(NEEDED):
        table, row = place
        places = found.index.places(table.chunk_id(row))
        if place == places[0]:  # each chunk once
            best_table, best = min(filter(found.whole, places), key=rank)
            best_table.marks[best] |= CHOSEN
            found.live[best_table.packs[best_table.pack[best]].digest] += best_table.sealed[best]


def started_long_ago(found: Survey, snapshot_or_backup: str, age: timedelta) -> bool:
    """Whether the backup that an id speaks of was begun that long ago, whatever clock it went by."""
    parsed = parse_backup_id(snapshot_or_backup)
    return parsed is not None and parsed[1] + max(age, CLOCKS_DIFFER) <= found.now


def old_packs(found: Survey) -> Callable[[bytes], bool]:
    """Tells the packs that are of no backup which goes on: those would be condemned for nothing.

    A pack's age is that of the index objects that name it. A pack that none names may be anybody's.
    """
    if not found.writers:
        return lambda _digest: True
    earliest = min(lease.started_at for lease in found.writers) - CLOCKS_DIFFER
    old = _packs_of(one for one in found.index_objects if one.written_at is not None and one.written_at < earliest)
    return old.__contains__


def _packs_of(objects: Iterable[IndexObject]) -> set[bytes]:
    return {digest for one in objects for digest in one.packs}
