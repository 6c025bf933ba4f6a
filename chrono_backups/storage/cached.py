"""A storage whose small lasting objects are kept on this machine as well."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from chrono_backups.storage.base import ObjectInfo, Storage, Usage
from chrono_backups.storage.fallback import copies
from chrono_backups.storage.locking import extend_lock, lock_days, locked_until

KEPT_FOLDERS = ("index/", "manifests/", "snapshots/")
"""What is read again by every run, and is written once."""
_TEMPORARY = ".tmp-"


@runtime_checkable
class KeepingStorage(Protocol):
    """A storage with a place on this machine for what its reader found sound."""

    def kept(self, key: str) -> bytes | None:
        """What was kept of the object, if it has been seen stored in that size."""

    def keep(self, key: str, content: bytes | bytearray | memoryview) -> None:
        """Keep an object, which the reader has found to be sound."""


class CachedStorage:
    """Passes every call on; beside that it keeps objects of ``KEPT_FOLDERS`` below ``directory``, sealed as they are.

    ``get`` is never answered from there: whoever asks for the stored bytes, to verify or to copy them, gets those.
    Whoever asks for the *content* asks ``kept`` first, opens it, which proves it, and otherwise fetches the object and
    gives it to ``keep``. So a damaged or forged file is found like a damaged object, and is only a file to be replaced.

    What is kept is given out only where this instance has seen the object in the size of the file: in a listing, or
    as it was put or fetched. So what another process deleted is not read any more. A listing of a whole folder clears
    away what is no longer stored. Files come into place whole, so that any number of processes share the directory;
    one that can't be written to is done without.
    """

    def __init__(self, inner: Storage, directory: Path) -> None:
        """``directory`` is for caches of any storages; each has a folder of its own in it."""
        self._inner = inner
        place = f"{inner.name}\n{inner.location}".encode()
        self._folder = directory / hashlib.blake2b(place, digest_size=16).hexdigest()
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def lock_days(self) -> int:
        return lock_days(self._inner)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        self._inner.put(key, data)
        if key.startswith(KEPT_FOLDERS):
            self.keep(key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        return self._inner.get(key, offset, length)

    def copies(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes | bytearray]:
        return copies(self._inner, key, offset, length)

    def info(self, key: str) -> ObjectInfo:
        return self._inner.info(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        listing = self._inner.list(prefix)
        return self._watched(prefix, listing) if prefix in KEPT_FOLDERS else listing

    def _watched(self, folder: str, listing: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        found: dict[str, int] = {}
        for info in listing:
            found[info.key] = info.size
            with self._lock:
                self._seen[info.key] = info.size
            yield info
        with self._lock:
            gone = {key for key in self._seen if key.startswith(folder)} - found.keys()
            for key in gone:
                del self._seen[key]
        with suppress(OSError), os.scandir(self._folder / folder) as kept:
            for one in kept:
                if folder + one.name not in found and not one.name.startswith(_TEMPORARY):
                    Path(one.path).unlink(missing_ok=True)

    def kept(self, key: str) -> bytes | None:
        with self._lock:
            size = self._seen.get(key)
        if size is None:
            return None
        try:
            content = (self._folder / key).read_bytes()
        except OSError:
            return None
        return content if len(content) == size else None

    def keep(self, key: str, content: bytes | bytearray | memoryview) -> None:
        if not key.startswith(KEPT_FOLDERS):
            return
        with self._lock:
            self._seen[key] = memoryview(content).nbytes
        path = self._folder / key
        with suppress(OSError):
            for folder in (self._folder.parent, self._folder, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is for the last one only
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_TEMPORARY, delete=False) as file:
                try:
                    file.write(content)
                    file.flush()
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise

    def delete(self, key: str) -> None:
        self._inner.delete(key)
        with self._lock:
            self._seen.pop(key, None)
        if key.startswith(KEPT_FOLDERS):
            with suppress(OSError):
                (self._folder / key).unlink(missing_ok=True)

    def usage(self) -> Usage:
        return self._inner.usage()

    def locked_until(self, key: str) -> datetime | None:
        return locked_until(self._inner, key)

    def extend_lock(self, key: str, until: datetime) -> None:
        extend_lock(self._inner, key, until)

    def close(self) -> None:
        self._inner.close()


def default_directory() -> Path | None:
    """Where programs keep what they can do without; None where this account has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "chrono-backups"
    except RuntimeError:
        return None
