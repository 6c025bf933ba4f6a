"""Where streams are cut (``docs/repository-format.md``, "Chunking").

Content-defined for files: a change moves only the cuts near it. Fixed and aligned where a source
asks for it: pages of a database change in place.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyfastcdc import FastCDC

MIN_CHUNK = 256 * 1024
"""A file smaller than this is never cut; it shares a chunk with its neighbours (a bundle)."""
AVERAGE_CHUNK = 512 * 1024
MAX_CHUNK = 4 * 1024 * 1024
BUNDLE_TARGET = 1024 * 1024
"""A bundle is closed by its content once it is half this size, and at any rate at twice this size."""


class ContentChunker:
    """FastCDC (normalised chunking 2) with this format's sizes. May be shared by threads."""

    def __init__(self) -> None:
        self._cdc = FastCDC(AVERAGE_CHUNK, min_size=MIN_CHUNK, max_size=MAX_CHUNK, normalized_chunking=2)

    def cut(self, window: memoryview, *, last: bool) -> Sequence[int]:
        """Ends of the chunks in ``window``, ascending.

        Unless ``last``, the chunk that touches the window's end may go on behind it and is left out: the
        caller presents its bytes again at the start of the next window.
        """
        ends = [chunk.offset + chunk.length for chunk in self._cdc.cut_buf(window)]
        return ends if last else ends[:-1]


class FixedChunker:
    """Blocks of ``size`` bytes, aligned to the start of the stream."""

    def __init__(self, size: int) -> None:
        if not 0 < size <= MAX_CHUNK:
            raise ValueError(f"a block has 1 to {MAX_CHUNK} bytes, not {size}")
        self._size = size

    def cut(self, window: memoryview, *, last: bool) -> Sequence[int]:
        """As ``ContentChunker.cut``; a short block is cut only at the end of the stream."""
        ends = list(range(self._size, len(window) + 1, self._size))
        if last and len(window) % self._size:
            ends.append(len(window))
        return ends


def closes_bundle(bundle_size: int, file_size: int, content_hash: bytes) -> bool:
    """Whether a bundle of ``bundle_size`` bytes ends behind its newest file, of that size and hash.

    Decided by content, so that the same run of small files makes the same bundle wherever it begins.
    A file's chance to close is its share of half a ``BUNDLE_TARGET``, so the mean is ``BUNDLE_TARGET``
    for files of any size.
    """
    if bundle_size >= 2 * BUNDLE_TARGET:
        return True
    draw = int.from_bytes(content_hash[:4], "little")
    return bundle_size >= BUNDLE_TARGET // 2 and draw * (BUNDLE_TARGET // 2) < file_size << 32
