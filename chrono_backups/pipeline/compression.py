"""Compression of chunks (``docs/repository-format.md``, "Codecs").

A compressor belongs to one thread. What does not shrink is stored as it is, so a chunk never grows.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Literal, cast

import zstandard

Type = Literal["zstd", "gzip", "none"]
Buffer = bytes | bytearray | memoryview

STORED = 0
ZSTD = 1
ZLIB = 2


class NotDecodable(Exception):
    """Compressed bytes that don't decode to what was recorded."""


class Compressor:
    """Compresses with one codec and level into a buffer that the caller keeps."""

    def __init__(self, kind: Type, level: int | None = None) -> None:
        self._zlib_level = level if level is not None else 6
        self._zstd = zstandard.ZstdCompressor(level=level if level is not None else 1) if kind == "zstd" else None
        self._kind = kind

    def compress_into(self, content: memoryview, out: memoryview) -> tuple[int, int]:
        """Codec and size of ``content`` compressed into the start of ``out``, at least as large."""
        size = len(content)
        written = self._shrink(content, out) if size else None
        if written is not None:
            return ZSTD if self._zstd is not None else ZLIB, written
        out[:size] = content
        return STORED, size

    def _shrink(self, content: memoryview, out: memoryview) -> int | None:
        """Compressed size, or None where it would not be smaller."""
        if self._kind == "none":
            return None
        # One shot, not a stream into `out`: a stream goes through a ring buffer of its own, a tenth slower.
        compressed = self._zstd.compress(content) if self._zstd else zlib.compress(content, self._zlib_level)
        if len(compressed) >= len(content):
            return None
        out[: len(compressed)] = compressed
        return len(compressed)


class Decompressor:
    """Decodes what a ``Compressor`` wrote. Belongs to one thread."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()

    def decompress(self, codec: int, data: memoryview, size: int) -> bytes | memoryview:
        """The ``size`` bytes of content; those of a stored chunk are ``data`` itself.

        Raises ``NotDecodable`` where sizes or bytes don't fit.
        """
        content: bytes | memoryview
        try:
            if codec == STORED:
                content = data
            elif codec == ZSTD:
                content = self._zstd.decompress(data, max_output_size=size)
            elif codec == ZLIB:
                content = zlib.decompress(data)
            else:
                raise NotDecodable(f"unknown codec {codec}")
        except (zstandard.ZstdError, zlib.error) as error:
            raise NotDecodable(f"it does not decode: {error}") from error
        if len(content) != size:
            raise NotDecodable(f"{len(content)} bytes where {size} were recorded")
        return content

    def decompress_all(self, frames: Sequence[tuple[int, memoryview, int]]) -> list[bytes | memoryview | NotDecodable]:
        """The same of many, each ``(codec, data, size)``; in the place of one that does not decode, why not.

        Frames of zstd are decoded by one call. Each call gives the interpreter away, and while another thread is busy
        it comes back only some milliseconds later: a hundred times what decoding 64 KiB takes.
        """
        together = [number for number, (codec, _, size) in enumerate(frames) if codec == ZSTD and size]
        decoded = self._decode([frames[number] for number in together]) if len(together) > 1 else None
        contents: dict[int, bytes | memoryview | NotDecodable] = {}
        if decoded is not None:
            contents.update(zip(together, decoded, strict=True))
        for number, frame in enumerate(frames):
            if number not in contents:
                try:
                    contents[number] = self.decompress(*frame)
                except NotDecodable as error:
                    contents[number] = error
        return [contents[number] for number in range(len(frames))]

    def _decode(self, frames: Sequence[tuple[int, memoryview, int]]) -> list[memoryview] | None:
        """What frames of zstd hold, or None where one is not what was recorded, or the library can't."""
        sizes = struct.pack(f"={len(frames)}Q", *(size for _, _, size in frames))
        try:
            found = self._zstd.multi_decompress_to_buffer([data for _, data, _ in frames], sizes, 1)
        except (AttributeError, zstandard.ZstdError):  # the library's own implementation in Python has no such method
            return None
        return [memoryview(cast("bytes", found[number])) for number in range(len(frames))]
