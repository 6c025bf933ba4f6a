"""Making sure that a destination is a replica of this repository, or may become one: header and key slots."""

from __future__ import annotations

from itertools import islice

from chrono_backups.errors import Damaged, ObjectMissing, RepositoryError
from chrono_backups.maintenance.copying import Copier
from chrono_backups.maintenance.inspection import Findings
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.repository.format import HEADER_KEY, KEYS_FOLDER, Header, KeySlot, object_key, open_object
from chrono_backups.repository.repository import Repository

_RECORDS: tuple[Kind, ...] = ("manifest", "snapshot", "index", "lease")


def adopt_destination(source: Repository, target: Repository, copier: Copier, findings: Findings) -> None:
    """Give the destination the slots and the header. Raises ``RepositoryError`` where it holds something else."""
    place = f"{target.storage.name} ({target.storage.location})"
    wanted = source.keyring.header
    header: Header | None = None
    damaged = False
    try:
        header = Header.decode(target.storage.get(HEADER_KEY))
    except ObjectMissing:
        pass
    except Damaged:
        damaged = True
    if header is not None and header.repository_id != wanted.repository_id:
        raise RepositoryError(
            f"{place} holds another repository: {header.repository_id.hex()}, not {source.id}",
            hint="A storage holds one repository. Replicate to an empty place.",
        )
    if header is None and not may_be_ours(target):
        raise RepositoryError(
            f"{place} holds objects, and no readable header of this repository",
            hint="Replicate to an empty place, or see whether the right disk is mounted.",
        )
    _copy_slots(source, target, copier, findings)
    if header is None and (not damaged or copier.replace(HEADER_KEY)):
        copier.put(HEADER_KEY, wanted.encode())


def may_be_ours(target: Repository) -> bool:
    """Whether the storage is empty but for slots and a header, or holds a record that our keys open."""
    for kind in _RECORDS:
        for name in islice(target.names(kind), 3):
            try:
                open_object(target.keys, kind, name, target.storage.get(object_key(kind, name)))
            except (Damaged, ObjectMissing):
                continue
            return True
    others = (
        info.key
        for info in target.storage.list()
        if info.key != HEADER_KEY and not info.key.startswith(f"{KEYS_FOLDER}/")
    )
    return next(others, None) is None


def _copy_slots(source: Repository, target: Repository, copier: Copier, findings: Findings) -> None:
    """Copy missing slots. One that only the replica has is named: it was perhaps removed for a reason."""
    start = f"{KEYS_FOLDER}/"
    here = {info.key for info in source.storage.list(start)}
    there = {info.key for info in target.storage.list(start)}
    for key in sorted(here):
        try:
            slot = source.storage.get(key)
            KeySlot.decode(slot, key)
        except ObjectMissing:
            continue
        except Damaged as error:
            findings.damage(error)
            continue
        if key in there and _opens(target, key):
            copier.present += 1
        elif key not in there or copier.replace(key):
            copier.put(key, slot)
    for key in sorted(there - here):
        findings.add(
            "key-lingers",
            key,
            f"{target.storage.name} can still be opened with this key, which the source does not know (any more)",
            "If it was removed at the source, remove it there as well: `chrono-backups key remove --storage …`.",
            "warning",
        )


def _opens(target: Repository, key: str) -> bool:
    """Whether the replica's slot is whole, and one of this repository."""
    try:
        return KeySlot.decode(target.storage.get(key), key).header == target.keyring.header
    except (Damaged, ObjectMissing):
        return False
