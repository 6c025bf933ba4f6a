"""Compression of chunks (``docs/repository-format.md``, "Codecs").

A compressor belongs to one thread. What does not shrink is stored as it is, so a chunk never grows.
"""

from __future__ import annotations

import zlib
from typing import Literal

import zstandard

Type = Literal["zstd", "gzip", "none"]
Buffer = bytes | bytearray | memoryview

STORED = 0
ZSTD = 1
ZLIB = 2

_SMALL = 256 * 1024
"""Up to this size one-shot compression is faster than a stream into a kept buffer; above, page faults of
fresh output buffers cost more than zstd itself."""


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
        size = len(content)
        if self._zstd is not None and size > _SMALL:
            reader = self._zstd.stream_reader(content, size=size, closefd=False)
            written = reader.readinto(out[: size - 1])
            # A reader that has more to give than fits has not shrunk its content.
            return None if written >= size - 1 or reader.read(1) else written
        if self._kind == "none":
            return None
        compressed = (
            self._zstd.compress(content) if self._zstd is not None else zlib.compress(content, self._zlib_level)
        )
        if len(compressed) >= size:
            return None
        out[: len(compressed)] = compressed
        return len(compressed)


class Decompressor:
    """Decodes what a ``Compressor`` wrote. Belongs to one thread."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()

    def decompress_into(self, codec: int, data: memoryview, out: memoryview) -> None:
        """Fill ``out`` exactly. Raises ``NotDecodable`` where sizes or bytes don't fit."""
        if codec == STORED:
            if len(data) != len(out):
                raise NotDecodable(f"{len(data)} stored bytes where {len(out)} were recorded")
            out[:] = data
        elif codec == ZSTD:
            self._inflate_zstd(data, out)
        elif codec == ZLIB:
            try:
                inflated = zlib.decompress(data)
            except zlib.error as error:
                raise NotDecodable(f"zlib: {error}") from error
            if len(inflated) != len(out):
                raise NotDecodable(f"{len(inflated)} bytes decoded where {len(out)} were recorded")
            out[:] = inflated
        else:
            raise NotDecodable(f"unknown codec {codec}")

    def _inflate_zstd(self, data: memoryview, out: memoryview) -> None:
        try:
            reader = self._zstd.stream_reader(data, closefd=False)
            done = 0
            while done < len(out):
                count = reader.readinto(out[done:])
                if not count:
                    break
                done += count
            if done != len(out) or reader.read(1):
                raise NotDecodable(f"zstd data does not decode to the {len(out)} bytes recorded")
        except zstandard.ZstdError as error:
            raise NotDecodable(f"zstd: {error}") from error
