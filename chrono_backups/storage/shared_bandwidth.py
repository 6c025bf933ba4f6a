"""One bandwidth for all processes of a machine that work for one installation.

A backup, its replication and a WAL receiver are processes of their own, and all of them share the line that
``BACKUP_BANDWIDTH_LIMIT_MBPS`` is about. So until when it is booked is kept in a file that they share, by installation
(same limit, same storages): 24 bytes, the machine's boot and a moment of its monotonic clock, which all processes read
alike. It lies in memory (``/dev/shm``), in a folder of this user's own, and is never needed after a boot.

A lock is held for the few microseconds of a booking. The kernel drops that of a killed process; one that is stopped in
the midst of a booking is not waited for longer than ``_PATIENCE``. What a killed process had booked passes by: one
object for each of its threads. Where there is no such folder, each process keeps to the limit by itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.storage.throttled import Ledger, OwnLedger

_ENTRY = struct.Struct("<16sd")
_PATIENCE = 1.0
_POLL = 0.001
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PLACES = (Path("/dev/shm"), Path("/tmp"))  # noqa: S108 - the folder in it is checked to be this user's own


class FileLedger:
    """A ledger in a file, for all processes that open it."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        """Raises ``OSError`` where the file can't be had."""
        self._clock = clock or SystemClock()
        self._boot = _boot()
        self._alone = OwnLedger()
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._handle = os.open(path, flags, 0o600)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._handle)

    def book(self, earliest: float, seconds: float) -> float:
        with self._lock:
            if not self._locked():
                return self._alone.book(earliest, seconds)
            try:
                start = max(self._free_from(), earliest)
                os.pwrite(self._handle, _ENTRY.pack(self._boot, start + seconds), 0)
            except OSError:
                return self._alone.book(earliest, seconds)
            finally:
                fcntl.flock(self._handle, fcntl.LOCK_UN)
        return start

    def _locked(self) -> bool:
        """Take the file's lock, or give up after a while."""
        deadline = self._clock.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic() >= deadline:
                    return False
                self._clock.sleep(_POLL)
            except OSError:
                return False
            else:
                return True

    def _free_from(self) -> float:
        """What was booked last; long ago where nothing was since the machine started."""
        entry = os.pread(self._handle, _ENTRY.size, 0)
        if len(entry) != _ENTRY.size:
            return float("-inf")
        boot, free_from = _ENTRY.unpack(entry)
        return float(free_from) if boot == self._boot else float("-inf")


def shared_ledger(installation: Iterable[str], clock: Clock | None = None, place: Path | None = None) -> Ledger:
    """The ledger of the installation that these words tell from others; one of this process alone where it can't be."""
    name = hashlib.sha256("\0".join(installation).encode()).hexdigest()[:32]
    for parent in PLACES if place is None else (place,):
        with suppress(OSError):
            return FileLedger(own_folder(parent) / f"bandwidth-{name}", clock)
    return OwnLedger()


def own_folder(parent: Path) -> Path:
    """A folder that nobody else can write to. Raises ``OSError``."""
    folder = parent / f"chrono-backups-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's own")
    return folder


def _boot() -> bytes:
    try:
        return hashlib.sha256(_BOOT_ID.read_bytes()).digest()[:16]
    except OSError:
        return bytes(16)
