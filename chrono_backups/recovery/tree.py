"""Writing entries below a root, with all their attributes, in the order of a listing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from chrono_backups.events import Finding
from chrono_backups.recovery.browse import join
from chrono_backups.recovery.content_writer import ContentWriter, Pieces
from chrono_backups.recovery.plan import IN_PLACE_BATCH, STAGING
from chrono_backups.repository.listing import NOTHING_EXTRA, Extra, Segment
from chrono_backups.sources.patterns import Selection

FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""After these there is no point in going on with other entries."""
_BATCH_FILES = 2000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry to be written, as the listing has it."""

    path: bytes
    """Relative to the root."""
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    extra: Extra
    selected: bool
    """Asked for; a directory that is not is made only where something goes into it."""
    linkable: bool
    """The first name of its inode, if it has several, is asked for as well."""

    @classmethod
    def of(cls, segment: Segment, position: int, selection: Selection) -> Entry:
        path = join(segment.path, segment.names[position])
        extra = segment.extras.get(position, NOTHING_EXTRA)
        return cls(
            path,
            segment.mode[position],
            segment.uid[position],
            segment.gid[position],
            segment.size[position],
            segment.mtime[position],
            extra,
            selection.takes(b"/" + path),
            extra.hard_link is not None and selection.takes(b"/" + extra.hard_link),
        )

    @property
    def directory(self) -> bytes:
        return self.path.rpartition(b"/")[0]

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    @property
    def shown(self) -> str:
        """The path for people."""
        return (b"/" + self.path).decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class _Folder:
    """A directory whose own attributes are set when all below it is written."""

    entry: Entry
    made: bool = False


@dataclass(frozen=True)
class Placing:
    """How a tree's entries come to lie otherwise than the listing says."""

    owner: tuple[int, int] | None = None
    """User and group of everything, in place of each entry's own."""
    elsewhere: Mapping[bytes, bytes] = field(default_factory=dict)
    """Directory of the listing → absolute path of the directory that is made for it; a symbolic link leads there."""


AS_LISTED = Placing()


