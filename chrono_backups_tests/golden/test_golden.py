"""What earlier releases wrote opens and restores; what is damaged gives the one error it must give."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import (
    ChronoBackupsError,
    Damaged,
    KeyMissing,
    RepositoryMissing,
    UnsupportedFormat,
    WrongKey,
)
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import hard_links, in_repository, snapshot_of
from chrono_backups_tests.golden.independent_reader import IndependentReader
from chrono_backups_tests.golden.make_golden import HERE, KEY, REPOSITORIES, SECOND_KEY, described

NAMES = sorted(REPOSITORIES)
FULL, LATER = "full_20260102_030405", "incremental_20260102_040405"


def loaded(name: str) -> MemoryStorage:
    storage = MemoryStorage()
    for path in sorted((HERE / name).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            storage.put(str(path.relative_to(HERE / name)), path.read_bytes())
    return storage


def opened(name: str, storage: MemoryStorage | None = None, key: bytes | None = KEY) -> Repository:
    return Repository.open(storage or loaded(name), operator_key=key, clock=FrozenClock())


def expected(name: str) -> dict[str, Any]:
    return json.loads((HERE / f"{name}.json").read_text())  # type: ignore[no-any-return]


def only_golden(entries: list[dict[str, object]]) -> list[dict[str, object]]:
    start = b"tmp/chrono-backups-golden".hex()
    return [entry for entry in entries if str(entry["path"]).startswith(start)]


@pytest.mark.parametrize("name", NAMES)
def test_every_backup_restores(name: str) -> None:
    repository = opened(name)
    wanted = expected(name)
    assert repository.forgotten() == wanted.pop("forgotten")
    assert [manifest.backup_id for manifest in repository.backups()] == [LATER, FULL]
    for backup_id, entries in wanted.items():
        snapshot = snapshot_of(repository, repository.backup(backup_id))
        assert only_golden(described(in_repository(repository, snapshot))) == entries
        start = b"tmp/chrono-backups-golden/"
        assert hard_links(repository, snapshot) == {start + b"hard link": start + b"a-b"}


@pytest.mark.parametrize("name", NAMES)
def test_every_record_opens(name: str) -> None:
    repository = opened(name)
    later = repository.manifest(LATER)
    assert (later.type, later.status, later.trigger) == ("incremental", "complete", "test")
    summary = later.snapshots[0]
    assert (summary.source, summary.effective, summary.reason) == ("files", "incremental", "")
    snapshot = repository.snapshot(summary.snapshot_id)
    assert snapshot.parent == repository.manifest(FULL).snapshots[0].snapshot_id
    assert snapshot.statistics == summary.statistics
    assert snapshot.facts["paths"] == ["/tmp/chrono-backups-golden"]
    assert repository.pins() == {FULL: "an example"}
    assert [one.packs for one in repository.condemned()] == [(bytes(range(32)),)]
    (lease,) = repository.leases.all()
    assert lease.holder == "full_20260102_060405"
    if repository.encrypted:
        assert opened(name, key=SECOND_KEY).id == repository.id
        assert {slot.label for slot in repository.key_slots()} == {"first key", "the second key"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_index", [True, False], ids=["index", "packs alone"])
def test_the_document_is_enough_to_read_it(name: str, by_index: bool) -> None:
    reader = IndependentReader(HERE / name, KEY)
    if by_index:
        reader.read_index()
    else:
        reader.read_pack_directories()
    wanted = expected(name)
    wanted.pop("forgotten")
    for backup_id, entries in wanted.items():
        manifest = reader.record("manifest", backup_id)
        found: list[dict[str, object]] = [
            {
                "path": entry["path"].hex(),
                "mode": entry["mode"],
                "owner": [entry["uid"], entry["gid"]],
                "mtime": entry["mtime"],
                "size": entry["size"],
                "sha256": hashlib.sha256(entry["content"]).hexdigest(),
                "link": entry["extra"].get("link"),
                "xattrs": [[key, value] for key, value in sorted(entry["extra"].get("xattrs", {}).items())],
            }
            for entry in reader.entries(manifest["snapshots"][0]["snapshot_id"])
        ]
        assert only_golden(sorted(found, key=lambda entry: bytes.fromhex(str(entry["path"])))) == entries
    for kind in ("pin", "lease", "condemned", "forgotten"):
        folder = {"pin": "pins", "lease": "leases"}.get(kind, kind)
        for record in reader.names(folder):
            assert reader.record(kind, record)


def test_the_golden_repositories_use_what_the_format_offers() -> None:
    """Holes, extent rows, hard links, attributes, both codecs: or the tests above would prove less."""
    repository = opened("aes-zstd")
    codecs = set()
    for name in NAMES:
        reader = IndependentReader(HERE / name, KEY)
        reader.read_index()
        for chunk_id, (pack, offset, sealed, _) in reader.places.items():
            stored = reader.get(f"packs/{pack}")
            codecs.add((name, reader.frame("pack", stored[:40], offset, chunk_id, stored[offset : offset + sealed])[0]))
    assert {("aes-zstd", 1), ("chacha-gzip", 2), ("plain-none", 0)} <= codecs
    reader = IndependentReader(HERE / "aes-zstd", KEY)
    reader.read_index()
    extras = [entry["extra"] for entry in reader.entries(repository.manifest(FULL).snapshots[0].snapshot_id)]
    assert {key for extra in extras for key in extra} == {"link", "hard", "xattrs", "indirect"}
    assert sum(os.path.getsize(path) for path in HERE.rglob("*") if path.is_file()) < 300_000


# Damage.


def first(storage: MemoryStorage, folder: str) -> str:
    return next(key for key in sorted(storage.objects) if key.startswith(folder))


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0x01
    return bytes(changed)


def read_everything(storage: MemoryStorage, key: bytes | None = KEY) -> None:
    repository = opened("", storage, key)
    for manifest in repository.backups():
        for summary in manifest.snapshots:
            in_repository(repository, repository.snapshot(summary.snapshot_id))
    repository.index_tables()  # for a damaged one the packs stand in, so it is looked at by itself


def reclosed(stored: bytes, magic: bytes, **changes: Any) -> bytes:
    """A header or slot with other fields and a checksum that fits."""
    record = {**json.loads(stored[len(magic) : -32]), **changes}
    body = magic + json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return body + hashlib.sha256(body).digest()


def damage_header(storage: MemoryStorage, **changes: Any) -> str:
    storage.objects["repository"] = reclosed(storage.objects["repository"], b"CHRONO BACKUPS\n", **changes)
    return "repository"


def drop(folder: str) -> Callable[[MemoryStorage], str]:
    def damage(storage: MemoryStorage) -> str:
        key = first(storage, folder)
        del storage.objects[key]
        return key

    return damage


def cut(folder: str, keep: int) -> Callable[[MemoryStorage], str]:
    def damage(storage: MemoryStorage) -> str:
        key = first(storage, folder)
        storage.objects[key] = storage.objects[key][:keep]
        return key

    return damage


def flip(folder: str, position: int) -> Callable[[MemoryStorage], str]:
    def damage(storage: MemoryStorage) -> str:
        key = first(storage, folder)
        storage.objects[key] = flipped(storage.objects[key], position)
        return key

    return damage


def swap(folder: str) -> Callable[[MemoryStorage], str]:
    """Two objects of one kind in each other's place."""

    def damage(storage: MemoryStorage) -> str:
        one, other = [key for key in sorted(storage.objects) if key.startswith(folder)][:2]
        storage.objects[one], storage.objects[other] = storage.objects[other], storage.objects[one]
        return one

    return damage


