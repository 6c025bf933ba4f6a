"""Proving packs: every byte is read, opened, decoded and compared with what it is named by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from chrono_backups.maintenance.marks import MarkedIndex
from chrono_backups.pipeline.chunking import MAX_CHUNK
from chrono_backups.pipeline.compression import Decompressor, NotDecodable
from chrono_backups.pipeline.encryption import HEADER_SIZE, TAG_SIZE, Keys, NotAuthentic, Sealer
from chrono_backups.pipeline.packing import TRAILER, PackedChunk, directory_size, pack_digest, read_directory

THREADS = 2
A = TypeVar("A")
B = TypeVar("B")


@dataclass
class PackResult:
    """What became of one pack."""

    digest: bytes
    chunks: int = 0
    faults: list[str] = field(default_factory=list)
    """What is wrong with the object, in words."""
    bad: list[bytes] = field(default_factory=list)
    """The chunks that can't be had from it."""


class PackProver:
    """Proves packs against the index. May be shared by threads; each has buffers of its own."""

    def __init__(self, keys: Keys, index: MarkedIndex) -> None:
        self._keys = keys
        self._index = index
        self._counts: dict[bytes, list[int]] = {}
        for table in index.tables:
            for pack, count in table.chunks_of_packs():
                self._counts.setdefault(pack.digest, []).append(count)
        self._local = threading.local()

    def prove(self, digest: bytes, data: bytes | bytearray) -> PackResult:
        """Prove what is stored as the pack of that digest."""
        result = PackResult(digest)
        if pack_digest(data) != digest:
            result.faults.append("its bytes are not those that it is named by")
        with memoryview(data) as view:
            try:
                sealer = self._keys.opener("pack", view[:HEADER_SIZE])
            except NotAuthentic as error:
                result.faults.append(str(error))
                result.bad = [row.chunk_id for row in self._indexed(digest)]
                return result
            for row in self._rows(digest, view, result):
                result.chunks += 1
                try:
                    self._open(sealer, row, view)
                except (NotAuthentic, NotDecodable) as error:
                    result.faults.append(f"the chunk at byte {row.offset}: {error}")
                    result.bad.append(row.chunk_id)
        return result

    def _rows(self, digest: bytes, view: memoryview, result: PackResult) -> list[PackedChunk]:
        """The pack's chunks by its own account, or where it has none or another one, by that of the index."""
        try:
            rows = _directory(self._keys, view)
        except NotAuthentic as error:
            result.faults.append(f"its directory: {error}")
            return self._indexed(digest)
        if digest not in self._counts:
            return rows
        counted = all(count == len(rows) for count in self._counts[digest])
        if counted and all(self._agrees(digest, row) for row in rows):
            return rows
        indexed = self._indexed(digest)  # where two index objects name the pack a table may have its rows twice
        if indexed != sorted(rows, key=lambda row: row.offset):
            result.faults.append("its directory and the index do not agree")
        return indexed

    def _agrees(self, digest: bytes, row: PackedChunk) -> bool:
        return any(
            table.packs[table.pack[at]].digest == digest
            and (table.offset[at], table.sealed[at], table.size[at]) == (row.offset, row.sealed_size, row.content_size)
            for table, at in self._index.places(row.chunk_id)
        )

    def _indexed(self, digest: bytes) -> list[PackedChunk]:
        """What the index says of the pack. Slow, and only asked where something is wrong."""
        rows = {}
        for table, at in self._index.select(lambda pack: pack.digest == digest):
            rows[table.offset[at]] = PackedChunk(table.chunk_id(at), table.offset[at], table.sealed[at], table.size[at])
        return [rows[offset] for offset in sorted(rows)]

    def _open(self, sealer: Sealer, row: PackedChunk, view: memoryview) -> None:
        """Raises ``NotAuthentic`` or ``NotDecodable`` where the chunk is not the one it is named."""
        scratch = self._scratch(row.sealed_size)
        size = row.sealed_size - TAG_SIZE
        if size < 1 or row.offset + row.sealed_size > len(view):
            raise NotAuthentic("it lies beyond the pack's end" if size >= 1 else "it is too short")
        frame = scratch[:size]
        sealer.open_into(row.offset, row.chunk_id, view[row.offset : row.offset + row.sealed_size], frame)
        content = self._local.decompressor.decompress(frame[0], frame[1:], row.content_size)
        if self._keys.chunk_id(content) != row.chunk_id:
            raise NotAuthentic("its content is not what its id says")

    def _scratch(self, size: int) -> memoryview:
        """A buffer of this thread, kept: fresh ones cost page faults."""
        if not hasattr(self._local, "decompressor"):
            self._local.decompressor = Decompressor()
            self._local.scratch = memoryview(bytearray(MAX_CHUNK + 4096))
        if size > len(self._local.scratch):
            self._local.scratch = memoryview(bytearray(size))
        scratch: memoryview = self._local.scratch
        return scratch


def _directory(keys: Keys, view: memoryview) -> list[PackedChunk]:
    """A pack's own account. Raises ``NotAuthentic``."""
    if len(view) < HEADER_SIZE + TRAILER.size:
        raise NotAuthentic("the pack is too short to have one")
    end = len(view) - TRAILER.size
    start = end - directory_size(view[end:])
    if start < HEADER_SIZE:
        raise NotAuthentic("it is larger than the pack")
    return read_directory(keys, view[:HEADER_SIZE], view[start:end], start)


def on_threads(work: Callable[[A], B], items: Iterable[A], threads: int = THREADS, *, ahead: int = 1) -> Generator[B]:
    """What ``work`` makes of each item, in order, by that many threads that are so many items ahead of the caller.

    Where results are small more may be ahead: then nobody idles while the first of those under way takes long.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="maintenance") as pool:
        under_way: list[Future[B]] = [pool.submit(work, item) for item in islice(waiting, threads + ahead)]
        try:
            while under_way:
                yield under_way.pop(0).result()
                under_way += [pool.submit(work, item) for item in islice(waiting, 1)]
        finally:
            for future in under_way:
                future.cancel()
