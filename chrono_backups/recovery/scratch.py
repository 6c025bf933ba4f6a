"""Throwaway directories of drills, which no end of a process leaves for long.

Each has a lock that its process holds. Whoever makes the next one removes those whose lock nobody holds, and ends the
servers that run in them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrono_backups.events import Finding, Listener

PREFIX = "chrono-drill-"
_LOCK = "lock"
_SERVER_STOP_SECONDS = 20.0
_SOCKETS_LINE = 4


@contextmanager
def scratch(place: Path, listener: Listener) -> Iterator[Path]:
    """A new directory in ``place``, gone afterwards. Others may enter it, not read it: a server's user must."""
    for old in place.glob(f"{PREFIX}*"):
        _sweep(old, listener)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _sweep(folder: Path, listener: Listener) -> None:
    """Remove what a killed drill left; not what a drill works in."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # another user's, or one that is being made or removed
        return
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for pid_file in (*folder.glob("*/postgres/postmaster.pid"), *folder.glob("*/server.pid")):
                _end_server(pid_file)
            shutil.rmtree(folder, ignore_errors=True)
            message = "what a drill that was killed had left was removed"
            listener(Finding("drill-swept", "info", str(folder), message))
    finally:
        os.close(descriptor)


def _end_server(pid_file: Path) -> None:
    """End the server whose data directory the file lies in, if it still runs."""
    with suppress(OSError, ValueError, IndexError):
        lines = pid_file.read_text().splitlines()
        pid = int(lines[0])
        if Path(f"/proc/{pid}/cwd").resolve() != pid_file.parent.resolve():
            return
        os.kill(pid, signal.SIGQUIT)
        until = time.monotonic() + _SERVER_STOP_SECONDS
        while time.monotonic() < until and Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(lines[_SOCKETS_LINE], ignore_errors=True)
