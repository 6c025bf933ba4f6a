"""A stand-in for FAT, exFAT and their like, which can't be mounted here."""

from __future__ import annotations

import errno
import os

from chrono_backups.storage.local import LocalStorage


class LocalStorageWithoutHardLinks(LocalStorage):
    """The real thing, but for ``link``, which fails as the kernel's does there."""

    def _link(self, temporary: str, target: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
