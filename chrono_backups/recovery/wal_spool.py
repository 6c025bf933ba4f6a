"""Where ``wal-fetch`` puts segments that the server will ask for next, and the quick way to take one from there.

The folder is ``pg_wal/chrono_backups_spool/BOOT`` of the server that recovers, so that a segment is handed over by
renaming. A helper process fills it (``wal_ahead``), holding a lock on ``.lock`` while it lives; what it is fetching is
there as ``.coming-SEGMENT``. Only whole segments are ever put there: they don't change any more.

BOOT names this run of the machine, as nothing there is flushed: after a crash of the machine a file may have its name
and not its content. Where the system does not tell, there is no spool.

Replay waits for what this file does, so it imports next to nothing.
"""

from __future__ import annotations

import fcntl
import os
import time

FOLDER = "chrono_backups_spool"
BOOT_FILE = "/proc/sys/kernel/random/boot_id"
LOCK = ".lock"
"""Holds the helper's process number."""
COMING = ".coming-"
PATIENCE = 120.0
"""Seconds that one waits for a helper that lives."""
WAIT = 0.002
_RESTORED = frozenset({"RECOVERYXLOG", "RECOVERYHISTORY"})
"""What a server that recovers calls the file that it asks for."""
_DIGITS = frozenset("0123456789ABCDEF")


def boot() -> str:
    """What tells this run of the machine from others; empty where that is not known."""
    try:
        with open(BOOT_FILE, encoding="ascii") as file:  # noqa: PTH123 - as the rest of the spool's paths
            return file.read().strip()
    except OSError:
        return ""


def spool_for(target: str) -> str | None:
    """The folder, where a server in recovery asks for ``target``; None for anybody else."""
    known = boot() if os.path.basename(target) in _RESTORED else ""
    return os.path.join(os.path.dirname(target), FOLDER, known) if known else None


def helper_of(spool: str) -> int | None:
    """The process number of the helper at work there, 0 of one that has just been started; None without one."""
    try:
        handle = os.open(os.path.join(spool, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return int(os.pread(handle, 20, 0) or b"0")
    finally:
        os.close(handle)
    return None


def take(name: str, target: str) -> bool:
    """Put the segment at ``target``, if it is spooled or about to be; whether it is there now."""
    spool = spool_for(target)
    if spool is None or len(name) != 24 or not _DIGITS.issuperset(name):
        return False
    until = time.monotonic() + PATIENCE
    while True:
        awaited = os.path.exists(os.path.join(spool, COMING + name))  # before the try: it may take its name in between
        try:
            os.rename(os.path.join(spool, name), target)
            return True
        except OSError:
            if not awaited or helper_of(spool) is None or time.monotonic() > until:
                return False
        time.sleep(WAIT)