def no_packs(storage: MemoryStorage) -> str:
    for key in [key for key in storage.objects if key.startswith("packs/")]:
        del storage.objects[key]
    return "packs/"


DAMAGES: list[tuple[str, Callable[[MemoryStorage], str], type[ChronoBackupsError], str]] = [
    ("header gone", drop("repository"), RepositoryMissing, ""),
    ("header cut", cut("repository", 50), Damaged, "repository"),
    ("header empty", cut("repository", 0), Damaged, "repository"),
    ("header flipped", flip("repository", 30), Damaged, "repository"),
    ("format 2", lambda s: damage_header(s, format=2), UnsupportedFormat, ""),
    ("unknown algorithm", lambda s: damage_header(s, algorithm="ROT13"), Damaged, "repository"),
    ("another algorithm", lambda s: damage_header(s, algorithm="CHACHA20-POLY1305"), Damaged, "keys/"),
    ("another id", lambda s: damage_header(s, id="00" * 16), Damaged, "keys/"),
    ("id of another length", lambda s: damage_header(s, id="00"), Damaged, "repository"),
    ("id missing", lambda s: damage_header(s, id=None), Damaged, "repository"),
    ("manifest cut", cut("manifests/", 60), Damaged, "manifests/"),
    ("manifest empty", cut("manifests/", 0), Damaged, "manifests/"),
    ("manifest flipped", flip("manifests/", -1), Damaged, "manifests/"),
    ("manifests swapped", swap("manifests/"), Damaged, "manifests/"),
    ("snapshots swapped", swap("snapshots/"), Damaged, "snapshots/"),
    ("index cut", cut("index/", 100), Damaged, "index/"),
    ("index flipped", flip("index/", 100), Damaged, "index/"),
    ("packs gone", no_packs, Damaged, "packs/"),
]


