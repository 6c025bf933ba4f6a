"""Storing chunks: identify → look up → compress → seal → pack → put, on several threads.

The caller fills slots (buffers that are kept) and hands them in with the places where they are cut.
Workers give each chunk its id and compress what the repository does not hold; full packs go to
uploaders. Everything is bounded: when slots or pack buffers are all in use, the caller waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from mmap import mmap
from queue import SimpleQueue

from chrono_backups.clock import Clock
from chrono_backups.errors import ObjectExists
from chrono_backups.pipeline.chunking import MAX_CHUNK
from chrono_backups.pipeline.compression import Compressor, Type
from chrono_backups.pipeline.encryption import SALT_SIZE, Keys
from chrono_backups.pipeline.packing import PACK_TARGET, PackBuilder, PackedChunk
from chrono_backups.repository.format import object_key, seal_object
from chrono_backups.repository.index import Index, IndexTable, Location, Pack, encode_index
from chrono_backups.storage.base import Storage

SLOT_SIZE = MAX_CHUNK + MAX_CHUNK // 2
"""Room for the largest chunk and what is read on meanwhile; larger ones cost memory and are no quicker."""
_PATIENCE = 1.0
"""Seconds that a run that has failed or was stopped waits for each of its threads."""
_TARGETS = {False: PACK_TARGET, True: PACK_TARGET // 4}
"""Where a pack is closed, of contents and of listings. One of listings is open beside that of contents all along."""
_BUFFERS = {listing: target + MAX_CHUNK + 256 * 1024 for listing, target in _TARGETS.items()}
_LISTING_BUILDERS = 2
"""One to fill while one is on its way."""
_INDEX_EVERY = 32768
"""Chunks after which a run writes what it has of the index, and forgets its own larger record of it."""


@dataclass(frozen=True)
class PipelineOptions:
    """How chunks are compressed, and how much may be done at once."""

    compression: Type = "zstd"
    level: int | None = None
    workers: int = 2
    uploads: int = 2
    slots: int = 5

    @property
    def memory(self) -> int:
        """Bytes of buffers that the pipeline holds at the most."""
        packs = (self.uploads + 1) * _BUFFERS[False] + _LISTING_BUILDERS * _BUFFERS[True]
        return self.slots * SLOT_SIZE + packs + self.workers * MAX_CHUNK

    def within(self, memory: int) -> PipelineOptions:
        """These options, with as much less at once as keeps the buffers within ``memory`` bytes."""
        options = self
        while options.memory > memory and (options.workers, options.uploads, options.slots) != (1, 1, 3):
            options = replace(
                options,
                workers=max(1, options.workers - 1),
                uploads=max(1, options.uploads - 1),
                slots=max(3, options.slots - 1),
            )
        return options


class Ticket:
    """A slot handed in. ``ids`` are its chunks' ids, once ``done`` is set."""

    __slots__ = ("cuts", "done", "ids", "listing", "slot")

    def __init__(self, slot: bytes | bytearray, cuts: Sequence[tuple[int, int]], *, listing: bool) -> None:
        self.slot = slot
        self.cuts = cuts
        self.listing = listing
        self.ids: list[bytes] = []
        self.done = threading.Event()


@dataclass
class Added:
    """What a writer has added to the repository so far."""

    chunks: int = 0
    content: int = 0
    stored: int = 0


@dataclass
class _OpenPack:
    builder: PackBuilder
    salt: bytes
    listing: bool


