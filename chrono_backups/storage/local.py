"""A storage in a folder of a mounted file system: a disk, NFS, SMB, FUSE."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from chrono_backups.storage.base import ObjectInfo, Usage
from chrono_backups.storage.direct_writes import write_all
from chrono_backups.storage.durable_folders import DurableFolders, fsync_folder
from chrono_backups.storage.keys import MAX_KEY_LENGTH, check_key, check_prefix, check_range, is_segment
from chrono_backups.storage.size_limit import SizeLimit
from chrono_backups.storage.system_errors import storage_error

TEMPORARY_FOLDER = ".tmp"

_ABANDONED_AFTER = 24 * 3600.0
_NO_SUCH_FILE = (FileNotFoundError, NotADirectoryError)
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


class LocalStorage:
    """Objects as files below ``path``, each at the path its key spells.

    How a put keeps the seam's duties:

    1. The data goes to a new file in ``.tmp`` below the root (the same file system, and a name that no
       key can have), and is fsynced. A killed writer leaves at most this file; a writer removes those
       older than a day, by the file system's own clock.
    2. ``link`` gives it the object's name, or fails if the name is taken: atomic, also on NFS.
    3. The folder is fsynced (and the way to it, see ``DurableFolders``). The same before ``ObjectExists``
       is raised, because the caller may now rely on an object that a racing writer just named.

    File systems without hard links (FAT, exFAT, some shares) get step 2 as "look, then rename" under an
    ``flock`` of ``.tmp/lock``, held for these two calls only. The rename is atomic, so readers never see
    a part, and the kernel drops the lock of a killed writer, so nothing ever stays claimed. It holds
    between machines as far as the share carries locks between them (SMB does, most FUSE file systems
    do not). Where there are no locks either, a put is refused.

    The root and its ``.tmp`` are made by the constructor, when ``create`` says so, and never again:
    where a disk is not mounted its mount point is an empty folder without ``.tmp``, and there all
    operations raise ``StorageUnavailable``, rather than write below the mount point or report an empty
    storage. A copy of a storage without its ``.tmp`` can be read, but not written.

    Empty folders stay when their last object is deleted: removing them would race with writers.

    ``directory_mode`` is the mode of every folder made here and, less the execute bits, of every file,
    whatever the umask. ``max_size`` bounds the bytes of all objects, see ``SizeLimit``.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        name: str = "local",
        max_size: int | None = None,
        directory_mode: int = 0o700,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._root = os.path.abspath(path)
        self._temporary = os.path.join(self._root, TEMPORARY_FOLDER)
        self._name = name
        self._folders = DurableFolders(self._root, directory_mode)
        self._file_mode = directory_mode & 0o666
        self._clock = clock or SystemClock()
        self._limit = None if max_size is None else SizeLimit(max_size, self._stored_bytes, self._clock, name)
        self._lock = threading.Lock()
        self._swept_at: float | None = None
        if create:
            with self._translated("create"):
                self._folders.make_root(TEMPORARY_FOLDER)

    @property
    def name(self) -> str:
        return self._name

    @property
    def location(self) -> str:
        return self._root

    # Put

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        check_key(key)
        target = self._path(key)
        # Released on every way out: an exception's traceback must not keep the caller's buffer exported.
        with memoryview(data) as given, _as_bytes(given) as view, self._translated("put", key):
            if self._is_object(target):  # spares writing it all for nothing; `link` is what decides
                raise self._exists(key, target)
            if self._limit is None:
                self._store(key, target, view)
                return
            self._limit.reserve(key, len(view))
            stored = False
            try:
                self._store(key, target, view)
                stored = True
            finally:
                self._limit.settle(len(view), stored=stored)

    def _store(self, key: str, target: str, view: memoryview) -> None:
        temporary = os.path.join(self._temporary, f"put-{self._clock.random_bytes(16).hex()}")
        try:
            self._write(temporary, view)
            try:
                self._publish(temporary, target)
            except FileExistsError:
                raise self._exists(key, target) from None
            except FileNotFoundError:
                raise self._not_here("put", key) from None
        finally:
            # Also after success: what counts is the object's own name, so failing here is no failure.
            with suppress(OSError):
                os.unlink(temporary)
        fsync_folder(os.path.dirname(target))

    def _write(self, path: str, view: memoryview) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise self._not_here("put") from None
        try:
            os.fchmod(handle, self._file_mode)
            self._sweep(os.fstat(handle).st_mtime)
            write_all(handle, view)
            os.fsync(handle)
        finally:
            # Before it gets its name: NFS reports what it could not write on close.
            os.close(handle)

    def _publish(self, temporary: str, target: str) -> None:
        folder = os.path.dirname(target)
        self._folders.ensure(folder)
        try:
            self._name_once(temporary, target)
        except FileNotFoundError:
            # The folder was removed, or the disk mounted anew, since this instance made it.
            self._folders.forget()
            self._folders.ensure(folder)
            self._name_once(temporary, target)

    def _name_once(self, temporary: str, target: str) -> None:
        try:
            self._link(temporary, target)
        except FileExistsError:
            # NFS repeats a request whose answer was lost, and then meets its own link (open(2), O_EXCL).
            if not os.path.samestat(os.lstat(temporary), os.lstat(target)):
                raise
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._rename_once(temporary, target)

    def _link(self, temporary: str, target: str) -> None:
        os.link(temporary, target)

    def _rename_once(self, temporary: str, target: str) -> None:
        import fcntl  # noqa: PLC0415 - Unix only, and needed by few

        handle = os.open(os.path.join(self._temporary, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._file_mode)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                raise StorageError(
                    f"{self._name}: the file system of {self._root} has neither hard links nor locks, "
                    "so an object can't be created once and only once",
                    storage=self._name,
                    operation="put",
                    hint="Use a folder on another file system.",
                ) from error
            # Not os.path.exists: it takes every error for absence, and the rename would overwrite.
            with suppress(FileNotFoundError):
                os.lstat(target)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            os.rename(temporary, target)
        finally:
            os.close(handle)

    def _exists(self, key: str, target: str) -> StorageError:
        if not self._is_object(target):
            message = f"{self._name}: {key} can't be both an object and a folder of objects"
            return StorageError(message, storage=self._name, operation="put", key=key)
        self._folders.ensure(os.path.dirname(target))
        fsync_folder(os.path.dirname(target))
        return ObjectExists(f"{self._name}: {key} exists already", storage=self._name, operation="put", key=key)

    def _sweep(self, now: float) -> None:
        """Remove what killed writers left; ``now`` is the mtime of a file just made, so clocks agree."""
        with self._lock:
            if self._swept_at is not None and now - self._swept_at < _ABANDONED_AFTER:
                return
            self._swept_at = now
        with suppress(OSError), os.scandir(self._temporary) as entries:
            for entry in entries:
                with suppress(OSError):  # another writer sweeps too, or it is not ours to remove
                    if entry.name.startswith("put-") and now - entry.stat().st_mtime > _ABANDONED_AFTER:
                        os.unlink(entry.path)

    # Where things are

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _is_object(self, path: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(path).st_mode)
        except _NO_SUCH_FILE:
            return False

    def _require_root(self, operation: str, key: str = "") -> None:
        """Before "there is no such object" is believed: is this the storage, or a bare mount point?"""
        if os.path.isdir(self._temporary):
            return
        try:
            with os.scandir(self._root) as entries:
                if any(entry.name != "lost+found" for entry in entries):
                    return
        except FileNotFoundError:
            pass
        raise self._not_here(operation, key)

    def _not_here(self, operation: str, key: str = "") -> StorageUnavailable:
        return StorageUnavailable(
            f"{self._name}: {self._root} holds no storage: expected a folder with {TEMPORARY_FOLDER} in it",
            storage=self._name,
            operation=operation,
            key=key,
            hint=f"If {self._root} lies on a disk or share, mount it. If nothing was stored there yet, run "
            f"`chrono-backups init`. If it is a copy made without hidden folders, `mkdir -m 700 {self._temporary}`.",
        )

    # Read, delete, list

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        check_key(key)
        check_range(offset, length)
        with self._translated("get", key):
            handle = self._open(key)
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    raise self._missing("get", key)
                end = status.st_size if length is None else offset + length
                if max(offset, end) > status.st_size:
                    raise self._too_short(key, offset, end, status.st_size)
                found = _read(handle, offset, end - offset)
            finally:
                os.close(handle)
        if len(found) != end - offset:
            raise self._too_short(key, offset, end, offset + len(found))
        return found

    def _too_short(self, key: str, offset: int, end: int, size: int) -> StorageError:
        message = f"{self._name}: {key}: expected bytes {offset} to {end}, found only {size}"
        return StorageError(message, storage=self._name, operation="get", key=key)

    def _open(self, key: str) -> int:
        try:
            return os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except _NO_SUCH_FILE:
            self._require_root("get", key)
            raise self._missing("get", key) from None

    def info(self, key: str) -> ObjectInfo:
        check_key(key)
        with self._translated("info", key):
            try:
                status = os.stat(self._path(key))
            except _NO_SUCH_FILE:
                self._require_root("info", key)
                raise self._missing("info", key) from None
            if not stat.S_ISREG(status.st_mode):
                raise self._missing("info", key)
        return ObjectInfo(key, status.st_size)

    def _missing(self, operation: str, key: str) -> ObjectMissing:
        return ObjectMissing(f"{self._name}: no object {key}", storage=self._name, operation=operation, key=key)

    def delete(self, key: str) -> None:
        """Remove the object if it is there; durable, so that what refers to nothing is deleted in order."""
        check_key(key)
        path = self._path(key)
        with self._translated("delete", key):
            try:
                status = os.lstat(path)
                if stat.S_ISDIR(status.st_mode):
                    return
                os.unlink(path)
            except _NO_SUCH_FILE:
                self._require_root("delete", key)
                return
            if self._limit is not None:
                self._limit.deleted(status.st_size)
            fsync_folder(os.path.dirname(path))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._translated("list"):
            self._require_root("list")
            folder, _, start = prefix.rpartition("/")
            yield from self._walk(f"{folder}/" if folder else "", start)

    def _walk(self, folder: str, start: str = "") -> Iterator[ObjectInfo]:
        """The objects in ``folder`` ("" or ending in a slash) and below whose name there begins with ``start``."""
        try:
            with os.scandir(self._path(folder)) as entries:
                # A folder sorts as the slash it puts into keys: `a-b` < `a/b` < `a0`. Foreign names are none.
                found = sorted(
                    (entry.name + "/" if entry.is_dir() else entry.name, entry)
                    for entry in entries
                    if entry.name.startswith(start) and is_segment(entry.name)
                )
        except _NO_SUCH_FILE:
            return
        for name, entry in found:
            key = folder + name
            if len(key) > MAX_KEY_LENGTH:
                continue
            if name.endswith("/"):
                yield from self._walk(key)
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # deleted since the folder was read
            if stat.S_ISREG(status.st_mode):
                yield ObjectInfo(key, status.st_size)

    # The whole

    def usage(self) -> Usage:
        """Bytes of all objects, by a scan, and what is free for more: on the disk and under ``max_size``."""
        with self._translated("usage"):
            used = self._stored_bytes()
            status = os.statvfs(self._root)
        free = status.f_bavail * status.f_frsize
        if self._limit is not None:
            free = max(0, min(free, self._limit.maximum - used))
        return Usage(used=used, free=free)

    def _stored_bytes(self) -> int:
        return sum(info.size for info in self._list(""))

    def close(self) -> None:
        """Nothing is held between calls."""

    @contextmanager
    def _translated(self, operation: str, key: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, storage=self._name, operation=operation, key=key, location=self._root) from error


def _read(handle: int, offset: int, length: int) -> bytes | bytearray:
    """``length`` bytes, or fewer where the file ends.

    One ``pread`` into a fresh ``bytes`` is all it takes (and spares the zeroing a ``bytearray`` costs,
    0.5 ms of 16 MiB); the loop is for what one call can't give: more than 2 GiB, or an interrupted one.
    """
    first = os.pread(handle, length, offset)
    if len(first) == length or not first:
        return first
    content = bytearray(length)
    content[: len(first)] = first
    done = len(first)
    with memoryview(content) as view:
        while done < length:
            count = os.preadv(handle, [view[done:]], offset + done)
            if count == 0:
                break
            done += count
    return content if done == length else bytes(content[:done])


def _as_bytes(data: memoryview) -> memoryview:
    return data.cast("B") if data.c_contiguous else memoryview(data.tobytes())
