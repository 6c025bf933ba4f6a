"""Reading ahead: a helper process that fetches the segments which a recovering server will ask for next.

It lives as long as it is needed: until for a minute nothing was taken from its spool. Then it empties it and ends.
It never tells the server that a file is missing: what it can't fetch is asked of the archive itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from chrono_backups.clock import Clock
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.recovery.wal_spool import ASKED, LOCK, coming, spool_for
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.repository.wal_names import Segment, is_segment

LOCK_VARIABLE = "CHRONO_BACKUPS_SPOOL_LOCK"
"""Tells the helper which of its file descriptors holds the lock."""
_THREADS = 2
_MOST_SEGMENTS = 16
_MOST_BYTES = 256 * 1024 * 1024
_IDLE_SECONDS = 60.0
_TICK = 0.01


def start_helper(words: Sequence[str], name: str, size: int, target: Path) -> None:
    """Have the segments behind ``name`` fetched by a process of ``words``, unless one is at it. Never raises.

    The lock is taken here and inherited, so that whoever asks next waits for the helper, and starts no second one.
    """
    spool = spool_for(str(target))
    assert spool is not None
    with suppress(OSError):
        os.makedirs(spool, mode=0o700, exist_ok=True)
        _note_asked(spool, name)
        handle = os.open(os.path.join(spool, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            following = Segment.parse(name, size).next.name(size)
            Path(coming(spool, following)).touch()
            subprocess.Popen(  # noqa: S603 - this program, with words of its own
                [sys.executable, "-P", "-m", "chrono_backups", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[handle],
                env={**os.environ, LOCK_VARIABLE: str(handle)},
                start_new_session=True,
            )
        finally:
            os.close(handle)


def note_asked(name: str, target: Path) -> None:
    """Let a helper that is at work know that its guess was wrong."""
    spool = spool_for(str(target))
    if spool is not None and os.path.isdir(spool):
        with suppress(OSError):
            _note_asked(spool, name)


def _note_asked(spool: str, name: str) -> None:
    temporary = os.path.join(spool, f"{ASKED}.{os.getpid()}")
    with open(temporary, "w", encoding="ascii") as file:  # noqa: PTH123 - as the rest of the spool's paths
        file.write(name)
    os.rename(temporary, os.path.join(spool, ASKED))


class ReadAhead:
    """The helper's work. For one thread."""

    def __init__(self, archive: WalArchive, spool: Path, size: int, clock: Clock) -> None:
        self._archive = archive
        self._spool = spool
        self._size = size
        self._clock = clock
        self._most = max(2, min(_MOST_SEGMENTS, _MOST_BYTES // size))
        self._asked = ""
        self._next = Segment(0, 0)
        self._under_way: dict[str, tuple[Future[bool], str]] = {}
        """Each with what had been asked for when it was begun with."""
        self._at_end = False

    def run(self) -> None:
        """Fetch until nobody asks any more; then leave nothing behind."""
        idle_since, before = self._clock.monotonic(), frozenset[str]()
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ahead")
        try:
            while self._clock.monotonic() - idle_since < _IDLE_SECONDS and self._spool.is_dir():
                if self._follow():
                    idle_since = self._clock.monotonic()
                self._collect()
                now = self._spooled()
                if before - now:
                    idle_since = self._clock.monotonic()
                before = now
                while not self._at_end and len(now) + len(self._under_way) < self._most:
                    self._submit(threads)
                self._clock.sleep(_TICK)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            shutil.rmtree(self._spool, ignore_errors=True)

    def _follow(self) -> bool:
        """Go on behind the segment that was asked for and not spooled, if that is news."""
        try:
            asked = (self._spool / ASKED).read_text("ascii")
        except OSError:
            return False
        if asked == self._asked or not is_segment(asked):
            return False
        self._asked = asked
        following = Segment.parse(asked, self._size).next
        wanted = {Segment(following.timeline, following.number + more).name(self._size) for more in range(self._most)}
        for name in self._spooled() - wanted:
            with suppress(OSError):
                (self._spool / name).unlink()
        self._next = following
        self._at_end = False
        return True

    def _spooled(self) -> frozenset[str]:
        return frozenset(name for name in os.listdir(self._spool) if is_segment(name))

    def _submit(self, threads: ThreadPoolExecutor) -> None:
        name = self._next.name(self._size)
        self._next = self._next.next
        if name not in self._under_way and not (self._spool / name).exists():
            Path(coming(str(self._spool), name)).touch()
            self._under_way[name] = threads.submit(self._fetch, name), self._asked

    def _fetch(self, name: str) -> bool:
        """Spool one segment; whether it was there, and whole."""
        file = Path(coming(str(self._spool), name))
        try:
            stored = self._archive.read_whole_segment(name)
            with file.open("wb", buffering=0) as opened:
                left = stored.content
                while len(left):
                    left = left[opened.write(left) :]
            file.rename(self._spool / name)
        except (ChronoBackupsError, OSError):
            with suppress(OSError):
                file.unlink()
            return False
        return True

    def _collect(self) -> None:
        for name in [name for name, (future, _) in self._under_way.items() if future.done()]:
            future, asked = self._under_way.pop(name)
            if not future.result() and asked == self._asked:
                self._at_end = True
