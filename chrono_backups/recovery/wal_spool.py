"""Where ``wal-fetch`` puts segments that the server will ask for next, and the quick way to take one from there.

The folder is ``pg_wal/chrono_backups_spool`` of the server that recovers, so that a segment is handed over by renaming.
A helper process fills it (``wal_ahead``), holding a lock on ``.lock`` while it lives; what it is fetching is there as
``.coming-SEGMENT``. Only whole segments are ever put there: they don't change any more.

Replay waits for what this file does, so it imports next to nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Sequence

FOLDER = "chrono_backups_spool"
LOCK = ".lock"
ASKED = ".asked"
"""Names the segment that was asked for last and was not in the spool."""
_COMING = ".coming-"
_RESTORED = "RECOVERYXLOG"
"""What a server that recovers calls the file that it asks for."""
_PATIENCE = 120.0
_SEGMENT = re.compile(r"[0-9A-F]{24}")


def spool_for(target: str) -> str | None:
    """The folder, where a server in recovery asks for ``target``; None for anybody else."""
    return os.path.join(os.path.dirname(target), FOLDER) if os.path.basename(target) == _RESTORED else None


def coming(spool: str, name: str) -> str:
    """The file that a segment is while it is fetched."""
    return os.path.join(spool, _COMING + name)


def is_filled(spool: str) -> bool:
    """Whether a helper is at work there."""
    try:
        handle = os.open(os.path.join(spool, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def take(name: str, target: str) -> bool:
    """Put the segment at ``target``, if it is spooled or about to be; whether it is there now."""
    spool = spool_for(target)
    if spool is None or _SEGMENT.fullmatch(name) is None:
        return False
    until = time.monotonic() + _PATIENCE
    while True:
        awaited = os.path.exists(coming(spool, name))  # before the try: it may take its name in between
        try:
            os.rename(os.path.join(spool, name), target)
            return True
        except OSError:
            if not awaited or not is_filled(spool) or time.monotonic() > until:
                return False
        time.sleep(0.002)


def served(words: Sequence[str]) -> bool:
    """Whether what the words of ``wal-fetch`` ask for was spooled, and is in place now."""
    return len(words) > 2 and not words[-1].startswith("-") and take(words[-2], words[-1])
