"""What callers put, as the bytes that drivers send."""

from __future__ import annotations

import io


def as_bytes(data: memoryview) -> memoryview:
    """A view of single bytes over the same memory, or over a copy where that is in pieces."""
    return data.cast("B") if data.c_contiguous else memoryview(data.tobytes())


class BufferReader(io.RawIOBase):
    """A buffer as a stream, for libraries that read parts of one."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._view.nbytes}[whence]
        self._position = begin + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self._view.nbytes if size is None or size < 0 else self._position + size
        part = bytes(self._view[self._position : end])
        self._position += len(part)
        return part
