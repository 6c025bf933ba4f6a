"""Names and frames of a repository's objects (``docs/repository-format.md``).

======================== ============================================================
``repository``           header, readable without a key
``keys/KEY-ID``          one key slot each
``packs/BLAKE3``         sealed chunks
``index/RUN-SERIAL``     which chunk lies in which pack
``snapshots/ID``         one finished capture of one source
``manifests/BACKUP-ID``  one backup
``leases/…``             who is writing
``condemned/…``          packs that a prune will sweep
``forgotten/BACKUP-ID``  backups dropped by the operator or by retention
``pins/BACKUP-ID``       backups that retention must keep
``locks/…``              until when the storage keeps all of it
``drills/BACKUP-ID-…``   what a drill found of a backup
``wal/SYSTEM/…``         write-ahead log of a PostgreSQL cluster
======================== ============================================================

The two unsealed kinds, header and key slots, end with the SHA-256 of what precedes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from chrono_backups.clock import Clock
from chrono_backups.errors import Damaged, UnsupportedFormat
from chrono_backups.pipeline.compression import Compressor, Decompressor, NotDecodable
from chrono_backups.pipeline.encryption import HEADER_SIZE, SALT_SIZE, TAG_SIZE, Algorithm, Keys, Kind, NotAuthentic
from chrono_backups.pipeline.key_slots import SLOT_SALT_SIZE, WRAPPED_SIZE, WrappedKey

FORMAT_VERSION = 1
HEADER_KEY = "repository"
_HEADER_MAGIC = b"CHRONO BACKUPS\n"
_SLOT_MAGIC = b"CHRONO KEY SLOT\n"
_SHA256_SIZE = 32
REPOSITORY_ID_SIZE = 16

FOLDERS: dict[Kind, str] = {
    "pack": "packs",
    "index": "index",
    "snapshot": "snapshots",
    "manifest": "manifests",
    "lease": "leases",
    "condemned": "condemned",
    "forgotten": "forgotten",
    "pin": "pins",
    "lock": "locks",
    "drill": "drills",
    "wal": "wal",
}
KEYS_FOLDER = "keys"


def object_key(kind: Kind, name: str) -> str:
    """The storage key of the object ``name`` of that kind."""
    return f"{FOLDERS[kind]}/{name}"


def prefix(kind: Kind) -> str:
    """What the keys of that kind's objects start with."""
    return f"{FOLDERS[kind]}/"


@dataclass(frozen=True)
class Header:
    """What anyone may know of a repository."""

    repository_id: bytes
    """16 random bytes, the same in every replica."""
    algorithm: Algorithm
    created_at: str

    def encode(self) -> bytes:
        """``magic | JSON, sorted keys, no blanks | SHA-256``."""
        record = {
            "algorithm": self.algorithm,
            "created_at": self.created_at,
            "format": FORMAT_VERSION,
            "id": self.repository_id.hex(),
        }
        return _closed(_HEADER_MAGIC + _canonical(record))

    @classmethod
    def decode(cls, data: bytes | bytearray) -> Header:
        """Raises ``Damaged`` or, for a newer format, ``UnsupportedFormat``."""
        record = _opened(data, _HEADER_MAGIC, HEADER_KEY)
        try:
            version = record["format"]
            if version != FORMAT_VERSION:
                raise UnsupportedFormat(
                    f"the repository has format {version}; this program reads format {FORMAT_VERSION}",
                    hint="Use the version of chrono-backups that wrote it, or a newer one.",
                )
            header = cls(bytes.fromhex(record["id"]), record["algorithm"], record["created_at"])
            if len(header.repository_id) != REPOSITORY_ID_SIZE or header.algorithm not in get_args(Algorithm):
                raise ValueError(f"id {record['id']}, algorithm {header.algorithm}")
            return header
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{HEADER_KEY} is no repository header: {error}", key=HEADER_KEY) from error

    def bound(self, key_id: str) -> bytes:
        """What a key slot is bound to: this header and the slot's own name."""
        return hashlib.sha256(self.encode()).digest() + key_id.encode()


