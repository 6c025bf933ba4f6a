"""Small files: laid into bundles, unless the repository holds them already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chrono_backups.backup.placement import Bundler, InBundle
from chrono_backups.backup.segments import EntryContent
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.listing import NO_HASH, Extent, Segment
from chrono_backups.repository.writer import ChunkWriter

_RECENT_MOST = 50_000
"""Small files remembered by content in one capture, so that copies near each other are stored once."""
_PRESENT_MOST = 65536


class Holdings:
    """Whether the repository holds chunks, in packs that are not condemned. Remembers its answers."""

    def __init__(self, writer: ChunkWriter) -> None:
        self._writer = writer
        self._present: dict[bytes, bool] = {}

    def __call__(self, chunk_id: bytes) -> bool:
        held = self._present.get(chunk_id)
        if held is None:
            if len(self._present) > _PRESENT_MOST:
                self._present.clear()
            held = self._present[chunk_id] = self._writer.find(chunk_id) is not None
        return held


class SmallFiles:
    """Gives each small file its place."""

    def __init__(
        self, keys: Keys, bundler: Bundler, holds: Callable[[bytes], bool], wasteful: frozenset[bytes]
    ) -> None:
        """``wasteful``: bundles that are not worth keeping for the few files of them that are still used."""
        self._hash = keys.content_hash
        self._bundler = bundler
        self._holds = holds
        self._wasteful = wasteful
        self._recent: dict[bytes, InBundle] = {}

    def place(self, room: memoryview, size: int, old: tuple[Segment, int] | None) -> tuple[EntryContent, bytes]:
        """Where the ``size`` bytes at the start of the bundler's ``room`` lie or will lie, and their hash.

        ``old``: the file of that name in an earlier snapshot, a segment and the position in it.
        """
        if not size:
            return [], NO_HASH
        content_hash = self._hash(room[:size])
        if old is not None and old[0].content_hash(old[1]) == content_hash:
            extents = old[0].extents(old[1])
            if self._worth_keeping(extents, size):
                return extents, content_hash
        placed = self._recent.get(content_hash)
        if placed is None or placed.length != size:
            if len(self._recent) >= _RECENT_MOST:
                self._recent.clear()
            placed = self._recent[content_hash] = self._bundler.place(size, content_hash)
        return placed, content_hash

    def _worth_keeping(self, extents: Sequence[Extent], size: int) -> bool:
        return sum(extent.length for extent in extents) == size and all(
            extent.chunk_id is not None and extent.chunk_id not in self._wasteful and self._holds(extent.chunk_id)
            for extent in extents
        )
