"""Writing the content of files: of small ones at once, of large ones on threads of their own and past the page cache.

Through the cache every byte is copied once more, into pages that the system first has to find, and they push out those
of whatever else runs on the machine: a second of CPU time for a gigabyte, and as long again until the disk has it. So
whole blocks of large files go to the disk directly, where the file system allows it, while the next ones are decoded.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from mmap import mmap
from queue import SimpleQueue

Pieces = Iterator[tuple[int, memoryview]]
"""Offset in the file and bytes, in the order of the offsets; what lies between two of them is a hole."""

_LARGE = 4 * 1024 * 1024
_BLOCK = 4096
"""Direct writes are of whole blocks, from buffers aligned to blocks, on every file system in use."""
_BUFFER = 1024 * 1024
_BUFFERS = 6
_THREADS = 2
_REFUSED = {errno.EINVAL, errno.ENOTSUP}
_ODD_MOST = 64
"""Parts of blocks that wait for the end of their file."""
_GATHERED_MOST = 256
"""Pieces that are written together: the system takes at most 1,024."""


class ContentWriter:
    """Writes one file after another. ``close`` ends its threads."""

    def __init__(self) -> None:
        self.cached = 0
        """Bytes left to the page cache so far, to be put on the disk by whoever needs them there."""
        self._threads: ThreadPoolExecutor | None = None
        self._buffers: SimpleQueue[memoryview] = SimpleQueue()

    def write(self, descriptor: int, pieces: Pieces, size: int) -> int:
        """Write a new file that will have ``size`` bytes; the end of the last piece. All is written then, or raised."""
        if size < _LARGE:
            return self._gathered(descriptor, pieces)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="write")
            for _ in range(_BUFFERS):
                self._buffers.put(memoryview(mmap(-1, _BUFFER)))
        with _LargeFile(descriptor, self._threads, self._buffers) as file:
            for offset, content in pieces:
                file.add(offset, content)
            file.finish()
        self.cached += file.cached
        return file.end

    def _gathered(self, descriptor: int, pieces: Pieces) -> int:
        """Write from this thread; pieces that follow one another go together."""
        gathered: list[memoryview] = []
        start = end = 0
        for offset, content in pieces:
            if gathered and (offset != end or end - start >= _BUFFER or len(gathered) >= _GATHERED_MOST):
                _write(descriptor, gathered, start)
                gathered = []
            if not gathered:
                start = offset
            gathered.append(content)
            end = offset + len(content)
            self.cached += len(content)
        _write(descriptor, gathered, start)
        return end

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None


class _LargeFile:
    """One file that is being written by several threads. Leaving it waits for what is under way."""

    def __init__(self, descriptor: int, threads: ThreadPoolExecutor, buffers: SimpleQueue[memoryview]) -> None:
        self.end = 0
        self.cached = 0
        self._threads = threads
        self._buffers = buffers
        # Of its own: a thread that still writes must never meet another file under this number.
        self._descriptor = os.dup(descriptor)
        self._direct = self._set_direct(True)
        """Whether the file system has not refused to write directly."""
        self._buffer: memoryview | None = None
        self._start = 0
        """Where in the file the buffer lies, at a block."""
        self._begin = 0
        """Where in the buffer its content begins."""
        self._under_way: deque[Future[int]] = deque()
        self._odd: list[tuple[int, bytes]] = []
        """Parts of blocks, and where they go."""

    def __enter__(self) -> _LargeFile:
        return self

    def __exit__(self, *_: object) -> None:
        wait(self._under_way)
        os.close(self._descriptor)
        if self._buffer is not None:
            self._buffers.put(self._buffer)

    def add(self, offset: int, content: memoryview) -> None:
        """Take in the next piece."""
        if offset != self.end:
            self._hand_over()
            self.end = offset
        while content:
            if self._buffer is None:
                self._buffer = self._buffers.get()
                self._begin = self.end % _BLOCK
                self._start = self.end - self._begin
            at = self.end - self._start
            part = content[: _BUFFER - at]
            self._buffer[at : at + len(part)] = part
            self.end += len(part)
            content = content[len(part) :]
            if at + len(part) == _BUFFER:
                self._hand_over()

    def finish(self) -> None:
        """Have all of it written."""
        self._hand_over()
        self._settle()

    def _hand_over(self) -> None:
        """Let a thread write what the buffer holds."""
        if self._buffer is None:
            return
        begin, end = self._begin, self.end - self._start
        if self._direct:
            first, last = -(-begin // _BLOCK) * _BLOCK, end // _BLOCK * _BLOCK
            if first > last:
                first = last = end
            for one, other in ((begin, first), (last, end)):
                if one < other:
                    self._odd.append((self._start + one, bytes(self._buffer[one:other])))
            begin, end = first, last
        self._under_way.append(self._threads.submit(self._put, self._buffer, begin, end, self._start))
        self._buffer = None
        while self._under_way and self._under_way[0].done():
            self.cached += self._under_way.popleft().result()
        if len(self._odd) >= _ODD_MOST:
            self._settle()
            self._direct = self._direct and self._set_direct(True)

    def _put(self, buffer: memoryview, begin: int, end: int, start: int) -> int:
        """On a thread: write that part of the buffer, which lies at ``start`` of the file; bytes left to the cache."""
        try:
            size = end - begin
            while begin < end:
                try:
                    begin += os.pwrite(self._descriptor, buffer[begin:end], start + begin)
                except OSError as error:
                    if not self._direct or error.errno not in _REFUSED:
                        raise
                    self._direct = self._set_direct(False)
            return 0 if self._direct else size
        finally:
            self._buffers.put(buffer)

    def _settle(self) -> None:
        """Wait for what is under way, then write the parts of blocks: through the cache, but never beside direct writes
        to the same pages."""
        while self._under_way:
            self.cached += self._under_way.popleft().result()
        if self._direct:
            self._set_direct(False)
        for offset, content in self._odd:
            _write(self._descriptor, [memoryview(content)], offset)
            self.cached += len(content)
        self._odd = []

    def _set_direct(self, direct: bool) -> bool:
        """Whether writes go past the cache from now on."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return False
        return direct


def _write(descriptor: int, contents: list[memoryview], offset: int) -> None:
    """Write all of them, one behind another."""
    while contents:
        done = os.pwritev(descriptor, contents, offset)
        offset += done
        while contents and done >= len(contents[0]):
            done -= len(contents.pop(0))
        if done:
            contents[0] = contents[0][done:]
