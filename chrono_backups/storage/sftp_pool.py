"""A few sessions that many threads share."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from chrono_backups.errors import StorageError
from chrono_backups.storage.sftp_session import SftpSession


class SftpPool:
    """At most ``most`` sessions at a time, opened when they are needed and used again.

    One that broke, or whose use was interrupted in the middle of a message, is thrown away. Who holds one never
    waits for another, so waiting for one always ends. What is idle when the pool is forgotten is closed.
    """

    def __init__(self, dial: Callable[[], SftpSession], most: int) -> None:
        self._dial = dial
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[SftpSession] = []
        self._process = os.getpid()
        weakref.finalize(self, _abandon, self._idle, self._process)

    @contextmanager
    def session(self) -> Iterator[SftpSession]:
        """A session for this thread alone."""
        with self._room:
            session = self._take() or self._dial()
            try:
                yield session
            except Exception:
                self._give_back(session)
                raise
            except BaseException:
                session.close()  # interrupted anywhere: half a message may be on its way
                raise
            self._give_back(session)

    def _take(self) -> SftpSession | None:
        with self._lock:
            if self._process != os.getpid():
                # A forked child: the sockets are the parent's, and so are the threads that serve them.
                self._idle, self._process = [], os.getpid()
            while self._idle:
                session = self._idle.pop()
                if session.sound:
                    return session
                session.close()
        return None

    def _give_back(self, session: SftpSession) -> None:
        if session.sound:
            try:
                session.flush()
            except StorageError:
                session.close()
                return
            with self._lock:
                self._idle.append(session)
        else:
            session.close()

    def close(self) -> None:
        """Close what is idle, once the server has come to all it was asked."""
        with self._lock:
            idle, self._idle[:] = list(self._idle), []
        for session in idle:
            with suppress(StorageError):
                session.settle()
            session.close()


def _abandon(sessions: list[SftpSession], process: int) -> None:
    if process == os.getpid():
        for session in sessions:
            session.close()
