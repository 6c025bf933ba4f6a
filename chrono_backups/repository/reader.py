"""Fetching, opening and decoding chunks; many of them in a given order, ahead of need."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

from chrono_backups.errors import Damaged, ObjectMissing, StorageError
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.format import object_key
from chrono_backups.repository.index import Index, Location
from chrono_backups.repository.opening import Content, Opening, Wanted
from chrono_backups.storage.base import Storage
from chrono_backups.storage.fallback import copies

_WORKERS = 2
_REQUEST_TARGET = 4 * 1024 * 1024
"""Chunks that lie near each other in a pack are fetched by one request up to this many content bytes."""
_GAP_MOST = 64 * 1024
"""Bytes between two chunks that are fetched for nothing sooner than by another request."""
_BATCH = 12 * 1024 * 1024
"""Content bytes of the chunks that are asked for together: what two threads wrote side by side."""
_AHEAD = 24 * 1024 * 1024
"""Content bytes decoded or being decoded ahead of the reader."""
_KEPT = 16 * 1024 * 1024
"""Content bytes of chunks kept behind the reader: small files of neighbouring directories share chunks."""
_WINDOW_MOST = 16384
"""Chunks in order ahead of the reader, however small or often the same."""


class ChunkReader:
    """Reads chunks of one repository. ``close`` ends its threads."""

    def __init__(
        self, storage: Storage, keys: Keys, index: Index, *, widen: Callable[[], bool] = lambda: False
    ) -> None:
        """``widen`` is asked once when the index does not know a chunk; whether it has added anything."""
        self._storage = storage
        self._widen: Callable[[], bool] | None = widen
        self._keys = keys
        self._index = index
        self._threads: ThreadPoolExecutor | None = None
        self._local = local()

    def locate(self, chunk_id: bytes) -> Location:
        """Where the chunk is. Raises ``Damaged`` where the repository does not hold it."""
        place = self._index.find(chunk_id)
        if place is None and self._widen is not None:
            widen, self._widen = self._widen, None
            place = self._index.find(chunk_id) if widen() else None
        if place is None:
            raise Damaged(f"chunk {chunk_id.hex()} is in no pack", key=f"chunk {chunk_id.hex()}")
        return place

    def read(self, chunk_id: bytes) -> bytes | memoryview:
        """The content of one chunk. Raises ``Damaged``."""
        content = self._fetch([Wanted(chunk_id, self.locate(chunk_id))])[0]
        if isinstance(content, Damaged):
            raise content
        return content

    def stream(self, chunk_ids: Iterable[bytes]) -> Iterator[Content]:
        """The contents of chunks in the order asked for, fetched and decoded ahead by threads of this reader.

        In the place of a chunk that can't be had comes the ``Damaged`` that says why, so that a restore
        can go on with the rest. What comes more than once within a short stretch is fetched once.
        """
        return _ReadAhead(self, chunk_ids).contents()

    def submit(self, wanted: Sequence[Wanted]) -> Future[list[Content]]:
        """Have a stretch of a pack fetched by one request: its chunks ``wanted``, in the order of their offsets."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="open")
        return self._threads.submit(self._fetch, wanted)

    def _fetch(self, wanted: Sequence[Wanted]) -> list[Content]:
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
        starts = [one.place.offset - first.offset for one in wanted]
        sealed = [view[at : at + one.place.sealed_size] for at, one in zip(starts, wanted, strict=True)]
        return [
            self._elsewhere(one, content) if isinstance(content, Damaged) else content
            for one, content in zip(wanted, self._opening().open(wanted, sealed), strict=True)
        ]

    def _elsewhere(self, wanted: Wanted, damage: Damaged) -> Content:
        """The chunk from the pack's copy in another storage, where several are read, or from another pack that holds
        it, as a later run stored it anew; else ``damage``.
        """
        here = wanted.place
        for stored in copies(self._storage, object_key("pack", here.pack.name), here.offset, here.sealed_size):
            (content,) = self._opening().open([wanted], [memoryview(stored)])
            if not isinstance(content, Damaged):
                return content
        for place in self._index.find_all(wanted.chunk_id):
            if place.pack.digest == wanted.place.pack.digest:
                continue
            try:
                sealed = self._storage.get(object_key("pack", place.pack.name), place.offset, place.sealed_size)
            except StorageError as error:
                _damage("", error)
                continue
            (content,) = self._opening().open([Wanted(wanted.chunk_id, place)], [memoryview(sealed)])
            if not isinstance(content, Damaged):
                return content
        return damage

    def _opening(self) -> Opening:
        """This thread's."""
        if not hasattr(self._local, "opening"):
            self._local.opening = Opening(self._keys)
        opening: Opening = self._local.opening
        return opening

    def close(self) -> None:
        """End the threads; what they were at is dropped."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None


def _damage(key: str, error: StorageError) -> Damaged:
    """What an object that is gone or can't be read is; raises ``error`` where it may well be there."""
    if isinstance(error, ObjectMissing):
        return Damaged(f"{key} is missing", key=key)
    if type(error) is StorageError:
        return Damaged(f"{key} can't be read: {error}", key=key)
    raise error


