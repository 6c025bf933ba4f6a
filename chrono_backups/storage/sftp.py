"""A storage in a folder of a server that speaks SFTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import StorageError
from chrono_backups.storage.base import ObjectInfo, Usage
from chrono_backups.storage.keys import MAX_KEY_LENGTH, check_key, check_prefix, check_range, is_segment
from chrono_backups.storage.sftp_connection import Patience, SshDialer
from chrono_backups.storage.sftp_errors import SftpErrors
from chrono_backups.storage.sftp_messages import NO_SUCH_FILE, Attributes, SftpStatus
from chrono_backups.storage.sftp_pool import SftpPool
from chrono_backups.storage.sftp_put import TEMPORARY_FOLDER, Publisher
from chrono_backups.storage.sftp_session import READ, SftpSession, Wire

if TYPE_CHECKING:
    from chrono_backups.storage.settings import SftpSettings

_FOLDERS_AT_ONCE = 16

Listing = list[tuple[str, Attributes]]


class SftpStorage:
    """Objects as files below a folder, each at the path its key spells, as ``LocalStorage`` lays them out.

    ``sftp_put.Publisher`` tells how a put keeps the seam's duties. Whatever takes a round trip shares it with all
    that can be asked at the same time, and content flows without waiting for answers, so that distance costs little.

    The folder and its ``.tmp`` are made by ``open``, when ``create`` says so, and never again: a folder without
    ``.tmp`` is where a disk is not mounted, and not an empty storage. Empty folders stay when their last object is
    deleted: removing them would race with writers.

    Nothing connects before the first call. Up to ``connections`` threads work at once, each over a connection of its
    own; a connection that breaks is replaced when the next call needs one.
    """

    def __init__(
        self,
        dial: Callable[[], Wire],
        root: str,
        *,
        location: str,
        name: str = "sftp",
        connections: int = 4,
        create: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """``root`` is the folder as the server knows it, without a slash at its end: "" for ``/``."""
        self._name = name
        self._location = location
        self._root = root
        self._errors = SftpErrors(name=name, location=location, root=root)
        self._pool = SftpPool(lambda: SftpSession(dial()), connections)
        self._publisher = Publisher(root, self._errors, clock or SystemClock())
        self.paces = True
        if create:
            with self._session("create") as session:
                self._publisher.make_root(session)

    @classmethod
    def open(
        cls,
        settings: SftpSettings,
        *,
        name: str = "sftp",
        create: bool = False,
        clock: Clock | None = None,
        patience: Patience | None = None,
        client: Callable[[], Wire] | None = None,
    ) -> SftpStorage:
        """The storage of the settings. ``client``: opens a connection, in place of the one that they describe."""
        root = settings.path.rstrip("/")
        place = settings.path if settings.path.startswith("/") else f"/~/{settings.path}"
        port = "" if settings.port == 22 else f":{settings.port}"
        location = f"sftp://{settings.username}@{settings.host}{port}{place}"
        dialer = SshDialer(settings, name=name, location=location, patience=patience)
        return cls(
            client or dialer.dial, root, location=location, name=name, connections=settings.connections, create=create,
            clock=clock,
        )  # fmt: skip

    @property
    def name(self) -> str:
        return self._name

    @property
    def location(self) -> str:
        return self._location

    # Objects

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        check_key(key)
        # Released on every way out: an exception's traceback must not keep the caller's buffer exported.
        with memoryview(data) as given, _as_bytes(given) as view, self._session("put", key) as session:
            self._publisher.put(session, key, view)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        check_key(key)
        check_range(offset, length)
        path = self._path(key)
        with self._session("get", key) as session:
            opening, looking = session.ask_open(path, READ), session.ask_stat(path)
            handle = self._opened(session, key, opening, looking)
            try:
                found = session.attributes(looking)
                if not found.is_file:  # a folder can be opened too
                    raise self._errors.missing("get", key)
                end = found.size if length is None else offset + length
                if max(offset, end) > found.size:
                    raise self._errors.too_short(key, offset, end, found.size)
                content = session.read(handle, offset, end - offset)
            finally:
                session.forget(session.ask_close(handle), looking)
        if len(content) != end - offset:
            raise self._errors.too_short(key, offset, end, offset + len(content))
        return content

    def _opened(self, session: SftpSession, key: str, opening: int, looking: int) -> bytes:
        try:
            return session.handle(opening)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                session.forget(looking)
                self._require_root(session, "get", key)
                raise self._errors.missing("get", key) from None
            there = session.found(looking)
            if there is not None and not there.is_file:
                raise self._errors.missing("get", key) from None
            raise

    def info(self, key: str) -> ObjectInfo:
        check_key(key)
        with self._session("info", key) as session:
            found = session.found(session.ask_stat(self._path(key)))
            if found is None:
                self._require_root(session, "info", key)
            if found is None or not found.is_file:
                raise self._errors.missing("info", key)
        return ObjectInfo(key, found.size)

    def delete(self, key: str) -> None:
        """Remove the object if it is there; durable, so that what refers to nothing is deleted in order."""
        check_key(key)
        with self._session("delete", key) as session:
            if not self._publisher.delete(session, key):
                self._require_root(session, "delete", key)

    # List

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._session("list") as session:
            self._require_root(session, "list")
        folder, _, start = prefix.rpartition("/")
        folder = f"{folder}/" if folder else ""
        (found,) = self._read([folder])
        yield from self._walk(folder, found, start)

    def _walk(self, folder: str, found: Listing, start: str = "") -> Iterator[ObjectInfo]:
        """The objects of ``folder`` ("" or ending in a slash) and below whose name there begins with ``start``."""
        # A folder sorts as the slash it puts into keys: `a-b` < `a/b` < `a0`. Foreign names are none.
        entries = sorted(
            (name + "/" if attributes.is_folder else name, attributes.size)
            for name, attributes in found
            if name.startswith(start) and is_segment(name) and (attributes.is_folder or attributes.is_file)
        )
        unread = [folder + name for name, _ in entries if name.endswith("/")]
        read: dict[str, Listing] = {}
        at_once = 1
        for name, size in entries:
            key = folder + name
            if len(key) > MAX_KEY_LENGTH:
                continue
            if not name.endswith("/"):
                yield ObjectInfo(key, size)
                continue
            if key not in read:
                while unread[0] != key:
                    del unread[0]
                next_ones, unread = unread[:at_once], unread[at_once:]
                read.update(zip(next_ones, self._read(next_ones), strict=True))
                at_once = min(2 * at_once, _FOLDERS_AT_ONCE)
            yield from self._walk(key, read.pop(key))

    def _read(self, folders: Sequence[str]) -> Sequence[Listing]:
        """What lies in each folder, links followed; nothing in one that is not there. No session stays taken."""
        with self._session("list") as session:
            listings = [found or [] for found in session.read_folders([self._path(folder) for folder in folders])]
            for folder, listing in zip(folders, listings, strict=True):
                looking = {
                    place: session.ask_stat(self._path(folder + name))
                    for place, (name, attributes) in enumerate(listing)
                    if attributes.is_link or attributes.mode is None
                }
                for place, ticket in looking.items():
                    target = session.found(ticket)
                    if target is not None:
                        listing[place] = (listing[place][0], target)
            return listings

    # The whole

    def usage(self) -> Usage:
        """Bytes of all objects, by a listing, and what is free on the server's disk, where it tells."""
        used = sum(info.size for info in self._list(""))
        with self._session("usage") as session:
            space = session.file_system(self._root or "/")
        return Usage(used=used, free=None if space is None else space.free)

    def close(self) -> None:
        self._pool.close()

    # Where things are

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key or not self._root else self._root

    def _require_root(self, session: SftpSession, operation: str, key: str = "") -> None:
        """Before "there is no such object" is believed: is this the storage, or a bare mount point?"""
        temporary = session.found(session.ask_stat(self._path(TEMPORARY_FOLDER)))
        if temporary is not None and temporary.is_folder:
            return
        (found,) = session.read_folders([self._path("")])
        if any(name not in {".", "..", "lost+found"} for name, _ in found or ()):
            return
        raise self._errors.not_here(operation, key)

    @contextmanager
    def _session(self, operation: str, key: str = "") -> Iterator[SftpSession]:
        """A session, and what goes wrong in it as this storage's errors."""
        try:
            with self._pool.session() as session:
                try:
                    yield session
                except SftpStatus as status:
                    raise self._errors.refused(session, status, operation, key) from None
        except StorageError as error:
            if not error.operation:  # of the connection, which does not know what it was for
                error.operation, error.key = operation, key
            raise


def _as_bytes(data: memoryview) -> memoryview:
    return data.cast("B") if data.c_contiguous else memoryview(data.tobytes())
