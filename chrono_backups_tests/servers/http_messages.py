"""Heads and bodies of HTTP messages as they are on the wire, for the proxy (``fault_proxy.py``)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

PIECE = 2**16


class Head:
    """The first line and the headers of a request or an answer."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.first, *lines = raw.decode("latin-1").split("\r\n")
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }

    @property
    def expects(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    def with_length(self, length: int) -> bytes:
        return re.sub(rb"(?i)\r\nContent-Length: *\d+", b"\r\nContent-Length: %d" % length, self.raw)


async def read_body(reader: asyncio.StreamReader, head: Head, *, request: bool) -> AsyncIterator[bytes]:
    """A body as it is on the wire, piece by piece."""
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line
            if size:
                yield await reader.readexactly(size + 2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            yield line
        yield line
    elif "content-length" in head.headers:
        left = int(head.headers["content-length"])
        while left:
            piece = await reader.read(min(PIECE, left))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
    elif not request:
        async for piece in until_end(reader):
            yield piece
        raise asyncio.IncompleteReadError(b"", None)


async def until_end(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """All that comes, piece by piece."""
    while piece := await reader.read(PIECE):
        yield piece
