"""The repository as other rooms use it: backups, snapshots, chunks, leases, tombstones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from weakref import WeakMethod

from chrono_backups.clock import Clock, from_text, to_text
from chrono_backups.errors import BackupMissing, Damaged, ObjectExists, ObjectMissing
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.pipeline.encryption import HEADER_SIZE, Algorithm, Kind, NotAuthentic
from chrono_backups.pipeline.packing import TRAILER, PackedChunk, directory_size, read_directory
from chrono_backups.repository.format import (
    KeySlot,
    object_key,
    open_object,
    open_record,
    prefix,
    seal_object,
    seal_record,
)
from chrono_backups.repository.index import Index, IndexTable, Pack, encode_index
from chrono_backups.repository.keyring import Keyring
from chrono_backups.repository.latest import latest
from chrono_backups.repository.leases import Leases
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import Manifest, Snapshot
from chrono_backups.repository.run_memory import RunMemory
from chrono_backups.repository.writer import ChunkWriter, PipelineOptions
from chrono_backups.storage.base import ObjectInfo, Storage
from chrono_backups.storage.cached import KeepingStorage
from chrono_backups.storage.fallback import copies

T = TypeVar("T")
_LISTINGS_MOST = 20
"""How often index objects are listed anew when one of them is gone by the time it is read."""


@dataclass(frozen=True)
class Condemned:
    """Packs that a prune found unused, and since when. Swept after a grace period, if still unused."""

    name: str
    condemned_at: datetime
    packs: tuple[bytes, ...]
    """Digests."""


class Repository:
    """One repository in one storage. A context: leaving it closes the storage."""

    def __init__(self, storage: Storage, keyring: Keyring, clock: Clock) -> None:
        self.storage = storage
        self.keyring = keyring
        self.clock = clock
        self.keys = keyring.keys()
        self.leases = Leases(storage, self.keys, clock)
        self._index: Index | None = None
        self._standing_in: list[tuple[Pack, Sequence[PackedChunk]]] = []
        """Packs whose index object is damaged: the next writer puts them into a new one."""
        self._reader: ChunkReader | None = None
        self.memory = RunMemory()

    @classmethod
    def create(cls, storage: Storage, *, algorithm: Algorithm, operator_key: bytes | None, clock: Clock) -> Repository:
        """Initialise an empty storage. Raises ``RepositoryExists``, ``KeyMissing``."""
        return cls(storage, Keyring.create(storage, algorithm, operator_key, clock), clock)

    @classmethod
    def open(cls, storage: Storage, *, operator_key: bytes | None, clock: Clock) -> Repository:
        """Raises ``RepositoryMissing``, ``KeyMissing``, ``WrongKey``, ``UnsupportedFormat`` or ``Damaged``."""
        return cls(storage, Keyring.open(storage, operator_key, clock), clock)

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End threads and connections."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self.storage.close()

    @property
    def id(self) -> str:
        """32 hexadecimal digits, the same in every replica."""
        return self.keyring.header.repository_id.hex()

    @property
    def encrypted(self) -> bool:
        return self.keyring.header.algorithm != "none"

    # Records.

    def names(self, kind: Kind) -> list[str]:
        """The names of all objects of that kind, ascending."""
        start = prefix(kind)
        return [info.key.removeprefix(start) for info in self.storage.list(start)]

    def record(self, kind: Kind, name: str) -> dict[str, Any]:
        """A sealed record. Raises ``ObjectMissing``, ``Damaged``."""
        return self._sound(object_key(kind, name), lambda stored: open_record(self.keys, kind, name, stored))

    def _sound(self, key: str, open_stored: Callable[[bytes | bytearray], T]) -> T:
        """What ``open_stored`` makes of the object, kept here or as stored, or of another storage's copy of it."""
        caches = self.storage if isinstance(self.storage, KeepingStorage) else None
        if caches is not None and (kept := caches.kept(key)) is not None:
            with suppress(Damaged):
                return open_stored(kept)
        stored = self.storage.get(key)
        try:
            made = open_stored(stored)
        except Damaged:
            for copy in copies(self.storage, key):
                with suppress(Damaged):
                    return open_stored(copy)
            raise
        if caches is not None:
            caches.keep(key, stored)
        return made

    def put_record(self, kind: Kind, name: str, record: dict[str, Any]) -> None:
        """Seal and store a record. Raises ``ObjectExists``."""
        self.storage.put(object_key(kind, name), seal_record(self.keys, kind, name, record, self.clock))

    # Backups.

    def manifest(self, name: str) -> Manifest:
        """The manifest of that id, forgotten or not. Raises ``ObjectMissing``, ``Damaged``."""
        key = object_key("manifest", name)
        manifest = Manifest.from_json(self.record("manifest", name), key)
        if manifest.backup_id != name:
            raise Damaged(f"{key} is the manifest of {manifest.backup_id}", key=key)
        return manifest

    def backup_names(self, run: str = "") -> tuple[set[str], list[str]]:
        """The ids that were forgotten, and all that have a manifest; for a ``run``, as it saw them first."""
        return self.memory.once(run, "names", lambda: (set(self.forgotten()), self.names("manifest")))

    def readable_backups(self, run: str = "") -> tuple[list[Manifest], dict[str, Damaged]]:
        """All backups that are not forgotten, newest first, and by name those whose manifest is damaged.

        For a ``run``, as it saw them first.
        """
        return self.memory.once(run, "backups", lambda: self._readable_backups(run))

    def _readable_backups(self, run: str) -> tuple[list[Manifest], dict[str, Damaged]]:
        forgotten, names = self.backup_names(run)
        found: list[Manifest] = []
        damaged: dict[str, Damaged] = {}
        for name in names:
            if name in forgotten:
                continue
            try:
                found.append(self.manifest(name))
            except ObjectMissing:  # swept meanwhile
                continue
            except Damaged as error:
                damaged[name] = error
        return sorted(found, key=lambda one: (one.started_at, one.backup_id), reverse=True), damaged

    def backups(self) -> list[Manifest]:
        """All backups that are not forgotten, newest first. Raises ``Damaged`` where one can't be read."""
        found, damaged = self.readable_backups()
        for error in damaged.values():
            raise error
        return found

    def backup(self, backup_id: str, sources: Sequence[str] = ()) -> Manifest:
        """The backup of that id; for ``latest`` see there, among those that can be read.

        Raises ``BackupMissing``.
        """
        if backup_id == "latest":
            every, _ = self.readable_backups()
            found = latest(every, sources)
            if found is not None:
                return found
            if every:
                hint = "`chrono-backups list` shows what each one holds."
                raise BackupMissing(f"no backup holds {' and '.join(sources)}", hint=hint)
            raise BackupMissing("the repository holds no backup yet", hint="Make one: chrono-backups backup")
        names = self.names("manifest")
        if backup_id in names and backup_id not in self.forgotten():
            return self.manifest(backup_id)
        near = difflib.get_close_matches(backup_id, names, n=3)
        if backup_id in names:
            raise BackupMissing(f"the backup {backup_id} was forgotten and waits for prune")
        raise BackupMissing(
            f"there is no backup {backup_id}",
            hint=f"Did you mean {' or '.join(near)}?" if near else "See `chrono-backups list`.",
        )

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """One snapshot with its listing's roots and findings. Raises ``Damaged``."""
        key = object_key("snapshot", snapshot_id)
        try:
            record = self.record("snapshot", snapshot_id)
        except ObjectMissing as error:
            raise Damaged(f"{key} is missing", key=key) from error
        snapshot = Snapshot.from_json(record, key)
        if snapshot.snapshot_id != snapshot_id:
            raise Damaged(f"{key} is the snapshot {snapshot.snapshot_id}", key=key)
        return snapshot

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store a snapshot whose chunks are all durable."""
        self.put_record("snapshot", snapshot.snapshot_id, snapshot.to_json())

    def put_manifest(self, manifest: Manifest) -> None:
        """Make a backup visible. All its snapshots are stored."""
        self.put_record("manifest", manifest.backup_id, manifest.to_json())

    # Tombstones and pins.

    def forgotten(self) -> list[str]:
        """Ids of backups that were forgotten and not yet swept."""
        return self.names("forgotten")

    def forget(self, backup_id: str, reason: str) -> None:
        """Drop a backup from sight; prune removes it. Forgetting twice is no error."""
        try:
            self.put_record("forgotten", backup_id, {"reason": reason, "at": to_text(self.clock.now())})
        except ObjectExists:
            return

    def pins(self) -> dict[str, str]:
        """Backup id → why retention must keep it."""
        return {name: self.record("pin", name)["reason"] for name in self.names("pin")}

    def pin(self, backup_id: str, reason: str) -> None:
        """Have retention keep a backup. Pinning twice is no error."""
        self.backup(backup_id)
        try:
            self.put_record("pin", backup_id, {"reason": reason, "at": to_text(self.clock.now())})
        except ObjectExists:
            return

    def unpin(self, backup_id: str) -> None:
        """Leave a backup to retention again."""
        self.storage.delete(object_key("pin", backup_id))

    # Condemned packs.

    def condemned(self) -> list[Condemned]:
        """All condemnations that were not yet carried out or lifted."""
        found = []
        for name in self.names("condemned"):
            try:
                record = self.record("condemned", name)
            except ObjectMissing:
                continue
            packs = tuple(bytes.fromhex(pack) for pack in record["packs"])
            found.append(Condemned(name, from_text(record["at"]), packs))
        return found

    def condemn(self, packs: Iterable[bytes]) -> str:
        """Note that those packs (digests) are unused; the condemnation's name."""
        name = self.unique_name()
        record = {"at": to_text(self.clock.now()), "packs": sorted(pack.hex() for pack in packs)}
        self.put_record("condemned", name, record)
        return name

    # Chunks.

    @property
    def index(self) -> Index:
        """All index objects, read at the first use, without the condemned packs for writers."""
        if self._index is None:
            self._index = self.load_index()
        return self._index

    def index_tables(self, *, pass_over_damaged: bool = False) -> list[tuple[str, IndexTable]]:
        """Name and content of every index object. Raises ``Damaged``, unless told to pass over such."""
        return self._index_tables([] if pass_over_damaged else None)

    def _index_tables(self, damaged: list[Damaged] | None) -> list[tuple[str, IndexTable]]:
        for _ in range(_LISTINGS_MOST):
            found: list[tuple[str, IndexTable]] = []
            try:
                for name in self.names("index"):
                    try:
                        found.append((name, self._index_table(name)))
                    except Damaged as error:
                        if damaged is None:
                            raise
                        damaged.append(error)
            except ObjectMissing as error:  # replaced by a prune between the listing and the reading: list again
                missing = error
            else:
                return found
        raise Damaged(f"{missing.key} is listed and missing", key=missing.key) from missing

    def _index_table(self, name: str) -> IndexTable:
        key = object_key("index", name)
        return self._sound(key, lambda stored: IndexTable(open_object(self.keys, "index", name, stored), key))

    def load_index(self) -> Index:
        """A fresh reading of all index objects.

        For one that is damaged the packs' own directories stand in: a restore must not fail for want of
        what can be read elsewhere. ``verify`` names it.
        """
        index = Index()
        damaged: list[Damaged] = []
        for _, table in self._index_tables(damaged):
            index.add(table)
        if damaged:
            self._standing_in = self._add_directories(index)
        return index

    def _add_directories(self, index: Index) -> list[tuple[Pack, Sequence[PackedChunk]]]:
        """Have the directories of the packs that the index does not know stand in for what it lacks."""
        known = {object_key("pack", pack.name) for pack in index.packs().values()}
        unknown = [info for info in self.storage.list(prefix("pack")) if info.key not in known]
        found = self._directories(unknown, silent)
        if found:
            index.add(IndexTable(encode_index(found)))
        return found

    def _widen_index(self) -> bool:
        """For readers: an index object is lost where a chunk is in no index, and its packs tell what it told."""
        return bool(self._add_directories(self.index))

    def _directories(self, packs: Iterable[ObjectInfo], listener: Listener) -> list[tuple[Pack, Sequence[PackedChunk]]]:
        """What each of those packs says that it holds. One that can't be read is left out, and named."""
        found: list[tuple[Pack, Sequence[PackedChunk]]] = []
        for info in packs:
            try:
                found.append(self.read_pack_directory(info))
            except ObjectMissing:  # swept meanwhile
                continue
            except Damaged as error:
                listener(Finding("pack-not-adopted", "warning", info.key, error.message, "`prune` removes it."))
        return found

    def put_index(self, packs: Iterable[tuple[Pack, Sequence[PackedChunk]]]) -> str:
        """Store an index object over those packs; its name."""
        name = self.unique_name()
        content = encode_index(packs)
        self.storage.put(object_key("index", name), seal_object(self.keys, "index", name, content, self.clock))
        return name

    def reload(self) -> None:
        """Forget what was read of the index: another run has written since."""
        self._standing_in = []
        if self._reader is not None:
            self._reader.close()
        self._index = self._reader = None

    @property
    def reader(self) -> ChunkReader:
        """Reads chunks; closed with the repository."""
        if self._reader is None:
            # Weakly: in a circle with its reader a repository that nobody holds any more would keep its threads.
            widen = WeakMethod(self._widen_index)
            self._reader = ChunkReader(
                self.storage, self.keys, self.index, widen=lambda: bool((own := widen()) and own())
            )
        return self._reader

    @contextmanager
    def writer(
        self,
        options: PipelineOptions,
        *,
        listener: Listener = silent,
        on_pack: Callable[[], None] = lambda: None,
        run: str = "",
    ) -> Iterator[ChunkWriter]:
        """Writes chunks, relying on what is stored as far as it is there.

        Looks over the packs first. Those that no index names are put into one, so that nothing is stored
        twice: they are of killed runs, of a run that is going on, which does no harm, or their index object
        is damaged. Chunks of packs that are missing, cut short or condemned are stored anew. In a ``run`` under one
        lease it looks once: what is condemned later, no prune sweeps before the run is over.
        """
        self.reload()
        distrusted = self.memory.once(run, "packs", lambda: self._look_over(listener))
        with ChunkWriter(
            self.storage,
            self.keys,
            self.index,
            self.clock,
            options,
            distrusted=distrusted,
            index_name=self.unique_name,
            on_pack=on_pack,
        ) as writer:
            yield writer
        self.reload()

    def _look_over(self, listener: Listener) -> set[bytes]:
        """Have the index name all packs; the packs whose chunks are not to be relied on."""
        # In this order: a pack that another run stores, or a prune sweeps, meanwhile is not taken for lost.
        condemned = {pack for one in self.condemned() for pack in one.packs}
        packs = self.index.packs()
        listed = {info.key: info for info in self.storage.list(prefix("pack"))}
        distrusted = set(condemned)
        for digest, pack in packs.items():
            info = listed.pop(object_key("pack", pack.name), None)
            if digest not in condemned and (info is None or info.size != pack.size):
                distrusted.add(digest)
                message = "is missing" if info is None else f"has {info.size} bytes instead of {pack.size}"
                hint = "Chunks of it that are still at hand are stored anew. See `chrono-backups verify`."
                listener(Finding("pack-missing", "error", object_key("pack", pack.name), message, hint))
        for digest in condemned:  # a prune may be sweeping it: no index may name it again
            listed.pop(object_key("pack", digest.hex()), None)
        standing_in = [one for one in self._standing_in if one[0].digest not in condemned]
        adopted = [*standing_in, *self._directories(listed.values(), listener)]
        if adopted:
            self.put_index(adopted)
            self.reload()
        return distrusted

    def unique_name(self) -> str:
        """A name for an object that nobody asks for by name: time, then chance."""
        return f"{self.clock.now():%Y%m%dt%H%M%S}-{self.clock.random_bytes(8).hex()}"

    def read_pack_directory(self, info: ObjectInfo) -> tuple[Pack, list[PackedChunk]]:
        """A pack's own account of what it holds, from its end. Raises ``Damaged``, ``ObjectMissing``."""
        try:
            if info.size < HEADER_SIZE + TRAILER.size:
                raise NotAuthentic("it is too short for a pack")
            header = self.storage.get(info.key, 0, HEADER_SIZE)
            sealed_size = directory_size(self.storage.get(info.key, info.size - TRAILER.size, TRAILER.size))
            start = info.size - TRAILER.size - sealed_size
            if start < HEADER_SIZE:
                raise NotAuthentic("its directory is larger than itself")
            sealed = memoryview(self.storage.get(info.key, start, sealed_size))
            rows = read_directory(self.keys, bytes(header), sealed, start)
            digest = bytes.fromhex(info.key.removeprefix(prefix("pack")))
        except (NotAuthentic, ValueError) as error:
            raise Damaged(f"{info.key} is damaged: {error}", key=info.key) from error
        return Pack(digest, bytes(header[8:]), info.size), rows

    # Keys.

    def key_slots(self) -> list[KeySlot]:
        """All key slots, by key id."""
        return self.keyring.slots()
