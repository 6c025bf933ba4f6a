"""Folders that are sure to be there after a power failure."""

from __future__ import annotations

import errno
import os
import threading


class DurableFolders:
    """Makes folders in and above ``root``, all with the same mode, and fsyncs what names them.

    A file's name is only as durable as the way to it. So on this object's first use of a folder the one
    above it is fsynced, and so on up to the root, also where another writer made them: that writer may
    not have come to its own fsync yet, or have been killed before it.
    """

    def __init__(self, root: str, mode: int) -> None:
        self._root = root
        self._mode = mode
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def make_root(self, *below: str) -> None:
        """The root, what is missing above it, and the named folders in it."""
        self._make_with_parents(self._root)
        for name in below:
            self._make(os.path.join(self._root, name))

    def ensure(self, path: str) -> None:
        """A folder below the root, and those between; ``FileNotFoundError`` where the root is gone."""
        if path == self._root or path in self._known:
            return
        self.ensure(os.path.dirname(path))
        self._make(path)
        with self._lock:
            self._known.add(path)

    def forget(self) -> None:
        """Trust nothing seen so far: folders were removed, or a disk was mounted anew."""
        with self._lock:
            self._known.clear()

    def _make_with_parents(self, path: str) -> None:
        try:
            self._make(path)
        except FileNotFoundError:
            self._make_with_parents(os.path.dirname(path))
            self._make(path)

    def _make(self, path: str) -> None:
        try:
            os.mkdir(path, self._mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, "a file lies where a folder is needed", path) from None
        else:
            os.chmod(path, self._mode)  # the umask took part in mkdir
        try:
            fsync_folder(os.path.dirname(path))
        except PermissionError:
            # What is above the root may be closed to this user, and then was not made by it.
            if path != self._root:
                raise


def fsync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file servers know no fsync of folders; there it is not ours to make them durable.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(handle)