class ChunkWriter:
    """Writes chunks of one run. A context: leaving it with an error drops what is not yet packed.

    Chunks in the packs whose digests are in ``distrusted`` are stored anew: those packs are condemned, or not
    what the index says. ``on_pack`` is called, from the thread that fills slots, each time packs became durable.
    """

    def __init__(
        self,
        storage: Storage,
        keys: Keys,
        index: Index,
        clock: Clock,
        options: PipelineOptions,
        *,
        distrusted: Set[bytes],
        index_name: Callable[[], str],
        on_pack: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._distrusted = distrusted
        self._clock = clock
        self._options = options
        self._index_name = index_name
        self._on_pack = on_pack
        self.added = Added()
        self._lock = threading.Lock()
        self._new: set[bytes] = set()
        self._stored: list[tuple[Pack, Sequence[PackedChunk]]] = []
        self._stored_chunks = 0
        self._failure: BaseException | None = None
        self._open: dict[bool, _OpenPack | None] = {False: None, True: None}
        self._work: SimpleQueue[Ticket | None] = SimpleQueue()
        self._packs: SimpleQueue[_OpenPack | None] = SimpleQueue()
        self._slots: SimpleQueue[bytearray] = SimpleQueue()
        self._slots_made = 0
        self._builders: dict[bool, SimpleQueue[PackBuilder]] = {False: SimpleQueue(), True: SimpleQueue()}
        self._builders_left = {False: options.uploads + 1, True: _LISTING_BUILDERS}
        self._packs_pending = 0
        self._packs_done = threading.Condition(self._lock)
        self._announced = 0
        self._completed = 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ChunkWriter:
        for target, count in ((self._compress_all, self._options.workers), (self._upload_all, self._options.uploads)):
            for _ in range(count):
                thread = threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
                thread.start()
                self._threads.append(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and self._failure is None:
            self._failure = error
        for _ in range(self._options.workers):
            self._work.put(None)
        for _ in range(self._options.uploads):
            self._packs.put(None)
        # An upload that is held up by the bandwidth limit or a slow storage does no harm if it goes on for itself:
        # whoever stops a run need not wait for it.
        patience = None if self._failure is None else _PATIENCE
        for thread in self._threads:
            thread.join(patience)

    # The caller's side.

    def find(self, chunk_id: bytes) -> Location | None:
        """Where the repository holds the chunk, in a pack that may be relied on."""
        return self._index.find(chunk_id, self._distrusted)

    def lacking(self, chunk_ids: Iterable[bytes]) -> list[bytes]:
        """Those of many chunks that ``find`` would not find."""
        return self._index.lacking(chunk_ids, self._distrusted)

    def slot(self) -> bytearray:
        """A buffer of ``SLOT_SIZE`` bytes to fill; waits until one is free. Raises what a thread met."""
        self._check()
        if self._slots.empty() and self._slots_made < self._options.slots:
            self._slots_made += 1
            return bytearray(SLOT_SIZE)
        slot = self._slots.get()
        self._check()
        return slot

    def store(self, slot: bytearray, cuts: Sequence[tuple[int, int]]) -> Ticket:
        """Hand in a slot with the ``(start, end)`` of its chunks; the buffer is no longer the caller's."""
        return self._hand_in(Ticket(slot, cuts, listing=False))

    def store_listing(self, content: bytes | bytearray) -> Ticket:
        """Hand in a chunk that describes others: listings and extent rows.

        These have packs of their own, so that a listing is read with few requests.
        """
        if len(content) > MAX_CHUNK:
            raise ValueError(f"a chunk has at most {MAX_CHUNK} bytes, not {len(content)}")
        return self._hand_in(Ticket(content, [(0, len(content))], listing=True))

    def _hand_in(self, ticket: Ticket) -> Ticket:
        self._check()
        self._work.put(ticket)
        if self._announced != self._completed:
            self._announced = self._completed
            self._on_pack()
            self._flush_index(_INDEX_EVERY)
        return ticket

    def wait(self, ticket: Ticket) -> list[bytes]:
        """The ids of a ticket's chunks, once they are known. Raises what a thread met."""
        ticket.done.wait()
        self._check()
        return ticket.ids

    def flush(self) -> None:
        """Return when every chunk handed in is durable and in the index. Raises what a thread met.

        All tickets must have been waited for.
        """
        with self._lock:
            self._close_pack(listing=False)
            self._close_pack(listing=True)
            while self._packs_pending and self._failure is None:
                self._packs_done.wait(1.0)
        self._check()
        self._flush_index(1)
        self._on_pack()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _flush_index(self, at_least: int) -> None:
        with self._lock:
            if self._stored_chunks < at_least:
                return
            packs, self._stored, self._stored_chunks = self._stored, [], 0
        content = encode_index(packs)
        name = self._index_name()
        self._storage.put(object_key("index", name), seal_object(self._keys, "index", name, content, self._clock))
        table = IndexTable(content)
        with self._lock:
            self._index.add(table)
            self._new.difference_update(row.chunk_id for _, rows in packs for row in rows)

    # The workers' side.

    def _compress_all(self) -> None:
        compressor = Compressor(self._options.compression, self._options.level)
        scratch = bytearray(1 + MAX_CHUNK)
        while (ticket := self._work.get()) is not None:
            try:
                if self._failure is None:
                    self._compress(ticket, compressor, memoryview(scratch))
            except BaseException as error:  # raised again in the caller's thread
                self._fail(error)
            finally:
                if not ticket.listing:
                    self._slots.put(ticket.slot)  # type: ignore[arg-type]
                ticket.slot, ticket.cuts = b"", ()  # tickets are kept for their ids, by the thousand
                ticket.done.set()

    def _compress(self, ticket: Ticket, compressor: Compressor, scratch: memoryview) -> None:
        with memoryview(ticket.slot) as slot:
            for start, end in ticket.cuts:
                content = slot[start:end]
                chunk_id = self._keys.chunk_id(content)
                ticket.ids.append(chunk_id)
                with self._lock:
                    if chunk_id in self._new or self.find(chunk_id) is not None:
                        continue
                    self._new.add(chunk_id)
                scratch[0], size = compressor.compress_into(content, scratch[1:])
                self._pack(chunk_id, scratch[: 1 + size], end - start, listing=ticket.listing)

    def _pack(self, chunk_id: bytes, encoded: memoryview, content_size: int, *, listing: bool) -> None:
        with self._lock:
            while (pack := self._open[listing]) is None or not pack.builder.fits(len(encoded)):
                self._close_pack(listing=listing)
                # The lock is let go while waiting for a buffer: uploaders need it to give one back.
                self._lock.release()
                try:
                    fresh = self._fresh_pack(listing=listing)
                finally:
                    self._lock.acquire()
                if self._open[listing] is None:
                    self._open[listing] = fresh
                else:
                    self._builders[listing].put(fresh.builder)
            self.added.stored += pack.builder.add(chunk_id, encoded, content_size)
            self.added.chunks += 1
            self.added.content += content_size
            if pack.builder.size >= _TARGETS[listing]:
                self._close_pack(listing=listing)

    def _fresh_pack(self, *, listing: bool) -> _OpenPack:
        builders = self._builders[listing]
        with self._lock:
            make = builders.empty() and self._builders_left[listing] > 0
            self._builders_left[listing] -= make
        builder = PackBuilder(mmap(-1, _BUFFERS[listing])) if make else builders.get()
        self._check()
        salt = self._clock.random_bytes(SALT_SIZE)
        builder.start(self._keys.sealer("pack", salt))
        return _OpenPack(builder, salt, listing)

    def _close_pack(self, *, listing: bool) -> None:
        """Send the open pack on its way. The lock is held."""
        pack = self._open[listing]
        if pack is not None and pack.builder.chunks:
            self._packs_pending += 1
            self._packs.put(pack)
            self._open[listing] = None

    # The uploaders' side.

    def _upload_all(self) -> None:
        while (pack := self._packs.get()) is not None:
            try:
                if self._failure is None:
                    self._upload(pack)
            except BaseException as error:  # raised again in the caller's thread
                self._fail(error)
            finally:
                self._builders[pack.listing].put(pack.builder)
                with self._lock:
                    self._packs_pending -= 1
                    self._packs_done.notify_all()

    def _upload(self, pack: _OpenPack) -> None:
        rows = pack.builder.chunks
        digest, data = pack.builder.finish()
        size = len(data)
        with suppress(ObjectExists):  # the same bytes under their own hash: a put whose first answer was lost
            self._storage.put(object_key("pack", digest.hex()), data)
        with self._lock:
            self._stored.append((Pack(digest, pack.salt, size), rows))
            self._stored_chunks += len(rows)
            self._completed += 1

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
            self._packs_done.notify_all()
        # Whoever waits for a buffer finds the failure behind it.
        self._slots.put(bytearray())
        for builders in self._builders.values():
            builders.put(PackBuilder(bytearray()))
