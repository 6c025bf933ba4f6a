"""Storing received WAL on threads, and telling how far all of it is durable.

What is handed over is stored in any order and counts in the order of handing over. A storage that fails is tried again
for as long as it takes: whoever receives waits meanwhile, as there are only so many buffers.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from chrono_backups.errors import ChronoBackupsError, StorageError
from chrono_backups.events import Finding

_THREADS = 2
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_BUFFER_BYTES = 64 * 1024 * 1024
_MOST_BUFFERS = 4


@dataclass
class _Job:
    position: int
    """All WAL before it is durable once this job and those before it are done."""
    store: Callable[[], None]
    release: Callable[[], None]
    since: float | None
    done: bool = False
    error: BaseException | None = None


@dataclass
class Counts:
    """What was stored."""

    segments: int = 0
    pieces: int = 0
    bytes: int = 0
    """Of WAL, before compression."""


@dataclass
class _Trouble:
    """Findings for the thread that tells them."""

    found: queue.SimpleQueue[Finding] = field(default_factory=queue.SimpleQueue)
    failing: bool = False


class WalUploads:
    """Threads that store. Its methods are called by one thread. The threads are daemons: one that hangs in a storage
    keeps no process from ending, and what it was at was never confirmed.
    """

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._trouble = _Trouble()
        self._threads = [threading.Thread(target=self._work, name="store-wal", daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Jobs that do not count yet."""
        return len(self._jobs)

    @property
    def oldest(self) -> float | None:
        """When the oldest byte came that does not count yet."""
        return next((job.since for job in self._jobs if job.since is not None), None)

    def submit(
        self,
        position: int,
        store: Callable[[], None],
        release: Callable[[], None] = lambda: None,
        *,
        since: float | None = None,
    ) -> None:
        """Have ``store`` called until it succeeds, then ``release``; then all before ``position`` is durable."""
        job = _Job(position, store, release, since)
        self._jobs.append(job)
        self._waiting.put(job)

    def settle(self) -> int | None:
        """The newest position that counts now, or None where nothing new does.

        Raises what no trying again can mend.
        """
        position = None
        while self._jobs and self._jobs[0].done:
            job = self._jobs.popleft()
            if job.error is not None:
                raise job.error
            position = job.position
        return position

    def wait(self, seconds: float) -> None:
        """Until a job is done, at most so long."""
        with self._changed:
            if not any(job.done for job in self._jobs):
                self._changed.wait(seconds)

    def findings(self) -> list[Finding]:
        """What went wrong and what is well again, since it was asked last."""
        found = []
        while not self._trouble.found.empty():
            found.append(self._trouble.found.get())
        return found

    def close(self) -> None:
        """Give up what is not stored yet; it was never confirmed."""
        self._stopping.set()
        for _ in self._threads:
            self._waiting.put(None)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None and not self._stopping.is_set():
            try:
                self._insist(job)
            except BaseException as error:
                job.error = error
            job.release()
            with self._changed:
                job.done = True
                self._changed.notify_all()

    def _insist(self, job: _Job) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                job.store()
            except StorageError as error:
                if self._stopping.is_set():
                    raise
                self._tell(error)
                self._stopping.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
            else:
                self._well_again()
                return

    def _tell(self, error: ChronoBackupsError) -> None:
        with self._changed:
            if self._trouble.failing:
                return
            self._trouble.failing = True
        hint = f"{error.hint} The server keeps the WAL meanwhile: watch its disk.".strip()
        self._trouble.found.put(Finding("wal-not-stored", "error", "wal", error.message, hint))

    def _well_again(self) -> None:
        with self._changed:
            if not self._trouble.failing:
                return
            self._trouble.failing = False
        self._trouble.found.put(Finding("wal-stored-again", "info", "wal", "the storage takes WAL again"))


class Buffers:
    """A few buffers of one size, used again and again."""

    def __init__(self, size: int) -> None:
        self.size = size
        count = max(2, min(_MOST_BUFFERS, _BUFFER_BYTES // size + 1))
        self._free: deque[bytearray] = deque(bytearray(size) for _ in range(count))

    def take(self) -> bytearray | None:
        """One that nobody uses; None while there is none."""
        return self._free.popleft() if self._free else None

    def give(self, buffer: bytearray) -> None:
        """Let it be used again. From any thread."""
        self._free.append(buffer)
