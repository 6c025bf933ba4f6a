"""Healing: what is damaged or missing in one storage is put back from another one that has it whole.

An object has the same name and the same bytes in every storage of a repository, so nothing but the name is needed: a
pack is hashed, and every other object opened, before it is believed. Where no storage has it:

* an index object is made anew from its packs' own directories;
* a pack's chunks are looked for in other packs of the other storages, as a prune of theirs may have moved them; those
  packs are copied, with an index object over them.

A storage replaces nothing, so a damaged object is deleted and then put. Killed between the two, it is missing, and the
next verification names it: a pack by the index, a snapshot by its manifest, a manifest by its snapshots, which nobody
claims then, and of an index object the packs that it named. What the storage keeps locked can't be mended before its
time, and is said to be so; whoever restores is given it from the other storage meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chrono_backups.errors import (
    Damaged,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    StorageDenied,
    StorageError,
)
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.maintenance.copying import Copier
from chrono_backups.maintenance.exclusion import Claim, claim
from chrono_backups.maintenance.inspection import Findings, Inspector, digest_of
from chrono_backups.maintenance.verify import VerifyReport, verify
from chrono_backups.maintenance.wal_copies import WalCopies
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.pipeline.packing import PackedChunk, pack_digest
from chrono_backups.repository.format import (
    FOLDERS,
    HEADER_KEY,
    KEYS_FOLDER,
    Header,
    KeySlot,
    object_key,
    open_object,
    prefix,
)
from chrono_backups.repository.index import Location, Pack, by_pack
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.storage.base import ObjectInfo

_ROUNDS = 4
"""A mended index object or listing may bring further damage to light."""


@dataclass(frozen=True)
class HealReport:
    """What was mended, and the verification that came after."""

    repaired: tuple[Finding, ...]
    """One for each object that is whole again; the message says where it was taken from."""
    unrepaired: tuple[Finding, ...]
    """What could not be mended, and why."""
    verified: VerifyReport

    def to_json(self) -> dict[str, Any]:
        return {
            "repaired": [finding.to_json() for finding in self.repaired],
            "unrepaired": [finding.to_json() for finding in self.unrepaired],
        }


def heal(
    repository: Repository,
    others: Sequence[Repository],
    *,
    backup_id: str | None = None,
    full: bool = False,
    listener: Listener = silent,
) -> HealReport:
    """Verify, mend what is wrong from ``others``, and verify again, until nothing more can be mended.

    Raises ``RepositoryError`` while the repository is being pruned, and what ``verify`` raises. ``listener`` hears of
    each repair.
    """
    healer = _Healer(repository, others, listener)
    healer.header()
    report = verify(repository, backup_id=backup_id, full=full, listener=listener)
    for _ in range(_ROUNDS):
        wrong = [one.subject for one in report.findings if one.severity == "error" or one.code == "unclaimed"]
        if not wrong or not healer.mend(wrong):
            break
        repository.reload()
        report = verify(repository, backup_id=backup_id, full=full, listener=listener)
    if backup_id is None and healer.wal():
        report = verify(repository, full=full, listener=listener)
    left = {finding.subject for finding in report.findings}
    unrepaired = tuple(one for one in healer.unrepaired.values() if one.subject in left)
    return HealReport(tuple(healer.repaired.values()), unrepaired, report)


class _Healer:
    def __init__(self, repository: Repository, others: Sequence[Repository], listener: Listener) -> None:
        self._repository = repository
        self._others = others
        self._listener = listener
        self.repaired: dict[str, Finding] = {}
        self.unrepaired: dict[str, Finding] = {}

    def header(self) -> None:
        """Put back the header, which is in memory once a repository is open."""
        header = self._repository.keyring.header
        try:
            if Header.decode(self._repository.storage.get(HEADER_KEY)) == header:
                return
        except (Damaged, ObjectMissing):
            pass
        if self._replace(HEADER_KEY, header.encode()):
            self._note(HEADER_KEY, "it was put back")

    def wal(self) -> bool:
        """Put back archived WAL that base backups here need and another storage has; whether there was any."""
        before = len(self.repaired)
        if not any(WalArchive.systems(other) for other in self._others):
            return False
        with claim(self._repository, "repair") as held:
            for other in self._others:
                findings = Findings()
                copier = Copier(other, self._repository, findings)
                for key in WalCopies(other, self._repository, copier, held, findings).run(every=False):
                    self._note(key, f"it was missing, and was put back from {other.storage.name}")
        return len(self.repaired) > before

    def mend(self, subjects: Sequence[str]) -> bool:
        """Mend the objects that are named; whether anything was."""
        before = len(self.repaired)
        for key in [key for key in subjects if key.startswith(prefix("lease"))]:
            self._drop(key, "it told nothing any more, and was dropped; a backup that held it is to be repeated")
        with claim(self._repository, "repair") as held:
            # Manifests last: as long as one is damaged its snapshots have it known for lost, should this be killed.
            for key in sorted(dict.fromkeys(subjects), key=lambda key: key.startswith(prefix("manifest"))):
                held.keep()
                if key not in self.repaired:
                    self._mend(key)
            self._index(held, subjects)
        return len(self.repaired) > before

    def _mend(self, key: str) -> None:
        kind, name = _kind_and_name(key)
        if key.startswith(f"{KEYS_FOLDER}/"):
            self._slot(key)
        if kind is None or kind == "lease":
            return
        if kind == "snapshot":  # perhaps nothing is wrong with it but that its manifest is lost
            self._lost_manifest(name.rsplit("-", 2)[0])
        if self._sound_here(kind, name):
            return
        if kind in {"condemned", "lock"}:
            self._drop(key, "it was dropped: the next prune makes it anew")
            return
        for other in self._others:
            stored = self._sound(other, kind, name)
            if stored is not None:
                if self._replace(key, stored):
                    self._note(key, f"it was put back from {other.storage.name}")
                return
        if kind == "pack" and self._chunks_elsewhere(bytes.fromhex(name)):
            return
        if kind != "index":
            self._fail(key, "no other storage has it whole")

    def _slot(self, key: str) -> None:
        """Put back a key slot that is damaged, or that of the key in use."""
        for other in self._others:
            try:
                slot = other.storage.get(key)
                if KeySlot.decode(slot, key).header != self._repository.keyring.header:
                    continue
            except (Damaged, StorageError):
                continue
            if self._replace(key, slot):
                self._note(key, f"it was put back from {other.storage.name}")
            return
        self._fail(key, "no other storage has it whole", "Add its key anew: `chrono-backups key add`.")

    def _lost_manifest(self, backup_id: str) -> None:
        key = object_key("manifest", backup_id)
        if backup_id in self._repository.forgotten() or backup_id in self._repository.names("manifest"):
            return
        for other in self._others:
            if backup_id in other.forgotten():
                continue
            stored = self._sound(other, "manifest", backup_id)
            if stored is not None and self._replace(key, stored):
                self._note(key, f"it was missing, and was put back from {other.storage.name}")
                return

    # Objects.

    def _sound_here(self, kind: Kind, name: str) -> bool:
        return self._sound(self._repository, kind, name) is not None

    def _sound(self, repository: Repository, kind: Kind, name: str) -> bytes | bytearray | None:
        """The object as that repository has it; None where it is damaged, missing or can't be had."""
        key = object_key(kind, name)
        try:
            stored = repository.storage.get(key)
            if kind == "pack":
                return stored if pack_digest(stored).hex() == name else None
            open_object(repository.keys, kind, name, stored)
        except (Damaged, StorageError):
            return None
        return stored

    def _replace(self, key: str, stored: bytes | bytearray) -> bool:
        """Put a sound object in the place of a damaged or missing one; whether it could be."""
        storage = self._repository.storage
        try:
            storage.delete(key)
            storage.put(key, stored)
        except ObjectLocked as error:
            self._fail(
                key,
                f"the damaged object is locked until {error.until:%Y-%m-%d %H:%M} UTC, and can't be replaced before",
                "Restores read it from the other storage meanwhile. Repair again after that time.",
            )
            return False
        except StorageDenied as error:
            self._fail(key, f"the damaged object may not be replaced: {error.message}", error.hint)
            return False
        except ObjectExists:  # somebody else put it back
            return True
        return True

    # Chunks and the index.

    def _chunks_elsewhere(self, digest: bytes) -> bool:
        """Copy packs of the others that hold what is lost with this one; whether all of it could be had."""
        wanted = {chunk_id for chunk_id, place in self._repository.index.chunks() if place.pack.digest == digest}
        wanted -= {
            chunk_id
            for chunk_id in wanted
            if any(place.pack.digest != digest for place in self._repository.index.find_all(chunk_id))
        }
        if not wanted:
            return False
        for other in self._others:
            found = _places(other, wanted, digest)
            for pack in found:
                stored = self._sound(other, "pack", pack.hex())
                if stored is None:
                    continue
                with suppress(ObjectExists):
                    self._repository.storage.put(object_key("pack", pack.hex()), stored)
                rows = [one for one in other.index.chunks() if one[1].pack.digest == pack]
                self._repository.put_index(by_pack(rows).values())
                wanted -= {chunk_id for chunk_id, _ in rows}
                self._note(prefix("pack") + pack.hex(), f"its chunks stand in for lost ones; from {other.storage.name}")
            if not wanted:
                return True
        return False

    def _index(self, held: Claim, subjects: Sequence[str]) -> None:
        """Make an index object over the packs that none names, where one is damaged or lost; then drop damaged ones."""
        damaged = [key for key in subjects if key.startswith(prefix("index")) and key not in self.repaired]
        damaged = [key for key in damaged if not self._sound_here("index", key.removeprefix(prefix("index")))]
        unindexed = any(key.startswith(prefix("pack")) for key in subjects)
        if not damaged and not unindexed:
            return
        findings = Findings()
        tables = Inspector(self._repository, findings).index_tables()
        known = {pack.digest for table in tables.values() for pack in table.packs}
        listed = list(self._repository.storage.list(prefix("pack")))
        condemned = {pack for one in self._repository.condemned() for pack in one.packs}
        rows: list[tuple[Pack, list[PackedChunk]]] = []
        for info in listed:
            digest = digest_of(info.key)
            if digest is not None and digest not in known and digest not in condemned:
                held.keep()
                rows += self._directory(info)
        if rows:
            key = object_key("index", self._repository.put_index(rows))
            self._note(key, f"it was made anew from the directories of {len(rows)} packs")
        for one in damaged:
            self._drop(one, "it was damaged, and was dropped: others say what it said")

    def _directory(self, info: ObjectInfo) -> list[tuple[Pack, list[PackedChunk]]]:
        try:
            return [self._repository.read_pack_directory(info)]
        except (Damaged, ObjectMissing):
            return []

    def _drop(self, key: str, message: str) -> None:
        """Delete a damaged object that nobody needs."""
        try:
            self._repository.storage.delete(key)
        except StorageDenied as error:
            self._fail(key, f"it may not be deleted: {error.message}", error.hint)
        except ObjectLocked as error:
            self._fail(key, f"it is locked until {error.until:%Y-%m-%d %H:%M} UTC", error.hint)
        else:
            self._note(key, message)

    # What is told.

    def _note(self, key: str, message: str) -> None:
        if key not in self.repaired:
            self.repaired[key] = Finding("repaired", "info", key, message)
            self._listener(self.repaired[key])

    def _fail(self, key: str, message: str, hint: str = "") -> None:
        hint = hint or "Take a full backup: what the sources still hold is stored anew."
        self.unrepaired[key] = Finding("not-repaired", "error", key, message, hint)


def _places(other: Repository, wanted: set[bytes], without: bytes) -> list[bytes]:
    """The packs of another storage that hold these chunks, none of them twice."""
    packs: dict[bytes, None] = {}
    places: list[Location]
    for chunk_id in wanted:
        places = [place for place in other.index.find_all(chunk_id) if place.pack.digest != without]
        if places and not any(place.pack.digest in packs for place in places):
            packs[places[0].pack.digest] = None
    return list(packs)


def _kind_and_name(key: str) -> tuple[Kind | None, str]:
    """What an object's key says; no kind for the header, a key slot and what is no key."""
    folder, _, name = key.partition("/")
    if folder == KEYS_FOLDER:
        return None, name
    return next((kind for kind, known in FOLDERS.items() if known == folder and name), None), name
