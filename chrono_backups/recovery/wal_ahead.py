"""The helper of ``wal-fetch``: a process that fetches the segments which a recovering server will ask for next.

It also answers what is asked of it (``wal_question``). It lives as long as it is needed: until for a minute nothing was
taken from its spool, and nothing asked; and never for more than a few minutes, so that it does not outlive what it was
started with. Then it empties the spool and ends.

What it says is what the program itself would say at that moment. Of all that is not certain it says so: damage, gaps
and storages that do not answer are for the one who asks to find, and to tell.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chrono_backups.clock import Clock
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.recovery.wal_question import FOUND, NONE, QUESTION, UNSURE
from chrono_backups.recovery.wal_spool import COMING, LOCK
from chrono_backups.repository.wal_archive import Buffer, StoredWal, WalArchive
from chrono_backups.repository.wal_names import Segment, is_segment

WRITING = ".writing-"
_THREADS = 2
_MOST_SEGMENTS = 16
_MOST_BYTES = 256 * 1024 * 1024
_IDLE_SECONDS = 60.0
_LIFE_SECONDS = 600.0
_TICK = 0.005


@dataclass(frozen=True)
class Answer:
    """What is archived by a name, or None; and of which cluster."""

    content: StoredWal | bytes | None
    system_identifier: str


class Spool:
    """The folder, as its helper uses it: that one alone, even where another of its name takes its place."""

    def __init__(self, path: Path, lock: int) -> None:
        """``lock``: the file descriptor that holds the lock. Raises ``OSError`` where that is not the folder's."""
        self.path = path
        self._lock = lock
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=self._folder)):
            raise FileNotFoundError(f"{path} is another folder by now")
        for name in self.names():  # of a helper that was killed: nobody works at it any more
            if name.startswith((COMING, WRITING, FOUND, NONE, UNSURE)):
                self.remove(name)

    @property
    def is_there(self) -> bool:
        """Whether it has not been removed."""
        return os.fstat(self._lock).st_nlink > 0

    def names(self) -> list[str]:
        """What is there."""
        return os.listdir(self._folder)

    def holds(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """A small file."""
        handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            return os.read(handle, 1 << 16)
        finally:
            os.close(handle)

    def write(self, temporary: str, content: Buffer, name: str) -> None:
        """Have a file of that name, whole or not at all."""
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(handle, left) :]
        finally:
            os.close(handle)
        os.rename(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def remove(self, name: str) -> None:
        """Have no file of that name."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def close(self) -> None:
        """Leave nothing behind, of earlier runs of the machine either."""
        if self.is_there:
            ending = self.path.with_name(f".ending-{os.getpid()}")
            with suppress(OSError):
                self.path.rename(ending)
            shutil.rmtree(ending, ignore_errors=True)
            for other in self.path.parent.glob("*-*"):
                if other != self.path:
                    shutil.rmtree(other, ignore_errors=True)
            with suppress(OSError):
                self.path.parent.rmdir()
        os.close(self._folder)


class ReadAhead:
    """The helper's work. For one thread."""

    def __init__(
        self, archive: WalArchive, spool: Spool, answer: Callable[[str, Path], Answer | None], clock: Clock
    ) -> None:
        """``answer`` finds what is asked for by name and target; None where it is not certain. It may raise."""
        self._archive = archive
        self._spool = spool
        self._answer = answer
        self._clock = clock
        self._size = 0
        """Of a segment; 0 until one has been found."""
        self._asked = ""
        self._next = Segment(0, 0)
        self._under_way: dict[str, tuple[Future[bool], str]] = {}
        """Each with what had been asked for when it was begun with."""
        self._at_end = True
        self._is_over = False

    @property
    def _most(self) -> int:
        return max(2, min(_MOST_SEGMENTS, _MOST_BYTES // self._size))

    def run(self) -> None:
        """Fetch and answer until nobody asks any more; then leave nothing behind."""
        began = idle_since = self._clock.monotonic()
        before = frozenset[str]()
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ahead")
        try:
            while self._spool.is_there and not self._is_over:
                moment = self._clock.monotonic()
                if moment - idle_since >= _IDLE_SECONDS or moment - began >= _LIFE_SECONDS:
                    break
                names = self._spool.names()
                questions = [name for name in names if name.startswith(QUESTION) and not name.endswith(".new")]
                for question in questions:
                    self._respond(question)
                self._collect()
                now = frozenset(name for name in self._spool.names() if is_segment(name))
                if questions or before - now:
                    idle_since = self._clock.monotonic()
                before = now
                while not self._at_end and len(now) + len(self._under_way) < self._most:
                    self._submit(threads)
                self._clock.sleep(_TICK)
        except FileNotFoundError:  # somebody is removing the folder: nobody asks any more
            pass
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            self._spool.close()

    def _respond(self, question: str) -> None:
        tag = question.removeprefix(QUESTION)
        try:
            name, _, target = self._spool.read(question).partition(b"\0")
        except FileNotFoundError:  # nobody waits for it any more
            return
        self._spool.remove(question)
        try:
            answer = self._answer(os.fsdecode(name), Path(os.fsdecode(target)))
        except (ChronoBackupsError, OSError):
            answer = None
        if answer is not None and answer.system_identifier != self._archive.system_identifier:
            answer, self._is_over = None, True
        if answer is None:
            self._spool.write(WRITING + tag, b"", UNSURE + tag)
        elif answer.content is None:
            self._spool.write(WRITING + tag, b"", NONE + tag)
        else:
            content = answer.content
            whole = content if isinstance(content, bytes) else content.content
            self._spool.write(WRITING + tag, whole, FOUND + tag)
            if isinstance(content, StoredWal):
                self._size = len(whole)
                self._follow(os.fsdecode(name))

    def _follow(self, asked: str) -> None:
        """Go on behind the segment that was asked for and not spooled."""
        self._asked = asked
        following = Segment.parse(asked, self._size).next
        wanted = {Segment(following.timeline, following.number + more).name(self._size) for more in range(self._most)}
        for name in self._spool.names():
            if is_segment(name) and name not in wanted:
                self._spool.remove(name)
        self._next = following
        self._at_end = False

    def _submit(self, threads: ThreadPoolExecutor) -> None:
        name = self._next.name(self._size)
        self._next = self._next.next
        if name not in self._under_way and not self._spool.holds(name):
            self._spool.write(COMING + name, b"", COMING + name)
            self._under_way[name] = threads.submit(self._fetch, name), self._asked

    def _fetch(self, name: str) -> bool:
        """Spool one segment; whether it was there, and whole."""
        try:
            stored = self._archive.read_whole_segment(name)
            self._spool.write(COMING + name, stored.content, name)
        except (ChronoBackupsError, OSError):
            self._spool.remove(COMING + name)
            return False
        return True

    def _collect(self) -> None:
        for name in [name for name, (future, _) in self._under_way.items() if future.done()]:
            future, asked = self._under_way.pop(name)
            if not future.result() and asked == self._asked:
                self._at_end = True
