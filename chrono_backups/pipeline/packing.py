"""Packs: many sealed chunks in one object, with their directory (``docs/repository-format.md``, "Packs").

``header 40 | sealed chunk … | sealed directory | directory size u32 | magic b"CBPD"``. A sealed chunk
is the frame of ``codec u8 | data``, named by its chunk id. The directory is the frame of one 44-byte
row a chunk: ``id 32 | offset u32 | sealed size u32 | content size u32``, little-endian. The pack's name
is the BLAKE3 of all its bytes, so anyone can scrub a storage with ``b3sum`` and no key (SHA-256 would take a
fifteenth of a backup's CPU time).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import overload

from blake3 import blake3

from chrono_backups.pipeline.encryption import HEADER_SIZE, ID_SIZE, TAG_SIZE, Keys, NotAuthentic, Sealer

ROW = struct.Struct("<32sIII")
TRAILER = struct.Struct("<I4s")
TRAILER_MAGIC = b"CBPD"
DIRECTORY_NAME = b"directory"
FRAME_OVERHEAD = 1 + TAG_SIZE
PACK_TARGET = 16 * 1024 * 1024
"""A pack is closed when it has grown to this; larger objects gain nothing on any storage, smaller ones cost
requests and, on a local disk, fsyncs."""


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """Where a chunk lies in its pack. Sizes in bytes."""

    chunk_id: bytes
    offset: int
    sealed_size: int
    content_size: int


class PackedRows(Sequence[PackedChunk]):
    """Chunks of a pack as its directory lists them: ``ROW.size`` bytes each, a fifth of what as many objects take."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes | bytearray) -> None:
        self.raw = raw

    @classmethod
    def of(cls, chunks: Iterable[PackedChunk]) -> PackedRows:
        """Those chunks, unless they are such rows already."""
        if isinstance(chunks, cls):
            return chunks
        return cls(b"".join(ROW.pack(row.chunk_id, row.offset, row.sealed_size, row.content_size) for row in chunks))

    def __len__(self) -> int:
        return len(self.raw) // ROW.size

    @overload
    def __getitem__(self, at: int) -> PackedChunk: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[PackedChunk]: ...

    def __getitem__(self, at: int | slice) -> PackedChunk | Sequence[PackedChunk]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        position = range(len(self))[at]
        return PackedChunk(*ROW.unpack_from(self.raw, position * ROW.size))

    def __iter__(self) -> Iterator[PackedChunk]:
        return itertools.starmap(PackedChunk, ROW.iter_unpack(self.raw))


class PackBuilder:
    """Fills one pack in a buffer that is kept and used again. Belongs to one thread at a time."""

    def __init__(self, buffer: bytearray | mmap) -> None:
        """A buffer that is a memory map starts at a page, so that storages can write it without copying."""
        self._view = memoryview(buffer)
        self._sealer: Sealer | None = None
        self._rows = bytearray()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def chunks(self) -> PackedRows:
        """Those so far; after the next ``start`` still those of this pack."""
        return PackedRows(self._rows)

    def fits(self, content_size: int) -> bool:
        """Whether a chunk of that size, sealed, and the directory with it still fit in the buffer."""
        directory = len(self._rows) + ROW.size + TAG_SIZE + TRAILER.size
        return self._size + content_size + FRAME_OVERHEAD + directory <= len(self._view)

    def start(self, sealer: Sealer) -> None:
        """Begin an empty pack; ``sealer`` is fresh."""
        self._sealer = sealer
        self._rows = bytearray()
        self._view[:HEADER_SIZE] = sealer.header
        self._size = HEADER_SIZE

    def add(self, chunk_id: bytes, encoded: memoryview, content_size: int) -> int:
        """Seal ``encoded`` (codec byte and data) as the next chunk; bytes that it takes."""
        assert self._sealer is not None
        sealed_size = len(encoded) + TAG_SIZE
        end = self._size + sealed_size
        self._sealer.seal_into(self._size, chunk_id, encoded, self._view[self._size : end])
        self._rows += ROW.pack(chunk_id, self._size, sealed_size, content_size)
        self._size = end
        return sealed_size

    def finish(self) -> tuple[bytes, memoryview]:
        """Close the pack: its digest and its bytes, valid until ``start``."""
        assert self._sealer is not None
        end = self._size + len(self._rows) + TAG_SIZE
        self._sealer.seal_into(self._size, DIRECTORY_NAME, self._rows, self._view[self._size : end])
        self._view[end : end + TRAILER.size] = TRAILER.pack(end - self._size, TRAILER_MAGIC)
        self._size = end + TRAILER.size
        data = self._view[: self._size]
        return pack_digest(data), data


def pack_digest(data: bytes | bytearray | memoryview) -> bytes:
    """What a pack is named by: the BLAKE3 of all its bytes, 32 bytes, without a key."""
    return blake3(data).digest()


def directory_size(trailer: bytes | bytearray | memoryview) -> int:
    """Bytes of the sealed directory, from a pack's last 8 bytes. Raises ``NotAuthentic``."""
    size, magic = TRAILER.unpack(trailer)
    if magic != TRAILER_MAGIC or size < TAG_SIZE or (size - TAG_SIZE) % ROW.size:
        raise NotAuthentic("its end is not that of a pack")
    return int(size)


def read_directory(keys: Keys, header: bytes | memoryview, sealed: memoryview, offset: int) -> list[PackedChunk]:
    """The rows of a sealed directory that lies at ``offset`` of its pack. Raises ``NotAuthentic``."""
    rows = keys.opener("pack", header).open(offset, DIRECTORY_NAME, sealed)
    return [PackedChunk(*row) for row in ROW.iter_unpack(rows)]


__all__ = [
    "ID_SIZE",
    "PACK_TARGET",
    "PackBuilder",
    "PackedChunk",
    "PackedRows",
    "directory_size",
    "pack_digest",
    "read_directory",
]