@pytest.mark.parametrize(("damage", "error", "key"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_each_damage_gives_its_error(
    damage: Callable[[MemoryStorage], str], error: type[ChronoBackupsError], key: str
) -> None:
    storage = loaded("aes-zstd")
    damage(storage)
    with pytest.raises(error) as raised:
        read_everything(storage)
    assert type(raised.value) is error
    assert raised.value.hint
    if isinstance(raised.value, Damaged):
        assert raised.value.key.startswith(key)
        assert raised.value.key in str(raised.value)


def test_a_wrong_key_or_none() -> None:
    storage = loaded("aes-zstd")
    before = dict(storage.objects)
    with pytest.raises(WrongKey, match="does not open") as raised:
        opened("", storage, bytes(32))
    slots = [key.removeprefix("keys/") for key in before if key.startswith("keys/")]
    assert list(raised.value.known) == sorted(slots)
    assert all(slot in str(raised.value) for slot in slots)
    with pytest.raises(KeyMissing):
        opened("", storage, None)
    assert storage.objects == before


@pytest.mark.parametrize("field", ["wrapped", "label", "repository", "key_id", "created_at"])
def test_a_slot_that_lacks_a_field_is_damaged(field: str) -> None:
    storage = loaded("aes-zstd")
    for key in [key for key in storage.objects if key.startswith("keys/")]:
        magic = b"CHRONO KEY SLOT\n"
        storage.objects[key] = reclosed(storage.objects[key], magic, **{field: None})
    if field in {"label", "created_at"}:  # for people to read, bound to nothing
        opened("", storage)
        return
    with pytest.raises(Damaged) as raised:
        opened("", storage)
    assert raised.value.key.startswith("keys/")


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_byte_of_every_sealed_object_is_noticed_or_does_no_harm(name: str) -> None:
    """A flip is found, or (a pack's header, which readers take from the index) every byte is right all the same."""
    good = loaded(name)
    small = [key for key in good.objects if not key.startswith("packs/") and len(good.objects[key]) < 1500]
    assert {key.partition("/")[0] for key in small} >= {"repository", "manifests", "leases", "condemned", "pins"}
    for key in small:
        for position in range(0, len(good.objects[key]), 7):
            storage = MemoryStorage()
            storage.objects = dict(good.objects)
            storage.objects[key] = flipped(storage.objects[key], position)
            with pytest.raises(Damaged) as raised:
                repository = opened(name, storage)
                repository.key_slots()
                for kind in ("manifest", "snapshot", "lease", "condemned", "forgotten", "pin"):
                    for record in repository.names(kind):
                        repository.record(kind, record)
                repository.index_tables()
            assert raised.value.key == key


def test_every_part_of_a_pack_that_is_flipped_is_noticed() -> None:
    good = loaded("aes-zstd")
    wanted = expected("aes-zstd")
    packs = [key for key in good.objects if key.startswith("packs/")]
    for key in packs:
        size = len(good.objects[key])
        for position in [*range(0, size, max(1, size // 12))]:
            storage = MemoryStorage()
            storage.objects = dict(good.objects)
            storage.objects[key] = flipped(storage.objects[key], position)
            try:
                repository = opened("", storage)
                for backup_id in (FULL, LATER):
                    snapshot = snapshot_of(repository, repository.backup(backup_id))
                    assert only_golden(described(in_repository(repository, snapshot))) == wanted[backup_id]
            except Damaged as error:
                assert error.key == key


def test_golden_files_are_not_executable_nor_links() -> None:
    for path in HERE.rglob("*"):
        assert not path.is_symlink()
    assert isinstance(HERE, Path)


def test_the_document_names_every_field_that_is_stored() -> None:
    document = (Path(__file__).parents[2] / "docs" / "repository-format.md").read_text()
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]*)`", document))))

    def fields(value: object) -> set[str]:
        if isinstance(value, dict):
            return {key for key in value if key not in {"files", "configuration"}}.union(*map(fields, value.values()))
        return set().union(*map(fields, value)) if isinstance(value, list) else set()

    reader = IndependentReader(HERE / "aes-zstd", KEY)
    found: set[str] = set()
    for kind in ("snapshot", "manifest", "lease", "pin", "condemned", "forgotten"):
        folder = {"snapshot": "snapshots", "manifest": "manifests", "pin": "pins", "lease": "leases"}.get(kind, kind)
        for name in reader.names(folder):
            found |= fields(reader.record(kind, name))
    assert len(found) > 30
    assert found - words == set()
