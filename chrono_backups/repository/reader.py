"""Fetching, opening and decoding chunks; many of them in a given order, ahead of need."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import local

from chrono_backups.errors import Damaged, ObjectMissing, StorageError
from chrono_backups.pipeline.compression import Decompressor, NotDecodable
from chrono_backups.pipeline.encryption import HEADER_SIZE, KINDS, MAGIC, VERSION, Keys, NotAuthentic
from chrono_backups.repository.format import object_key
from chrono_backups.repository.index import Index, Location
from chrono_backups.storage.base import Storage

_WORKERS = 2
_REQUEST_TARGET = 4 * 1024 * 1024
"""Neighbouring chunks of a pack are fetched by one request up to this many content bytes."""
_AHEAD = 24 * 1024 * 1024
"""Content bytes decoded or being decoded ahead of the reader."""
_KEPT = 16 * 1024 * 1024
"""Content bytes of chunks kept behind the reader: small files of neighbouring directories share chunks."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    chunk_id: bytes
    place: Location


Content = bytes | memoryview | Damaged
_Known = OrderedDict[bytes, tuple[Future[list[Content]], int]]


class ChunkReader:
    """Reads chunks of one repository. ``close`` ends its threads."""

    def __init__(self, storage: Storage, keys: Keys, index: Index) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._threads: ThreadPoolExecutor | None = None
        self._local = local()

    def locate(self, chunk_id: bytes) -> Location:
        """Where the chunk is. Raises ``Damaged`` where the repository does not hold it."""
        place = self._index.find(chunk_id)
        if place is None:
            raise Damaged(f"chunk {chunk_id.hex()} is in no pack", key=f"chunk {chunk_id.hex()}")
        return place

    def read(self, chunk_id: bytes) -> bytes | memoryview:
        """The content of one chunk. Raises ``Damaged``."""
        content = self._fetch([_Wanted(chunk_id, self.locate(chunk_id))])[0]
        if isinstance(content, Damaged):
            raise content
        return content

    def stream(self, chunk_ids: Iterable[bytes]) -> Iterator[Content]:
        """The contents of chunks in the order asked for, decoded ahead by threads of this reader.

        In the place of a chunk that can't be had comes the ``Damaged`` that says why, so that a restore
        can go on with the rest. What comes more than once within a short stretch is fetched once.
        """
        window: deque[bytes] = deque()
        known: _Known = OrderedDict()
        sizes: dict[bytes, int] = {}
        pending: list[_Wanted] = []
        waiting = iter(chunk_ids)
        ahead = 0

        def submit() -> None:
            if pending:
                future = self._pool().submit(self._fetch, tuple(pending))
                known.update((one.chunk_id, (future, i)) for i, one in enumerate(pending))
                pending.clear()

        def advance() -> bool:
            nonlocal ahead
            chunk_id = next(waiting, None)
            if chunk_id is None:
                return False
            window.append(chunk_id)
            if chunk_id not in known and all(one.chunk_id != chunk_id for one in pending):
                try:
                    wanted = _Wanted(chunk_id, self.locate(chunk_id))
                except Damaged as error:
                    known[chunk_id] = (_settled([error]), 0)
                    sizes[chunk_id] = 0
                    return True
                if pending and not _adjoins(pending, wanted):
                    submit()
                pending.append(wanted)
                sizes[chunk_id] = wanted.place.content_size
            ahead += sizes[chunk_id]
            return True

        try:
            while True:
                while ahead < _AHEAD and advance():
                    pass
                if not window:
                    return
                chunk_id = window.popleft()
                if chunk_id not in known:
                    submit()
                known.move_to_end(chunk_id)
                future, position = known[chunk_id]
                ahead -= sizes[chunk_id]
                yield future.result()[position]
                _forget_oldest(known, sizes, window)
        finally:
            for future, _ in known.values():
                future.cancel()

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="open")
        return self._threads

    def _fetch(self, wanted: Sequence[_Wanted]) -> list[Content]:
        first, last = wanted[0].place, wanted[-1].place
        pack = first.pack
        key = object_key("pack", pack.name)
        try:
            stored = self._storage.get(key, first.offset, last.offset + last.sealed_size - first.offset)
        except StorageError as error:
            damage = _damage(key, error)
            if len(wanted) > 1:  # what lies before the place where the pack was cut can be had
                return [content for one in wanted for content in self._fetch([one])]
            return [self._elsewhere(wanted[0], damage)]
        view = memoryview(stored)
        contents: list[Content] = []
        for one in wanted:
            content = self._open(one, view[one.place.offset - first.offset :][: one.place.sealed_size])
            contents.append(self._elsewhere(one, content) if isinstance(content, Damaged) else content)
        return contents

    def _elsewhere(self, wanted: _Wanted, damage: Damaged) -> Content:
        """The chunk from another pack that holds it, as a later run stored it anew; else ``damage``."""
        for place in self._index.find_all(wanted.chunk_id):
            if place.pack.digest == wanted.place.pack.digest:
                continue
            try:
                sealed = self._storage.get(object_key("pack", place.pack.name), place.offset, place.sealed_size)
            except StorageError as error:
                _damage("", error)
                continue
            content = self._open(_Wanted(wanted.chunk_id, place), memoryview(sealed))
            if not isinstance(content, Damaged):
                return content
        return damage

    def _open(self, wanted: _Wanted, sealed: memoryview) -> Content:
        place = wanted.place
        key = object_key("pack", place.pack.name)
        try:
            header = pack_header(place.pack.salt)
            frame = self._keys.opener("pack", header).open(place.offset, wanted.chunk_id, sealed)
            return self._decompressor().decompress(frame[0], memoryview(frame)[1:], place.content_size)
        except (NotAuthentic, NotDecodable, IndexError) as error:
            return Damaged(f"{key} is damaged at byte {place.offset}: {error}", key=key)

    def _decompressor(self) -> Decompressor:
        if not hasattr(self._local, "decompressor"):
            self._local.decompressor = Decompressor()
        decompressor: Decompressor = self._local.decompressor
        return decompressor

    def close(self) -> None:
        """End the threads; what they were at is dropped."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None


def pack_header(salt: bytes) -> bytes:
    """The header that a pack with that salt starts with."""
    header = MAGIC + bytes((VERSION, KINDS["pack"], 0, 0)) + salt
    assert len(header) == HEADER_SIZE
    return header


def _damage(key: str, error: StorageError) -> Damaged:
    """What an object that is gone or can't be read is; raises ``error`` where it may well be there."""
    if isinstance(error, ObjectMissing):
        return Damaged(f"{key} is missing", key=key)
    if type(error) is StorageError:
        return Damaged(f"{key} can't be read: {error}", key=key)
    raise error


def _adjoins(pending: Sequence[_Wanted], wanted: _Wanted) -> bool:
    """Whether ``wanted`` lies right behind ``pending`` and the request stays small."""
    last, place = pending[-1].place, wanted.place
    if place.pack.digest != last.pack.digest or place.offset != last.offset + last.sealed_size:
        return False
    return sum(one.place.content_size for one in pending) + place.content_size <= _REQUEST_TARGET


def _settled(contents: list[Content]) -> Future[list[Content]]:
    future: Future[list[Content]] = Future()
    future.set_result(contents)
    return future


def _forget_oldest(known: _Known, sizes: dict[bytes, int], window: deque[bytes]) -> None:
    """Let go of the chunks longest unused, beyond what is kept, that the window does not ask for again."""
    kept = sum(sizes[chunk_id] for chunk_id in known)
    if kept <= _AHEAD + _KEPT:
        return
    soon = set(window)
    for chunk_id in list(known):
        if kept <= _AHEAD + _KEPT:
            return
        if chunk_id not in soon:
            kept -= sizes.pop(chunk_id)
            del known[chunk_id]
