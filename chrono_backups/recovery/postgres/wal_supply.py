"""WAL for a server that we start: all that it needs, opened and found to be true before it starts.

So a damaged object is named while no server runs yet, and the server's user needs neither the repository nor its key.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from chrono_backups.errors import Damaged, InsufficientSpace, ObjectMissing
from chrono_backups.events import Listener, Progress
from chrono_backups.recovery.postgres.wal_path import WalPath
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")
_CLOCKS = timedelta(seconds=60)
"""A commit may be logged so much later than the time it bears, and clocks be set by so much."""


class WalSupply:
    """A folder of WAL files beside the data directory."""

    def __init__(self, folder: Path, path: WalPath) -> None:
        self._folder = folder
        self._path = path

    @property
    def restore_command(self) -> str:
        """What copies a file from here. It ends with 1 for one that is not here, which says that there is none, and
        with 127 where it can't be copied: at that the server gives up, and does not take it for the end of the WAL.
        """
        folder = shlex.quote(str(self._folder)).replace("%", "%%")
        return f"test -x {folder} || exit 127; test -f {folder}/%f || exit 1; cp {folder}/%f %p || exit 127"

    def fill(self, repository: Repository, *, owner: tuple[int, int], listener: Listener) -> None:
        """Fetch all of it. Raises ``Damaged`` naming what is not true, ``InsufficientSpace``."""
        needed = len(self._path.files) * self._path.segment_size
        free = shutil.disk_usage(self._folder.parent).free
        if needed > free:
            raise InsufficientSpace(
                f"the WAL needs up to {needed} bytes, and {self._folder.parent} has {free} free",
                hint="Make room; or restore without --start: the server then fetches each file when it needs it.",
            )
        self._folder.mkdir(mode=0o700)
        self._give(self._folder, owner)
        for name, content in wal_files(repository, self._path, listener):
            file = self._folder / name
            file.write_bytes(content)
            file.chmod(0o600)
            self._give(file, owner)

    @staticmethod
    def _give(path: Path, owner: tuple[int, int]) -> None:
        if os.geteuid() == 0:
            os.chown(path, *owner)

    def remove(self) -> None:
        """Its work is done."""
        shutil.rmtree(self._folder, ignore_errors=True)


def wal_files(repository: Repository, path: WalPath, listener: Listener) -> Iterator[tuple[str, memoryview]]:
    """Name and content of the WAL files on the way, in order. Raises ``Damaged``."""
    archive = WalArchive(repository, path.system_identifier)
    for timeline in path.histories:
        yield f"{timeline:08X}.history", memoryview(_there(archive.read_history, timeline))
    total = len(path.files) * path.segment_size
    for number, name in enumerate(path.files, 1):
        stored = _there(archive.read_segment, name)
        yield name, stored.content
        done = Progress("fetch", "WAL", number * path.segment_size, number, total, len(path.files))
        listener(done)
        if path.until is not None and stored.moment is not None and stored.moment > path.until + _CLOCKS:
            return


def _there(read: Callable[[_Key], _Found], name: _Key) -> _Found:
    """What was listed a moment ago is there."""
    try:
        return read(name)
    except ObjectMissing as error:
        raise Damaged(f"{error.key} is listed and missing", key=error.key) from error


def check_wal(repository: Repository, path: WalPath, listener: Listener) -> None:
    """Open all WAL on the way. Raises ``Damaged`` naming what is not true."""
    for _ in wal_files(repository, path, listener):
        pass
