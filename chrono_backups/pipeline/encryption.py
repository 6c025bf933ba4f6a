"""Keys, sealing and opening (``docs/repository-format.md``, "Sealing").

A repository has one random master key. From it come, by BLAKE3's key derivation, one key for chunk
ids and one key per kind of object. An object starts with a header of 40 bytes that holds a random
salt; the object's own key is the keyed BLAKE3 of that header. A frame sealed at offset *o* of the
object uses *o* as its nonce, and the header, the repository's id and the frame's own name as
associated data. A header is drawn anew for every object, so a pair of key and nonce is used once.

Header: ``magic b"CBOX" | version u8 = 1 | kind u8 | key mode u8 = 0 | 0 u8 | salt 32 bytes``. Key mode 0
is "derived from the master key"; others are reserved for a writer that can't read, whose objects
carry their key wrapped to a public key behind the header.

A plain repository has the same shape: its "master key" is its public id, and a frame is its content
followed by a 16-byte keyed BLAKE3, which finds damage and mix-ups, though no forger.
"""

from __future__ import annotations

from typing import Any, Literal

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

Algorithm = Literal["AES-256-GCM", "CHACHA20-POLY1305", "none"]
Kind = Literal[
    "pack", "index", "snapshot", "manifest", "lease", "condemned", "forgotten", "pin", "lock", "drill", "wal"
]
Buffer = bytes | bytearray | memoryview

KINDS: dict[Kind, int] = {
    "pack": 1,
    "index": 2,
    "snapshot": 3,
    "manifest": 4,
    "lease": 5,
    "condemned": 6,
    "forgotten": 7,
    "pin": 8,
    "lock": 16,
    "drill": 17,
    "wal": 18,
}
MAGIC = b"CBOX"
VERSION = 1
SALT_SIZE = 32
HEADER_SIZE = 40
TAG_SIZE = 16
KEY_SIZE = 32
ID_SIZE = 32


class NotAuthentic(Exception):
    """A frame or header is not what was sealed. Rooms above turn it into ``Damaged`` with a name."""


class _PlainFrames:
    """Frames of a repository without encryption: content, then a keyed checksum."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _checksum(self, nonce: bytes, data: Buffer, associated: bytes) -> bytes:
        hasher = blake3(key=self._key)
        hasher.update(nonce + len(associated).to_bytes(4, "big") + associated)
        hasher.update(data)
        return hasher.digest(TAG_SIZE)

    def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Any) -> int:
        size = len(data)
        buf[:size] = data
        buf[size : size + TAG_SIZE] = self._checksum(nonce, data, associated_data)
        return size + TAG_SIZE

    def decrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Any) -> int:
        view = memoryview(data)
        content = view[:-TAG_SIZE]
        if self._checksum(nonce, content, associated_data) != view[-TAG_SIZE:]:
            raise InvalidTag
        buf[: len(content)] = content
        return len(content)


class Sealer:
    """Seals and opens the frames of one object."""

    __slots__ = ("_bound", "_cipher", "header")

    def __init__(self, cipher: Any, header: bytes, repository_id: bytes) -> None:
        self._cipher = cipher
        self.header = header
        self._bound = header + repository_id

    def seal_into(self, offset: int, name: bytes, data: Buffer, out: memoryview) -> int:
        """Seal ``data`` as the frame ``name`` at ``offset`` of the object; bytes written to ``out``.

        ``out`` is exactly ``len(data) + TAG_SIZE`` bytes and does not overlap ``data``.
        """
        return int(self._cipher.encrypt_into(offset.to_bytes(12, "big"), data, self._bound + name, out))

    def open_into(self, offset: int, name: bytes, data: Buffer, out: memoryview) -> int:
        """The reverse; ``out`` is exactly ``len(data) - TAG_SIZE`` bytes. Raises ``NotAuthentic``."""
        if len(data) < TAG_SIZE:
            raise NotAuthentic(f"a frame of {len(data)} bytes is too short")
        try:
            return int(self._cipher.decrypt_into(offset.to_bytes(12, "big"), data, self._bound + name, out))
        except InvalidTag as error:
            raise NotAuthentic("authentication failed") from error

    def open(self, offset: int, name: bytes, data: Buffer) -> bytearray:
        """``open_into`` a buffer of its own."""
        out = bytearray(max(0, len(data) - TAG_SIZE))
        self.open_into(offset, name, data, memoryview(out))
        return out


class Keys:
    """All keys of one repository. ``master`` is its master key, or its id where it is plain."""

    def __init__(self, algorithm: Algorithm, master: bytes, repository_id: bytes) -> None:
        if len(master) != KEY_SIZE:
            raise ValueError(f"a master key has {KEY_SIZE} bytes, not {len(master)}")
        self.algorithm = algorithm
        self.repository_id = repository_id
        self._ids = blake3(master, derive_key_context="chrono_backups 2026 chunk ids").digest()
        self._kinds = {
            number: blake3(master, derive_key_context=f"chrono_backups 2026 objects of kind {kind}").digest()
            for kind, number in KINDS.items()
        }

    def __repr__(self) -> str:
        return f"Keys({self.algorithm}, repository {self.repository_id.hex()})"

    def chunk_id(self, content: Buffer) -> bytes:
        """The 32-byte id of a chunk."""
        return blake3(content, key=self._ids).digest()

    def content_hash(self, content: Buffer) -> bytes:
        """16 bytes that tell whether two small files are the same: the chunk id's first half."""
        return blake3(content, key=self._ids).digest(16)

    def sealer(self, kind: Kind, salt: bytes) -> Sealer:
        """For writing a new object; ``salt`` is 32 fresh random bytes."""
        return self._sealer(MAGIC + bytes((VERSION, KINDS[kind], 0, 0)) + salt)

    def opener(self, kind: Kind, header: Buffer) -> Sealer:
        """For reading an object that starts with ``header``. Raises ``NotAuthentic`` for a foreign one."""
        header = bytes(header)
        if len(header) != HEADER_SIZE or header[:8] != MAGIC + bytes((VERSION, KINDS[kind], 0, 0)):
            raise NotAuthentic(f"it does not start with the header of a {kind} object")
        return self._sealer(header)

    def _sealer(self, header: bytes) -> Sealer:
        key = blake3(header, key=self._kinds[header[5]]).digest()
        cipher: Any
        if self.algorithm == "AES-256-GCM":
            cipher = AESGCM(key)
        elif self.algorithm == "CHACHA20-POLY1305":
            cipher = ChaCha20Poly1305(key)
        else:
            cipher = _PlainFrames(key)
        return Sealer(cipher, header, self.repository_id)
