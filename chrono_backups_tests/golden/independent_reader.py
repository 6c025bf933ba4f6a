"""A reader of repositories that shares no code with the package.

Written from ``docs/repository-format.md`` alone, with the algorithms it names and nothing else: if this
reads a repository, the document says all that is needed to get one's data back without us.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

KINDS = {"pack": 1, "index": 2, "snapshot": 3, "manifest": 4, "lease": 5, "condemned": 6, "forgotten": 7, "pin": 8}
FOLDERS = {"pack": "packs", "snapshot": "snapshots", "manifest": "manifests", "lease": "leases", "pin": "pins"}


class Unreadable(Exception):
    """Stored bytes are not what the document says."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Unreadable(what)


class IndependentReader:
    """Opens the repository in a folder."""

    def __init__(self, place: Path, operator_key: bytes | None) -> None:
        self.place = place
        stored = self.get("repository")
        header = self.closed(stored, b"CHRONO BACKUPS\n")
        require(header["format"] == 1, "format")
        self.repository_id = bytes.fromhex(header["id"])
        self.algorithm = header["algorithm"]
        if self.algorithm == "none":
            self.master = self.repository_id * 2
        else:
            assert operator_key is not None
            key_id = blake3(operator_key, derive_key_context="chrono_backups 2026 key id").digest(8).hex()
            slot = self.closed(self.get(f"keys/{key_id}"), b"CHRONO KEY SLOT\n")
            require(bytes.fromhex(slot["repository"]) == stored, "the slot's copy of the header")
            require(slot["key_id"] == key_id, "key id")
            wrapped = bytes.fromhex(slot["wrapped"])
            context = "chrono_backups 2026 key slot"
            wrapping = blake3(operator_key + wrapped[:32], derive_key_context=context).digest()
            bound = sha256(stored).digest() + key_id.encode()
            self.master = AESGCM(wrapping).decrypt(bytes(12), wrapped[32:], bound)
        self.ids_key = blake3(self.master, derive_key_context="chrono_backups 2026 chunk ids").digest()
        self.places: dict[bytes, tuple[str, int, int, int]] = {}

    def get(self, key: str) -> bytes:
        return (self.place / key).read_bytes()

    def names(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.place / folder).glob("*"))

    @staticmethod
    def closed(stored: bytes, magic: bytes) -> dict[str, Any]:
        body, digest = stored[:-32], stored[-32:]
        require(sha256(body).digest() == digest and body.startswith(magic), "checksum")
        return json.loads(body[len(magic) :])  # type: ignore[no-any-return]

    # Sealing.

    def frame(self, kind: str, header: bytes, offset: int, name: bytes, sealed: bytes) -> bytes:
        require(header[:8] == b"CBOX" + bytes([1, KINDS[kind], 0, 0]) and len(header) == 40, "header")
        context = f"chrono_backups 2026 objects of kind {kind}"
        key = blake3(header, key=blake3(self.master, derive_key_context=context).digest()).digest()
        nonce = offset.to_bytes(12, "big")
        associated = header + self.repository_id + name
        if self.algorithm == "AES-256-GCM":
            return AESGCM(key).decrypt(nonce, sealed, associated)
        if self.algorithm == "CHACHA20-POLY1305":
            return ChaCha20Poly1305(key).decrypt(nonce, sealed, associated)
        content, tag = sealed[:-16], sealed[-16:]
        message = nonce + len(associated).to_bytes(4, "big") + associated + content
        require(blake3(message, key=key).digest(16) == tag, "checksum of a plain frame")
        return content

    @staticmethod
    def decoded(codec: int, data: bytes, size: int) -> bytes:
        if codec == 1:
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        elif codec == 2:
            data = zlib.decompress(data)
        else:
            require(codec == 0, "codec")
        require(len(data) == size, "decoded size")
        return data

    def opened(self, kind: str, name: str) -> bytes:
        """The content of an object of one frame."""
        stored = self.get(f"{FOLDERS.get(kind, kind)}/{name}")
        frame = self.frame(kind, stored[:40], 40, name.encode(), stored[40:])
        return self.decoded(frame[0], frame[9:], int.from_bytes(frame[1:9], "little"))

    def record(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.opened(kind, name))  # type: ignore[no-any-return]

    # Chunks.

    def read_index(self) -> None:
        for name in self.names("index"):
            content = self.opened("index", name)
            packs, chunks = struct.unpack_from("<II", content)
            table = [struct.unpack_from("<32s32sQ", content, 8 + 72 * n) for n in range(packs)]
            at = 8 + 72 * packs
            require(len(content) == at + 48 * chunks, "size of an index")
            ids = [content[at + 32 * n :][:32] for n in range(chunks)]
            keys = [int.from_bytes(one[:8], "little") for one in ids]
            require(keys == sorted(keys), "order of an index")
            columns = [struct.unpack_from(f"<{chunks}I", content, at + 32 * chunks + 4 * chunks * n) for n in range(4)]
            for chunk_id, pack, offset, sealed, size in zip(ids, *columns, strict=True):
                self.places[chunk_id] = (table[pack][0].hex(), offset, sealed, size)
            for digest, salt, size in table:
                stored = self.get(f"packs/{digest.hex()}")
                require(len(stored) == size and stored[8:40] == salt, "pack table")

    def read_pack_directories(self) -> None:
        """What the index says, from the packs alone."""
        for name in self.names("packs"):
            stored = self.get(f"packs/{name}")
            require(blake3(stored).hexdigest() == name, "name of a pack")
            size, magic = struct.unpack("<I4s", stored[-8:])
            require(magic == b"CBPD", "trailer")
            start = len(stored) - 8 - size
            rows = self.frame("pack", stored[:40], start, b"directory", stored[start:-8])
            for chunk_id, offset, sealed, length in struct.iter_unpack("<32sIII", rows):
                self.places[chunk_id] = (name, offset, sealed, length)

    def chunk(self, chunk_id: bytes) -> bytes:
        name, offset, sealed, size = self.places[chunk_id]
        stored = self.get(f"packs/{name}")
        frame = self.frame("pack", stored[:40], offset, chunk_id, stored[offset : offset + sealed])
        content = self.decoded(frame[0], frame[1:], size)
        require(blake3(content, key=self.ids_key).digest() == chunk_id, "chunk id")
        return content

    # Listings.

    def entries(self, snapshot_id: str) -> Iterator[dict[str, Any]]:
        """Every entry of a snapshot, its content with it."""
        last = b""
        for first_path, chunk_id in self.record("snapshot", snapshot_id)["listing"]:
            content = self.chunk(bytes.fromhex(chunk_id))
            at = 0
            while at < len(content):
                size = int.from_bytes(content[at : at + 4], "little")
                segment = content[at : at + size]
                path = segment[32 : 32 + int.from_bytes(segment[4:8], "little")]
                require(at > 0 or path == bytes.fromhex(first_path), "first path")
                require(path.replace(b"/", b"\0") >= last, "order of segments")
                last = path.replace(b"/", b"\0")
                yield from self.segment(segment)
                at += size

    def segment(self, segment: bytes) -> Iterator[dict[str, Any]]:
        size, path_size, names_size, count, chunks, extents, extras_size, reserved = struct.unpack_from("<8I", segment)
        require(size == len(segment) and reserved == 0, "size of a segment")
        at = 32

        def take(length: int) -> bytes:
            nonlocal at
            at += length
            return segment[at - length : at]

        path = take(path_size)
        names = take(names_size).split(b"\0")
        require(len(names) == count and names == sorted(names), "names")
        formats = (("mode", "I"), ("uid", "I"), ("gid", "I"), ("size", "Q"), ("mtime", "q"), ("ctime", "q"))
        columns = {name: self.column(take, code, count) for name, code in (*formats, ("inode", "Q"))}
        hashes = take(16 * count)
        counts = self.column(take, "I", count)
        ids = [take(32) for _ in range(chunks)]
        rows = list(zip(*(self.column(take, code, extents) for code in "IIQ"), strict=True))
        extras = json.loads(take(extras_size) or b"{}")
        require(at == size, "end of a segment")
        first = 0
        for position, name in enumerate(names):
            extra = extras.get(str(position), {})
            mine = [
                (None if number == 0xFFFFFFFF else ids[number], offset, length)
                for number, offset, length in rows[first : first + counts[position]]
            ]
            first += counts[position]
            if extra.get("indirect"):
                stream = b"".join(self.chunk(chunk_id) for chunk_id, _, _ in mine if chunk_id)
                mine = [
                    (None if chunk_id == bytes(32) else chunk_id, offset, length)
                    for chunk_id, offset, length in struct.iter_unpack("<32sIQ", stream)
                ]
            content = b"".join(
                bytes(length) if chunk_id is None else self.chunk(chunk_id)[offset : offset + length]
                for chunk_id, offset, length in mine
            )
            entry = {column: values[position] for column, values in columns.items()}
            require(len(content) == entry["size"], "size of an entry")
            self.check_hash(hashes[16 * position : 16 * position + 16], content, mine)
            yield {"path": (path + b"/" + name).lstrip(b"/"), "content": content, "extra": extra, **entry}

    def check_hash(self, expected: bytes, content: bytes, extents: list[tuple[bytes | None, int, int]]) -> None:
        if not content:
            require(expected == bytes(16), "hash of nothing")
            return
        rows = b"".join(struct.pack("<32sIQ", chunk_id or bytes(32), *rest) for chunk_id, *rest in extents)
        hashes = (blake3(data, key=self.ids_key).digest(16) for data in (content, rows))
        require(expected in hashes, "hash of an entry")

    @staticmethod
    def column(take: Any, code: str, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}{code}", take(struct.calcsize(f"<{count}{code}")))
