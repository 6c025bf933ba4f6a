"""Reading tiny files ahead of the capture, in a process of its own.

For a file of 1 kB the system calls and the interpreter's own work take ten times as long as compressing it,
and in one process they keep each other waiting. The helper process opens and reads; this one scans, hashes
and writes down. It is started only when many tiny files are to be read, and whatever it can't answer plainly
is read here, so nothing but speed depends on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from mmap import mmap
from pathlib import Path

from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.sources import read_process

_PLACES = 12
_CONTENT = 1024 * 1024
_PLACE_SIZE = read_process.CONTROL + _CONTENT
_START_AFTER = 10_000
_TINY = 8 * 1024
"""Mean size up to which reading ahead is worth the copy."""


class Batch:
    """Files that were asked for together. Belongs to one directory."""

    def __init__(self, owner: ReadAhead, place: int, sizes: Sequence[int]) -> None:
        self._owner = owner
        self.place = place
        self._sizes = sizes
        self._found: memoryview[int] | None = None
        self._at = 0
        self._next = 0

    def answered(self) -> None:
        """The reply is there."""
        self._found = self._owner.memory[self.place : self.place + 4 * len(self._sizes)].cast("i")

    def failed(self) -> None:
        """There will be no reply."""
        self._found = memoryview(array("i", [-1]) * len(self._sizes))

    def drop(self) -> None:
        """Let go of the reply: its place goes to another batch."""
        if self._found is not None:
            self._found.release()

    def take(self, view: memoryview) -> int:
        """The next file's content into the start of ``view``; its size, or -1 where it was not read."""
        if self._found is None:
            self._owner.await_reply(self)
        assert self._found is not None
        number, start = self._next, self._at
        self._next += 1
        self._at += self._sizes[number]
        size = self._found[number]
        if size > 0:
            start += self.place + read_process.CONTROL
            view[:size] = self._owner.memory[start : start + size]
        return size


class ReadAhead:
    """Hands requests to the helper process and takes its replies, in order. ``close`` ends it."""

    def __init__(self) -> None:
        self._files = 0
        self._bytes = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._broken = False
        self._free = list(range(_PLACES))
        self._waiting: deque[Batch] = deque()
        self._ours = ExitStack()
        self.memory = memoryview(b"")

    def request(self, path: bytes, attributes: Attributes, positions: Sequence[int]) -> Batch | None:
        """Have those files of the directory read; None where that is not worth it, or not possible now."""
        sizes = [attributes.size[position] for position in positions]
        self._files += len(sizes)
        self._bytes += sum(sizes)
        if not sizes or self._broken or self._files < _START_AFTER or self._bytes > self._files * _TINY:
            return None
        if not self._free or sum(sizes) >= _CONTENT:
            return None
        names = b"\0".join([attributes.names[position] for position in positions])
        body = b"".join(
            (
                path,
                names,
                array("q", [attributes.ctime[position] for position in positions]).tobytes(),
                array("q", sizes).tobytes(),
                attributes.inode_bytes(positions),
            )
        )
        if len(body) > read_process.CONTROL or not self._running():
            return None
        batch = Batch(self, self._free.pop() * _PLACE_SIZE, sizes)
        self.memory[batch.place : batch.place + len(body)] = body
        self._waiting.append(batch)
        try:
            os.write(self._requests, read_process.REQUEST.pack(batch.place, len(path), len(names), len(sizes)))
        except OSError:
            self._broken = True
        return batch

    def _running(self) -> bool:
        """Whether the helper runs; starts it. Where it can't be started, it is not tried again."""
        if self._process is None:
            try:
                self._start()
            except (OSError, ValueError):
                self._broken = True
        return not self._broken

    def _start(self) -> None:
        with ExitStack() as opened:
            shared = os.memfd_create("chrono-backups-read-ahead")
            opened.callback(os.close, shared)
            os.ftruncate(shared, _PLACES * _PLACE_SIZE)
            mapped = mmap(shared, _PLACES * _PLACE_SIZE)
            theirs, requests = os.pipe()
            opened.callback(os.close, theirs)
            ours = ExitStack()
            opened.push(ours)
            ours.callback(_unmap, mapped)
            ours.callback(os.close, requests)
            replies, answers = os.pipe()
            opened.callback(os.close, answers)
            ours.callback(os.close, replies)
            script = str(Path(read_process.__file__))
            self._process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", script, str(theirs), str(answers), str(shared)],
                pass_fds=(theirs, answers, shared),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # whatever befalls it, the files are read here
                start_new_session=True,  # Ctrl-C is for us; the helper ends when its pipe does
            )
            self.memory, self._requests, self._replies = memoryview(mapped), requests, replies
            self._ours = ours.pop_all()

    def await_reply(self, batch: Batch) -> None:
        """Take replies until that batch has its own. Where the helper is gone, nothing was read."""
        while self._waiting:
            first = self._waiting.popleft()
            self._broken = self._broken or os.read(self._replies, 1) != b"."
            if self._broken:
                first.failed()
            else:
                first.answered()
            if first is batch:
                return

    def release(self, batch: Batch) -> None:
        """The batch's place is free for another."""
        if batch in self._waiting:
            self.await_reply(batch)
        batch.drop()
        self._free.append(batch.place // _PLACE_SIZE)

    def close(self) -> None:
        """End the helper process."""
        self.memory.release()
        self._ours.close()
        if self._process is not None:
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _unmap(mapped: mmap) -> None:
    with suppress(BufferError):  # a directory that was never closed still looks at it
        mapped.close()
