"""So many operations at once, over all processes of a machine that work for one installation.

``BACKUP_MAX_PARALLEL_OPERATIONS`` is about sources and storages at work, whoever has them work: cron's lines, an
operator at a terminal, Dagster. So each operation holds the lock of a byte in an empty file that all share, in the
folder that bandwidths are shared in; which bytes is told by the installation. These are the locks of an open file
(fcntl(2), "Open file description locks"), which threads of one process have apart, and the kernel drops those of a
killed process: none is waited for in vain. Where there is no such folder, or no such locks, nothing is waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.storage.shared_bandwidth import PLACES, own_folder

_POLL = 0.2
_RANGE = 1024
"""Bytes of an installation: more than there can be operations at once."""
_LOCK = struct.Struct("hhqqi4x")
"""``struct flock``: type, whence, start, length, process (0)."""


class SharedSlots:
    """``count`` slots of the installation that these words tell from others."""

    def __init__(
        self, count: int, installation: Iterable[str], clock: Clock | None = None, place: Path | None = None
    ) -> None:
        digest = hashlib.sha256("\0".join(installation).encode()).digest()
        self._first = int.from_bytes(digest[:6], "big") * _RANGE
        self._count = min(count, _RANGE)
        self._clock = clock or SystemClock()
        self._places = PLACES if place is None else (place,)

    @contextmanager
    def one(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold a slot. Waits until one is free; ``on_wait`` is told once, before that."""
        handle = self._open()
        if handle is None:
            yield
            return
        try:
            waited = False
            while not self._locked(handle):
                if not waited:
                    on_wait()
                    waited = True
                self._clock.sleep(_POLL)
            yield
        finally:
            os.close(handle)  # and with it goes the lock

    def _open(self) -> int | None:
        if not hasattr(fcntl, "F_OFD_SETLK"):
            return None
        for parent in self._places:
            with suppress(OSError):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                return os.open(own_folder(parent) / "operations", flags, 0o600)
        return None

    def _locked(self, handle: int) -> bool:
        """Take a slot that is free; whether there was one."""
        for number in range(self._count):
            wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._first + number, 1, 0)
            try:
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, wanted)
            except (BlockingIOError, PermissionError):  # somebody else has it
                continue
            except OSError:  # this file system has no locks
                return True
            return True
        return False