def _settled(contents: list[Content]) -> Future[list[Content]]:
    future: Future[list[Content]] = Future()
    future.set_result(contents)
    return future


class _ReadAhead:
    """One stream of chunks: what is wanted soon, what is on its way, what is kept.

    Chunks are asked for in batches, so that what lies near each other in a pack comes by one request though it is
    wanted in another order: several threads wrote a pack, and a file's newest pages lie apart from its older ones.
    """

    def __init__(self, reader: ChunkReader, chunk_ids: Iterable[bytes]) -> None:
        self._reader = reader
        self._waiting = iter(chunk_ids)
        self._window: deque[bytes] = deque()
        self._uses: dict[bytes, int] = {}
        """How often a chunk is in the window."""
        self._ahead: dict[bytes, int] = {}
        """Content sizes of the chunks that are in the window and were not given yet."""
        self._ahead_bytes = 0
        self._batch: dict[bytes, Wanted] = {}
        self._batch_bytes = 0
        self._known: OrderedDict[bytes, tuple[Future[list[Content]], int, int]] = OrderedDict()
        """Future, position in what it gives, content size; the longest unused first."""
        self._known_bytes = 0

    def contents(self) -> Iterator[Content]:
        try:
            while True:
                while self._ahead_bytes < _AHEAD and len(self._window) < _WINDOW_MOST and self._advance():
                    pass
                if not self._window:
                    return
                chunk_id = self._window.popleft()
                if chunk_id not in self._known:
                    self._submit()
                self._known.move_to_end(chunk_id)
                future, position, _ = self._known[chunk_id]
                self._ahead_bytes -= self._ahead.pop(chunk_id, 0)
                self._uses[chunk_id] -= 1
                if not self._uses[chunk_id]:
                    del self._uses[chunk_id]
                yield future.result()[position]
                self._forget()
        finally:
            for future, _, _ in self._known.values():
                future.cancel()

    def _advance(self) -> bool:
        """Take one more chunk into the window; False at the end."""
        chunk_id = next(self._waiting, None)
        if chunk_id is None:
            return False
        self._window.append(chunk_id)
        self._uses[chunk_id] = self._uses.get(chunk_id, 0) + 1
        if chunk_id in self._known or chunk_id in self._batch:
            return True
        try:
            place = self._reader.locate(chunk_id)
        except Damaged as error:
            self._known[chunk_id] = (_settled([error]), 0, 0)
            return True
        self._batch[chunk_id] = Wanted(chunk_id, place)
        self._batch_bytes += place.content_size
        self._ahead[chunk_id] = place.content_size
        self._ahead_bytes += place.content_size
        if self._batch_bytes >= _BATCH:
            self._submit()
        return True

    def _submit(self) -> None:
        """Ask for the batch, a request for each stretch of a pack."""
        for stretch in _stretches(self._batch.values()):
            future = self._reader.submit(stretch)
            for position, one in enumerate(stretch):
                self._known[one.chunk_id] = (future, position, one.place.content_size)
                self._known_bytes += one.place.content_size
        self._batch = {}
        self._batch_bytes = 0

    def _forget(self) -> None:
        """Let go of the chunks longest unused, beyond what is kept, that the window does not ask for again."""
        looked_at = 0
        while self._known_bytes > _AHEAD + _KEPT and looked_at < len(self._known):
            chunk_id, (_, _, size) = next(iter(self._known.items()))
            if chunk_id in self._uses:
                self._known.move_to_end(chunk_id)
                looked_at += 1
            else:
                del self._known[chunk_id]
                self._known_bytes -= size


def _stretches(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """What is wanted, by pack and offset, parted where a request would grow too large or fetch much for nothing."""
    stretch: list[Wanted] = []
    size = 0
    for one in sorted(wanted, key=lambda each: (each.place.pack.digest, each.place.offset)):
        if stretch:
            last = stretch[-1].place
            near = last.pack.digest == one.place.pack.digest
            near = near and one.place.offset - last.offset - last.sealed_size <= _GAP_MOST
            if not near or size + one.place.content_size > _REQUEST_TARGET:
                yield stretch
                stretch, size = [], 0
        stretch.append(one)
        size += one.place.content_size
    if stretch:
        yield stretch
