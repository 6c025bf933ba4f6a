"""Which objects a storage that locks leaves unlocked."""

from __future__ import annotations

PASSING_FOLDERS = ("leases/", "condemned/", "forgotten/", "pins/")
"""What is taken back in the ordinary course: a lock would keep a finished run looking as if it went on, or a backup
from being unpinned. No restore needs any of it."""


def is_lasting(key: str) -> bool:
    """Whether a lock is for this object."""
    return not key.startswith(PASSING_FOLDERS)
