"""Header, key slots, sealed objects: what opens, what does not, and what is said then."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import (
    Damaged,
    KeyMissing,
    RepositoryExists,
    RepositoryMissing,
    UnsupportedFormat,
    UsageError,
    WrongKey,
)
from chrono_backups.pipeline.encryption import KINDS, Keys, Kind
from chrono_backups.pipeline.key_slots import WrappedKey, key_id
from chrono_backups.repository.format import (
    FOLDERS,
    Header,
    KeySlot,
    object_key,
    open_object,
    open_record,
    seal_object,
    seal_record,
)
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.keys import check_key
from chrono_backups.storage.memory import MemoryStorage

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
CLOCK = FrozenClock()
HEADER = Header(bytes(range(16)), "AES-256-GCM", "2026-01-01T00:00:00.000000Z")
SLOT = KeySlot("0123456789abcdef", "2026-01-01T00:00:00.000000Z", "a label", WrappedKey(bytes(32), bytes(48)), HEADER)
KEYS = Keys("AES-256-GCM", bytes(range(32)), bytes(range(16)))


def flips(data: bytes) -> list[bytes]:
    found = []
    for position in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= mask
            found.append(bytes(changed))
    return found


def test_the_header_round_trips_and_is_golden() -> None:
    assert Header.decode(HEADER.encode()) == HEADER
    body = (
        b'CHRONO BACKUPS\n{"algorithm":"AES-256-GCM","created_at":"2026-01-01T00:00:00.000000Z",'
        b'"format":1,"id":"000102030405060708090a0b0c0d0e0f"}'
    )
    assert HEADER.encode() == body + hashlib.sha256(body).digest()


def test_every_flip_and_cut_of_a_header_is_noticed() -> None:
    data = HEADER.encode()
    for damaged in [*flips(data), *(data[:size] for size in range(len(data))), data + b"x"]:
        with pytest.raises(Damaged, match="repository"):
            Header.decode(damaged)


def reclosed(record: object, magic: bytes = b"CHRONO BACKUPS\n") -> bytes:
    body = magic + json.dumps(record).encode()
    return body + hashlib.sha256(body).digest()


GOOD = {"algorithm": "none", "created_at": "x", "format": 1, "id": "00" * 16}


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_another_format_is_refused_by_name(version: object) -> None:
    with pytest.raises(UnsupportedFormat, match="reads format 1") as raised:
        Header.decode(reclosed({**GOOD, "format": version, "id": "whatever that format has"}))
    assert raised.value.hint


@pytest.mark.parametrize(
    "changed", [{"id": "00"}, {"id": 5}, {"id": "zz" * 16}, {"algorithm": "rot13"}, {"algorithm": []}]
)
def test_a_header_of_nonsense_is_damaged(changed: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        Header.decode(reclosed({**GOOD, **changed}))


@pytest.mark.parametrize("record", [[], 5, None, "text", {}])
def test_what_is_no_record_is_damaged(record: object) -> None:
    with pytest.raises(Damaged):
        Header.decode(reclosed(record))


def test_a_key_slot_round_trips() -> None:
    assert KeySlot.decode(SLOT.encode(), SLOT.object_key) == SLOT


def test_every_flip_of_a_key_slot_and_another_name_are_noticed() -> None:
    for damaged in flips(SLOT.encode()):
        with pytest.raises(Damaged, match=SLOT.object_key):
            KeySlot.decode(damaged, SLOT.object_key)
    with pytest.raises(Damaged, match="keys/another"):
        KeySlot.decode(SLOT.encode(), "keys/another")


# Sealed objects.


@given(content=st.binary(max_size=5000), repeat=st.integers(1, 300), kind=st.sampled_from(sorted(KINDS)))
def test_sealed_objects_round_trip(content: bytes, repeat: int, kind: Kind) -> None:
    stored = seal_object(KEYS, kind, "name", content * repeat, CLOCK)
    assert open_object(KEYS, kind, "name", stored) == content * repeat


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_flip_and_cut_of_a_sealed_object_is_noticed(kind: Kind) -> None:
    stored = bytes(seal_record(KEYS, kind, "name", {"some": "record"}, CLOCK))
    for damaged in [*flips(stored), *(stored[:size] for size in range(len(stored))), stored + b"\0"]:
        with pytest.raises(Damaged, match=f"{FOLDERS[kind]}/name") as raised:
            open_record(KEYS, kind, "name", damaged)
        assert raised.value.key == object_key(kind, "name")


def test_an_object_is_bound_to_its_name_kind_and_repository() -> None:
    stored = seal_record(KEYS, "manifest", "name", {}, CLOCK)
    other = Keys("AES-256-GCM", bytes(range(32)), bytes(16))
    for attempt in ((KEYS, "manifest", "nam"), (KEYS, "snapshot", "name"), (other, "manifest", "name")):
        with pytest.raises(Damaged):
            open_record(*attempt, stored)


@pytest.mark.parametrize("content", [b"[]", b"5", b"{", b"\xff", b""])
def test_an_object_that_is_no_record_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged, match="holds no record"):
        open_record(KEYS, "pin", "name", seal_object(KEYS, "pin", "name", content, CLOCK))


def test_two_sealings_of_one_record_share_nothing() -> None:
    first, second = (bytes(seal_record(KEYS, "pin", "n", {"a": 1}, CLOCK)) for _ in range(2))
    assert first[8:40] != second[8:40]
    assert first[40:] != second[40:]


def test_names_of_all_kinds_are_storage_keys() -> None:
    repository = Repository.create(MemoryStorage(), algorithm="none", operator_key=None, clock=CLOCK)
    for kind in KINDS:
        check_key(object_key(kind, repository.unique_name()))
    check_key(object_key("lease", "database_only_20260101_000000.12"))
    check_key(SLOT.object_key)


# Creating and opening.


def created(storage: MemoryStorage, key: bytes | None = KEY) -> Repository:
    return Repository.create(storage, algorithm="AES-256-GCM" if key else "none", operator_key=key, clock=CLOCK)


def opened(storage: MemoryStorage, key: bytes | None = KEY) -> Repository:
    return Repository.open(storage, operator_key=key, clock=CLOCK)


def test_what_was_created_opens() -> None:
    storage = MemoryStorage()
    repository = created(storage)
    assert opened(storage).id == repository.id
    assert opened(storage).encrypted
    assert sorted(storage.objects) == [f"keys/{key_id(KEY)}", "repository"]
    plain = MemoryStorage()
    created(plain, None)
    assert not opened(plain, None).encrypted
    assert sorted(plain.objects) == ["repository"]


def test_a_plain_repository_opens_with_a_key_at_hand_too() -> None:
    storage = MemoryStorage()
    created(storage, None)
    assert not opened(storage, KEY).encrypted


def test_nothing_there_is_missing_not_damaged() -> None:
    with pytest.raises(RepositoryMissing) as raised:
        opened(MemoryStorage())
    assert "init" in raised.value.hint


def test_a_second_creation_is_refused_and_changes_nothing() -> None:
    storage = MemoryStorage()
    created(storage)
    before = dict(storage.objects)
    for key in (KEY, OTHER, None):
        with pytest.raises(RepositoryExists):
            created(storage, key)
    assert storage.objects == before


def test_an_encrypted_repository_is_not_created_without_a_key() -> None:
    storage = MemoryStorage()
    with pytest.raises(KeyMissing):
        Repository.create(storage, algorithm="AES-256-GCM", operator_key=None, clock=CLOCK)
    assert storage.objects == {}


def test_a_wrong_key_is_told_which_are_known_and_writes_nothing() -> None:
    storage = MemoryStorage()
    created(storage).keyring.add(bytes(32), "second")
    before = dict(storage.objects)
    with pytest.raises(WrongKey) as raised:
        opened(storage, OTHER)
    assert list(raised.value.known) == sorted((key_id(KEY), key_id(bytes(32))))
    assert key_id(OTHER) in str(raised.value)
    assert raised.value.hint
    assert OTHER.hex() not in str(raised.value)
    with pytest.raises(KeyMissing) as missing:
        opened(storage, None)
    assert "BACKUP_ENCRYPTION_KEY" in missing.value.hint
    assert storage.objects == before


def test_a_creation_that_was_cut_short_is_completed() -> None:
    storage = MemoryStorage()
    first = created(storage)
    del storage.objects["repository"]
    assert created(storage).id == first.id
    assert opened(storage).id == first.id


def test_a_header_that_was_lost_is_made_anew_by_any_key() -> None:
    storage = MemoryStorage()
    repository = created(storage)
    repository.keyring.add(OTHER, "second")
    repository.put_record("pin", "full_20260101_000000", {"reason": "r"})
    header = storage.objects.pop("repository")
    with pytest.raises(RepositoryMissing):
        opened(storage)
    created(storage, OTHER)
    assert storage.objects["repository"] == header
    assert opened(storage).record("pin", "full_20260101_000000") == {"reason": "r"}


@pytest.mark.parametrize("key", [bytes(32), None])
def test_no_repository_is_created_over_one_that_lost_its_header(key: bytes | None) -> None:
    storage = MemoryStorage()
    created(storage).put_record("pin", "full_20260101_000000", {})
    del storage.objects["repository"]
    before = dict(storage.objects)
    with pytest.raises(RepositoryExists, match="header is missing") as raised:
        created(storage, key)
    assert raised.value.hint
    assert storage.objects == before


def test_a_header_of_another_repository_opens_no_slot() -> None:
    storage, other = MemoryStorage(), MemoryStorage()
    created(storage)
    created(other)
    storage.objects["repository"] = other.objects["repository"]
    with pytest.raises(Damaged, match=f"keys/{key_id(KEY)}"):
        opened(storage)


def test_a_slot_of_another_repository_opens_nothing() -> None:
    storage, other = MemoryStorage(), MemoryStorage()
    created(storage)
    created(other)
    slot = f"keys/{key_id(KEY)}"
    storage.objects[slot] = other.objects[slot]
    with pytest.raises(Damaged):
        opened(storage)


# Keys.


def test_a_key_is_added_and_the_other_removed() -> None:
    storage = MemoryStorage()
    repository = created(storage)
    repository.put_record("pin", "full_20260101_000000", {"reason": "kept"})
    repository.keyring.add(OTHER, "the new one")
    assert {slot.label for slot in repository.key_slots()} == {"first key", "the new one"}
    rotated = opened(storage, OTHER)
    rotated.keyring.remove(key_id(KEY))
    with pytest.raises(WrongKey):
        opened(storage, KEY)
    assert opened(storage, OTHER).record("pin", "full_20260101_000000") == {"reason": "kept"}


def test_what_must_not_be_done_to_keys() -> None:
    storage = MemoryStorage()
    repository = created(storage)
    before = dict(storage.objects)
    with pytest.raises(UsageError, match="already"):
        repository.keyring.add(KEY, "again")
    with pytest.raises(UsageError, match="in use"):
        repository.keyring.remove(key_id(KEY))
    with pytest.raises(UsageError, match="there is no key"):
        repository.keyring.remove("0123456789abcdef")
    plain = created(MemoryStorage(), None)
    with pytest.raises(UsageError, match="not encrypted"):
        plain.keyring.add(KEY, "none")
    assert storage.objects == before


def test_a_damaged_slot_can_be_removed() -> None:
    storage = MemoryStorage()
    repository = created(storage)
    slot = repository.keyring.add(OTHER, "second")
    storage.objects[slot.object_key] = b"junk"
    with pytest.raises(Damaged, match=slot.object_key):
        repository.key_slots()
    repository.keyring.remove(slot.key_id)
    assert [one.key_id for one in repository.key_slots()] == [key_id(KEY)]


def test_no_key_in_repr_nor_in_what_is_stored() -> None:
    storage = MemoryStorage()
    repository = created(storage)
    shown = repr(repository.keyring) + repr(repository.keys) + repr(repository.key_slots())
    assert KEY.hex() not in shown
    assert not any(KEY in data or KEY.hex().encode() in data for data in storage.objects.values())