class Tree:
    """One restore's destination. Entries come in the order of the listing."""

    def __init__(
        self,
        root: bytes,
        *,
        in_place: bool,
        find: Callable[[Finding], None],
        sync: Callable[[bytes], None],
        placing: Placing = AS_LISTED,
    ) -> None:
        self._root = root.rstrip(b"/") + b"/"
        self._in_place = in_place
        self._find = find
        self._sync = sync
        self._placing = placing
        self._root_user = os.geteuid() == 0
        self._path: bytes | None = None
        self._descriptor = -1
        self._arriving: list[_Folder] = []
        self._folders: list[_Folder] = []
        self._written: list[_Folder] = []
        self._batch: dict[bytes, bytes] = {}
        self._batch_bytes = 0
        self._failed: set[bytes] = set()
        self._serial = 0
        self._run = os.urandom(4).hex().encode()
        self._told: set[str] = set()
        self._writer = ContentWriter()

    def restore(self, entry: Entry, pieces: Pieces, sound: Callable[[], bool]) -> int | None:
        """Write one entry; a regular file's size, or None for what is no file or could not be written.

        ``pieces`` are its content's ``(offset, bytes)``, always exhausted. Where ``sound`` then says no, the
        file is not kept.
        """
        try:
            self._enter(entry.directory)
            if stat.S_ISDIR(entry.mode):
                self._arriving.append(_Folder(entry))
            elif entry.selected:
                self._make_current()
                if stat.S_ISREG(entry.mode):
                    return self._file(entry, pieces, sound)
                self._special(entry)
        except OSError as error:
            self._failed.add(entry.path)
            if error.errno in FATAL:
                raise
            what = error.strerror or str(error)
            self._find(Finding("entry-not-restored", "error", entry.shown, what))
        finally:
            for _ in pieces:
                pass
        return None

    @property
    def cached(self) -> int:
        """Bytes written so far that are left to the page cache."""
        return self._writer.cached

    # Directories. `_folders` has those that are open or still to come, the next on top.

    def _enter(self, path: bytes) -> None:
        if path == self._path:
            return
        self._close_current()
        self._folders.extend(reversed(self._arriving))
        self._arriving = []
        while self._folders:
            top = self._folders[-1].entry.path
            if path == top or path.startswith(top + b"/"):
                break
            self._complete(self._folders.pop())
        self._path = path

    def _make_current(self) -> None:
        """Have the directory being filled, and those it is in; open it."""
        if self._descriptor >= 0:
            return
        assert self._path is not None
        for folder in self._folders:
            if self._path == folder.entry.path or self._path.startswith(folder.entry.path + b"/"):
                self._make(folder)
        self._descriptor = os.open(self._root + self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _make(self, folder: _Folder) -> None:
        if folder.made:
            return
        place = self._root + folder.entry.path
        elsewhere = self._placing.elsewhere.get(folder.entry.path)
        try:
            if elsewhere is None:
                os.mkdir(place, 0o700)
            else:
                os.mkdir(elsewhere, 0o700)
                os.symlink(elsewhere, place)
        except FileExistsError:
            if not self._in_place or not stat.S_ISDIR(os.lstat(place).st_mode):
                raise
            # What is there already and was not asked for keeps its attributes.
            folder.made = not folder.entry.selected
            if folder.made:
                return
        folder.made = True
        self._written.append(folder)

    def _complete(self, folder: _Folder) -> None:
        """Set a directory's attributes; in place only at the end, as files still take their places in it."""
        try:
            if folder.entry.selected:
                self._make(folder)
            if not self._in_place and folder.made:
                self._attributes(self._root + folder.entry.path, folder.entry)
        except OSError as error:
            if error.errno in FATAL:
                raise
            self._find(Finding("entry-not-restored", "error", folder.entry.shown, error.strerror or str(error)))

    def _close_current(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def finish(self) -> None:
        """Let what is written take its place, and complete all directories."""
        self._enter(b"")
        self._flush_batch()
        if self._in_place:
            for folder in reversed(self._written):
                self._attributes(self._root + folder.entry.path, folder.entry)

    def close(self) -> None:
        """Let go, finished or not; files beside those they were to replace are removed."""
        self._writer.close()
        self._close_current()
        for temporary in self._batch.values():
            with suppress(OSError):
                os.unlink(temporary)
        self._batch = {}

    # Entries.

    def _file(self, entry: Entry, pieces: Pieces, sound: Callable[[], bool]) -> int | None:
        first = entry.extra.hard_link
        if first is not None and entry.linkable and first not in self._failed:
            source = self._batch.get(self._root + first, self._root + first)
            self._place(entry, lambda name: os.link(source, name, dst_dir_fd=self._descriptor))
            return 0
        name = self._temporary() if self._in_place else entry.name
        descriptor = os.open(name, _NEW, 0o600, dir_fd=self._descriptor)
        try:
            end = self._writer.write(descriptor, pieces, entry.size)
            if sound():
                if end < entry.size:
                    os.ftruncate(descriptor, entry.size)
                self._attributes(descriptor, entry)
        except BaseException:
            os.unlink(name, dir_fd=self._descriptor)
            raise
        finally:
            os.close(descriptor)
        if not sound():
            self._failed.add(entry.path)
            os.unlink(name, dir_fd=self._descriptor)
            return None
        if self._in_place:
            self._enlist(entry, name)
        return entry.size

    def _special(self, entry: Entry) -> None:
        mode, target = entry.mode, entry.extra.link_target

        def make(name: bytes) -> None:
            if stat.S_ISLNK(mode) and target is not None:
                os.symlink(target, name, dir_fd=self._descriptor)
            elif stat.S_ISFIFO(mode):
                os.mkfifo(name, 0o600, dir_fd=self._descriptor)
            else:
                os.mknod(name, stat.S_IFMT(mode) | 0o600, entry.extra.device or 0, dir_fd=self._descriptor)

        name = self._place(entry, make)
        self._attributes(self._root + (self._path + b"/" if self._path else b"") + name, entry)

    def _place(self, entry: Entry, make: Callable[[bytes], None]) -> bytes:
        """Make an entry under its name or, in place, under one that is changed for it later; that name."""
        name = self._temporary() if self._in_place else entry.name
        make(name)
        if self._in_place:
            self._enlist(entry, name)
        return name

    def _temporary(self) -> bytes:
        self._serial += 1
        return b"%b%b-%d" % (STAGING.encode(), self._run, self._serial)

    # In place: what is written beside takes its place batch by batch.

    def _enlist(self, entry: Entry, name: bytes) -> None:
        folder = self._root + (entry.directory + b"/" if entry.directory else b"")
        self._batch[folder + entry.name] = folder + name
        self._batch_bytes += entry.size
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= IN_PLACE_BATCH:
            self._flush_batch()

    def _flush_batch(self) -> None:
        """Put the batch on the disk, then let each file replace the one of its name."""
        if not self._batch:
            return
        places = {os.stat(place).st_dev: place for place in map(os.path.dirname, self._batch)}
        for place in places.values():
            self._sync(place)
        for final, temporary in list(self._batch.items()):
            try:
                os.rename(temporary, final)
                with suppress(FileNotFoundError):
                    os.unlink(temporary)  # two names of one inode: rename leaves both
            except OSError as error:
                self._find(Finding("entry-not-restored", "error", os.fsdecode(final), error.strerror or str(error)))
                os.unlink(temporary)
            del self._batch[final]
        self._batch_bytes = 0

    # Attributes.

    def _attributes(self, place: int | bytes, entry: Entry) -> None:
        """Owner, then mode (a change of owner drops setuid), then extended attributes, then time."""
        link = stat.S_ISLNK(entry.mode)
        owner = self._placing.owner or (entry.uid, entry.gid)
        try:
            if self._root_user or owner != (os.geteuid(), os.getegid()):
                os.chown(place, *owner, follow_symlinks=not link)
        except PermissionError:
            self._tell_once("owners-not-restored", entry, "only root can give files to other users", "Restore as root.")
        if not link:
            os.chmod(place, stat.S_IMODE(entry.mode))
        for name, value in entry.extra.xattrs.items():
            try:
                os.setxattr(place, name, value, follow_symlinks=not link)
            except OSError as error:
                self._tell_once(f"xattr-{name!r}", entry, f"{os.fsdecode(name)}: {error.strerror}", "")
        os.utime(place, ns=(entry.mtime, entry.mtime), follow_symlinks=not link)

    def _tell_once(self, code: str, entry: Entry, message: str, hint: str) -> None:
        if code not in self._told:
            self._told.add(code)
            name = code if code == "owners-not-restored" else "xattr-not-restored"
            self._find(Finding(name, "warning", entry.shown, f"{message} (told once)", hint))
