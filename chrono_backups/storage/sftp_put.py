"""How an object gets onto an SFTP server: whole or not at all, once, and durably."""

from __future__ import annotations

import hashlib
import posixpath
import threading

from chrono_backups.clock import Clock
from chrono_backups.errors import StorageError
from chrono_backups.storage.sftp_errors import SftpErrors
from chrono_backups.storage.sftp_messages import NO_SUCH_FILE, PERMISSION_DENIED, SftpStatus
from chrono_backups.storage.sftp_session import CREATE, EXCLUSIVE, FSYNC, HARD_LINK, READ, WRITE, SftpSession

TEMPORARY_FOLDER = ".tmp"

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_ABANDONED_AFTER = 24 * 3600
_CLAIM_ABANDONED_AFTER = 120
"""Seconds. Far longer than the two round trips that a claim is held for."""
_CLAIM_PATIENCE = 30.0


Handles = dict[str, bytes | None]
"""Open folders, to be fsynced; None for one that could not be opened: not there, or the server opens files only."""


class Publisher:
    """Writes objects below ``root``.

    1. The data goes to a new file in ``.tmp`` below the root, which no key can name, and is fsynced. A killed writer
       leaves at most this file; a writer removes those older than a day, by the server's own clock.
    2. A hard link gives it the object's name, or fails where the name is taken. The name in ``.tmp`` is then taken
       away, which a put does not wait for: one that stays costs no space, and is removed with the abandoned ones.
    3. The folder is fsynced, and on its first use here those above it (as ``DurableFolders`` tells): OpenSSH opens
       folders as well as files. The same goes before ``ObjectExists`` is raised.

    A server that knows no ``fsync@openssh.com`` decides itself when data is durable. Where it knows no hard links, or
    its file system has none, step 2 is "look, then rename", for which a folder in ``.tmp`` is made and removed: the
    server lets one writer make it. The claim of a writer that was killed in between counts for two minutes.
    """

    def __init__(self, root: str, errors: SftpErrors, clock: Clock) -> None:
        self._root = root
        self._top = root or "/"
        self._temporary = f"{root}/{TEMPORARY_FOLDER}"
        self._errors = errors
        self._clock = clock
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._swept = False
        self._folders_sync: bool | None = None

    def make_root(self, session: SftpSession) -> None:
        """The root, what is missing above it, and ``.tmp``. Raises ``SftpStatus``."""
        missing = [path for path in _ways(self._temporary) if session.found(session.ask_stat(path)) is None]
        refusal = None
        for path in missing:
            try:
                session.done(session.ask_mkdir(path, _FOLDER_MODE))
            except SftpStatus as status:  # another one may make it too; what counts is that it is there
                refusal = refusal or status
        there = session.found(session.ask_stat(self._temporary))
        if there is None or not there.is_folder:
            raise refusal or SftpStatus(NO_SUCH_FILE, "a file lies where a folder is needed")
        above = dict.fromkeys([self._top, *(posixpath.dirname(path) or "." for path in missing)])
        handles: Handles = {}
        if FSYNC in session.extensions:
            handles = self._handles(session, {path: session.ask_open(path, READ) for path in above})
        for ticket in self._ask_sync(session, handles).values():
            session.is_done(ticket)  # what is above the root may be closed to this account
        self._close(session, handles)

    # One put

    def put(self, session: SftpSession, key: str, data: memoryview) -> None:
        """Raises ``SftpStatus`` and ``StorageError``; the temporary file is then gone, if the server can be told."""
        target = f"{self._root}/{key}"
        temporary = f"{self._temporary}/put-{self._clock.random_bytes(16).hex()}"
        opening = session.ask_open(temporary, WRITE | CREATE | EXCLUSIVE, _FILE_MODE)
        looking = session.ask_lstat(target)
        handles = self._handles(session, self._ask_folders(session, posixpath.dirname(target)))
        try:
            handle = self._opened(session, key, opening)
            try:
                if session.found(looking) is not None:  # spares writing it all for nothing; the link is what decides
                    raise self._taken(session, key, handles)
                tickets = session.write(handle, data)
                if FSYNC in session.extensions:
                    tickets.append(session.ask_fsync(handle))
            finally:
                closing = session.ask_close(handle)
            self._written(session, key, [*tickets, closing], len(data))
            self._publish(session, key, temporary, target, handles)
        finally:
            if session.sound:
                session.forget(session.ask_remove(temporary), looking)
                self._close(session, handles)

    def _opened(self, session: SftpSession, key: str, opening: int) -> bytes:
        try:
            return session.handle(opening)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                raise self._errors.not_here("put", key) from None
            raise

    def _written(self, session: SftpSession, key: str, tickets: list[int], size: int) -> None:
        refusal = None
        for ticket in tickets:
            try:
                session.done(ticket)
            except SftpStatus as status:
                refusal = refusal or status
        if refusal is not None:
            raise self._errors.refused(session, refusal, "put", key, size=size) from refusal

    def _publish(self, session: SftpSession, key: str, temporary: str, target: str, handles: Handles) -> None:
        folder = posixpath.dirname(target)
        if folder in handles and handles[folder] is None:
            self._make_folders(session, key, folder, handles)
        sweep = session.ask_lstat(temporary) if self._is_to_sweep() else None
        try:
            self._name_once(session, key, temporary, target, handles)
        except SftpStatus as status:
            if status.code != NO_SUCH_FILE:
                raise
            # The folder was never made, or removed since this instance made it.
            self._make_folders(session, key, folder, handles)
            try:
                self._name_once(session, key, temporary, target, handles)
            except SftpStatus as again:
                if again.code != NO_SUCH_FILE:
                    raise
                raise self._in_the_way(session, key, folder) from None
        with self._lock:
            self._known.add(folder)
        if sweep is not None:
            self._sweep(session, sweep)

    def _name_once(self, session: SftpSession, key: str, temporary: str, target: str, handles: Handles) -> None:
        if HARD_LINK in session.extensions:
            linking = session.ask_hard_link(temporary, target)
            syncing = self._ask_sync(session, handles)  # shares the round trip: the server keeps to the order
            try:
                session.done(linking)
            except SftpStatus as status:
                session.forget(*syncing.values())
                if status.code == NO_SUCH_FILE:
                    raise
                if session.found(session.ask_lstat(target)) is not None:
                    raise self._taken(session, key, handles) from None
                space = session.file_system(self._top)
                if space is not None and 0 in (space.free, space.free_files):
                    raise
            else:
                self._synced(session, syncing)
                return
        self._rename_once(session, key, temporary, target, handles)
        self._synced(session, self._ask_sync(session, handles))

    def _rename_once(self, session: SftpSession, key: str, temporary: str, target: str, handles: Handles) -> None:
        claim = f"{self._temporary}/claim-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._claim(session, key, claim, temporary)
        try:
            if session.found(session.ask_lstat(target)) is not None:
                raise self._taken(session, key, handles)
            session.done(session.ask_rename(temporary, target))
        finally:
            if session.sound:
                session.is_done(session.ask_rmdir(claim))

    def _claim(self, session: SftpSession, key: str, claim: str, temporary: str) -> None:
        until = self._clock.monotonic() + _CLAIM_PATIENCE
        while True:
            making, looking, asking = (
                session.ask_mkdir(claim, _FOLDER_MODE), session.ask_lstat(claim), session.ask_lstat(temporary)
            )  # fmt: skip
            try:
                session.done(making)
                session.forget(looking, asking)
                return
            except SftpStatus as status:
                held, ours = session.found(looking), session.found(asking)
                if status.code == PERMISSION_DENIED or ours is None:
                    raise
                if held is not None and ours.modified - held.modified > _CLAIM_ABANDONED_AFTER:
                    session.is_done(session.ask_rmdir(claim))
                    continue
            if self._clock.monotonic() > until:
                raise self._errors.busy(key)
            self._clock.sleep(0.05)

    def _taken(self, session: SftpSession, key: str, handles: Handles) -> StorageError:
        """Who is told that an object exists may rely on it, so its name is made durable first."""
        there = session.found(session.ask_stat(f"{self._root}/{key}"))
        if there is not None and there.is_folder:
            return self._errors.object_and_folder(key)
        self._synced(session, self._ask_sync(session, handles))
        return self._errors.exists(key)

    def _in_the_way(self, session: SftpSession, key: str, folder: str) -> StorageError:
        """Why no name can be given in a folder, though it was made: the storage is gone, or a file lies there."""
        there = session.found(session.ask_stat(self._temporary))
        if there is None or not there.is_folder:
            return self._errors.not_here("put", key)
        return self._errors.object_and_folder(folder.removeprefix(self._root).strip("/"))

    def _is_to_sweep(self) -> bool:
        with self._lock:
            due, self._swept = not self._swept, True
        return due

    def _sweep(self, session: SftpSession, asked: int) -> None:
        """Remove what killed writers left. ``asked``: what was made just now, by the server's clock."""
        try:
            now = session.attributes(asked).modified
            (found,) = session.read_folders([self._temporary])
        except SftpStatus:
            return
        for name, attributes in found or ():
            if now - attributes.modified > _ABANDONED_AFTER:
                path = f"{self._temporary}/{name}"
                if name.startswith("put-"):
                    session.forget(session.ask_remove(path))
                elif name.startswith("claim-"):
                    session.forget(session.ask_rmdir(path))

    # Folders

    def _make_folders(self, session: SftpSession, key: str, folder: str, handles: Handles) -> None:
        """The folder and those between it and the root, which is never made here; ``handles`` become theirs."""
        self._close(session, handles)
        with self._lock:
            self._known.clear()  # a disk was mounted anew, or folders were removed
        path = self._root
        for name in filter(None, folder.removeprefix(self._root).split("/")):
            path = f"{path}/{name}"
            try:
                session.done(session.ask_mkdir(path, _FOLDER_MODE))
            except SftpStatus as status:
                if session.found(session.ask_stat(path)) is None:
                    if status.code == NO_SUCH_FILE:
                        raise self._in_the_way(session, key, posixpath.dirname(path)) from None
                    raise
        handles.clear()
        handles.update(self._handles(session, self._ask_folders(session, folder)))

    def _ask_folders(self, session: SftpSession, folder: str) -> dict[str, int]:
        """Open the folder to fsync it, and at its first use here all the way to the root."""
        if FSYNC not in session.extensions or self._folders_sync is False:
            return {}
        paths = [folder]
        with self._lock:
            known = folder in self._known
        while not known and paths[-1] != self._top:
            paths.append(posixpath.dirname(paths[-1]))
        return {path: session.ask_open(path, READ) for path in paths}

    def _handles(self, session: SftpSession, asked: dict[str, int]) -> Handles:
        handles: Handles = {}
        for path, ticket in asked.items():
            try:
                handles[path] = session.handle(ticket)
            except SftpStatus:
                handles[path] = None
        return handles

    def _close(self, session: SftpSession, handles: Handles) -> None:
        for path, handle in handles.items():
            if handle is not None:
                session.forget(session.ask_close(handle))
                handles[path] = None

    def _ask_sync(self, session: SftpSession, handles: Handles) -> dict[str, int]:
        return {path: session.ask_fsync(handle) for path, handle in handles.items() if handle is not None}

    def _synced(self, session: SftpSession, asked: dict[str, int]) -> None:
        """Wait until folders are durable. A file system that can't do it for any folder is let off."""
        refusal = None
        for ticket in asked.values():
            try:
                session.done(ticket)
            except SftpStatus as status:
                refusal = refusal or status
        if refusal is None:
            return
        if self._folders_sync is None:
            handle = session.handle(session.ask_open(self._temporary, READ))
            self._folders_sync = session.is_done(session.ask_fsync(handle))
            session.forget(session.ask_close(handle))
        if self._folders_sync:
            raise refusal

    # Removal

    def delete(self, session: SftpSession, key: str) -> bool:
        """Remove the object, durably; whether it was there. Raises ``SftpStatus``."""
        target = f"{self._root}/{key}"
        folder = posixpath.dirname(target)
        opening = {folder: session.ask_open(folder, READ)} if FSYNC in session.extensions else {}
        removing = session.ask_remove(target)
        handles = self._handles(session, opening)
        try:
            session.done(removing)
            self._synced(session, self._ask_sync(session, handles))
        except SftpStatus:
            there = session.found(session.ask_lstat(target))
            if there is None or there.is_folder:
                return False
            raise
        finally:
            if session.sound:
                self._close(session, handles)
        return True


def _ways(path: str) -> list[str]:
    """``/a/b`` → ``/a``, ``/a/b``; without the slash, from where a session begins."""
    parts = path.split("/")
    return [way for count in range(1, len(parts) + 1) if (way := "/".join(parts[:count]))]