@dataclass(frozen=True)
class KeySlot:
    """One wrapping of the master key."""

    key_id: str
    created_at: str
    label: str
    wrapped: WrappedKey
    header: Header
    """The repository's, once more: the object ``repository`` can be made anew from any slot."""

    @property
    def object_key(self) -> str:
        return f"{KEYS_FOLDER}/{self.key_id}"

    def encode(self) -> bytes:
        """As ``Header.encode``, with the salt and wrapped key in hexadecimal."""
        record = {
            "created_at": self.created_at,
            "key_id": self.key_id,
            "label": self.label,
            "repository": self.header.encode().hex(),
            "wrapped": (self.wrapped.salt + self.wrapped.wrapped).hex(),
        }
        return _closed(_SLOT_MAGIC + _canonical(record))

    @classmethod
    def decode(cls, data: bytes | bytearray, key: str) -> KeySlot:
        """Raises ``Damaged`` naming ``key``."""
        record = _opened(data, _SLOT_MAGIC, key)
        try:
            raw = bytes.fromhex(record["wrapped"])
            slot = cls(
                record["key_id"],
                record["created_at"],
                record["label"],
                WrappedKey(raw[:SLOT_SALT_SIZE], raw[SLOT_SALT_SIZE:]),
                Header.decode(bytes.fromhex(record["repository"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{key} is no key slot: {error}", key=key) from error
        if len(raw) != WRAPPED_SIZE or slot.object_key != key:
            raise Damaged(f"{key} is not the key slot of that name", key=key)
        return slot


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _closed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def _opened(data: bytes | bytearray, magic: bytes, key: str) -> dict[str, Any]:
    body = bytes(data[:-_SHA256_SIZE])
    if hashlib.sha256(body).digest() != data[-_SHA256_SIZE:] or not body.startswith(magic):
        raise Damaged(f"{key} is damaged: its checksum does not fit", key=key)
    try:
        record = json.loads(body[len(magic) :])
    except ValueError as error:
        raise Damaged(f"{key} is damaged: {error}", key=key) from error
    if not isinstance(record, dict):
        raise Damaged(f"{key} is damaged: it holds no record", key=key)
    return record


def seal_object(
    keys: Keys, kind: Kind, name: str, content: bytes | bytearray | memoryview, clock: Clock, *, level: int = 3
) -> bytearray:
    """A whole object of one frame: ``header 40 | frame of (codec u8, content size u64, data)``."""
    sealer = keys.sealer(kind, clock.random_bytes(SALT_SIZE))
    encoded = bytearray(9 + len(content))
    codec, size = Compressor("zstd", level).compress_into(memoryview(content), memoryview(encoded)[9:])
    encoded[0] = codec
    encoded[1:9] = len(content).to_bytes(8, "little")
    stored = bytearray(HEADER_SIZE + 9 + size + TAG_SIZE)
    stored[:HEADER_SIZE] = sealer.header
    with memoryview(stored) as out, memoryview(encoded) as plain:
        sealer.seal_into(HEADER_SIZE, name.encode(), plain[: 9 + size], out[HEADER_SIZE:])
    return stored


def open_object(keys: Keys, kind: Kind, name: str, stored: bytes | bytearray) -> bytes:
    """The content of ``seal_object``. Raises ``Damaged`` naming the object."""
    key = object_key(kind, name)
    try:
        sealer = keys.opener(kind, stored[:HEADER_SIZE])
        encoded = sealer.open(HEADER_SIZE, name.encode(), memoryview(stored)[HEADER_SIZE:])
        if len(encoded) < 9:
            raise NotAuthentic("it is cut short")
        size = int.from_bytes(encoded[1:9], "little")
        return bytes(Decompressor().decompress(encoded[0], memoryview(encoded)[9:], size))
    except (NotAuthentic, NotDecodable) as error:
        raise Damaged(f"{key} is damaged: {error}", key=key) from error


def seal_record(keys: Keys, kind: Kind, name: str, record: Mapping[str, Any], clock: Clock) -> bytearray:
    """``seal_object`` of a JSON record."""
    return seal_object(keys, kind, name, _canonical(record), clock)


def open_record(keys: Keys, kind: Kind, name: str, stored: bytes | bytearray) -> dict[str, Any]:
    """The record of ``seal_record``. Raises ``Damaged`` naming the object."""
    content = open_object(keys, kind, name, stored)
    try:
        record = json.loads(content)
    except ValueError as error:
        raise Damaged(f"{object_key(kind, name)} holds no record: {error}", key=object_key(kind, name)) from error
    if not isinstance(record, dict):
        raise Damaged(f"{object_key(kind, name)} holds no record", key=object_key(kind, name))
    return record
