"""Mounted trees: the sources ``files`` and, for named files, ``configuration``.

Entries are taken in one walk. A file that changes, vanishes or refuses to be read meanwhile is a
finding; its neighbours are captured all the same. Symbolic links are kept as links and never followed.
Paths in the capture are absolute paths without their leading ``/``.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.sources import scan
from chrono_backups.sources.base import PLAIN, Capture, Content, Description, Directory, Unreadable
from chrono_backups.sources.patterns import Patterns
from chrono_backups.sources.read_ahead import Batch, ReadAhead

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_XATTRS_MOST = 1024 * 1024
_HOLE_LEAST = 64 * 1024
"""A shorter hole is read as zeros: a chunk of its own for every few kB between holes would cost more."""


class FilesSource:
    """Directories, each with all below it; and single files where ``single_files`` allows them."""

    def __init__(
        self,
        name: SourceName,
        paths: Sequence[Path],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        never: Sequence[Path] = (),
        single_files: bool = False,
        cut: bytes = b"",
    ) -> None:
        """``never``: places that are left out whatever is asked: the repository itself, our caches.

        ``cut``: the root comes in two stretches, the names before this one and the others.
        """
        self.name: SourceName = name
        self._paths = [Path(os.path.abspath(path)) for path in paths]
        self._patterns = Patterns(include, exclude)
        self._never = frozenset(os.fsencode(os.path.realpath(path)) for path in never)
        self._single_files = single_files
        self._cut = cut

    @property
    def variable(self) -> str:
        """The setting that names the paths."""
        return f"BACKUP_{self.name.upper()}_PATHS"

    def probe(self) -> list[Finding]:
        """Paths that are missing, are no directory or can't be read."""
        return [finding for path in self._paths if (finding := self._probe(path)) is not None]

    def _probe(self, path: Path) -> Finding | None:
        try:
            mode = path.stat().st_mode
            if not stat.S_ISDIR(mode) and not (self._single_files and stat.S_ISREG(mode)):
                hint = f"{self.variable} names directories" + (" and files." if self._single_files else ".")
                if not self._single_files:
                    hint += " Name its directory, or name it in BACKUP_CONFIGURATION_PATHS."
                return Finding("path-not-a-directory", "error", str(path), "is no directory", hint)
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except FileNotFoundError:
            hint = f"Is the volume mounted? Correct {self.variable}."
            return Finding("path-missing", "error", str(path), "does not exist", hint)
        except OSError as error:
            return _finding("path-unreadable", os.fsencode(path), error)
        return None

    @contextmanager
    def capture(self, listener: Listener) -> Iterator[Capture]:
        """Raises ``SourceError`` naming every path that can't be captured: nothing is left out in silence."""
        problems = self.probe()
        if problems:
            named = "; ".join(f"{one.subject} {one.message}" for one in problems)
            raise SourceError(f"the source {self.name}: {named}", source=self.name, hint=problems[0].hint)
        capture = _FilesCapture(
            [self._resolved(path, listener) for path in self._paths], self._patterns, self._never, listener, self._cut
        )
        try:
            yield capture
        finally:
            capture.close()

    def _resolved(self, path: Path, listener: Listener) -> Path:
        """The path without symbolic links: a root that is one would be captured as a link and nothing below it."""
        resolved = path.resolve()
        if resolved != path:
            listener(Finding("path-resolved", "info", str(path), f"is captured as {resolved}, where its links lead"))
        return resolved


class _FilesCapture:
    def __init__(
        self, paths: Sequence[Path], patterns: Patterns, never: frozenset[bytes], listener: Listener, cut: bytes
    ) -> None:
        self._roots = sorted({os.fsencode(path) for path in paths})
        self._patterns = patterns
        self._never = never
        self._listener = listener
        self._cut = cut
        self._ahead = ReadAhead()

    def close(self) -> None:
        """Nothing more is read."""
        self._ahead.close()

    def facts(self) -> Mapping[str, Any]:
        return {"paths": [os.fsdecode(root) for root in self._roots]}

    def directories(self) -> Iterator[Directory]:
        leading = scan.leading(self._roots)
        pending = [b""]
        while pending:
            path = pending.pop()
            below: list[bytes] = []
            chosen = path in leading
            names = sorted(leading[path]) if chosen else self._names(path)
            for stretch in scan.stretches(names) if path or not self._cut else self._cut_in_two(names):
                directory = self._directory(path, stretch, chosen=chosen)
                if directory is None:
                    continue
                modes = zip(directory.attributes.names, directory.attributes.mode, strict=True)
                below.extend(name for name, mode in modes if mode & scan.KIND == stat.S_IFDIR)
                yield directory
            start = path + b"/" if path else b""
            pending.extend(start + name for name in reversed(below))

    def _cut_in_two(self, names: list[bytes]) -> Iterator[list[bytes]]:
        at = bisect_left(names, self._cut)
        yield from (names[:at], names[at:])

    def _opened(self, path: bytes) -> int | None:
        """A descriptor to find entries by. Of a directory that leads to roots we may have no right to read."""
        try:
            return os.open(b"/" + path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            self._listener(_finding("directory-unreadable", b"/" + path, error))
            return None

    def _names(self, path: bytes) -> list[bytes]:
        try:
            return sorted(os.listdir(b"/" + path))
        except OSError as error:
            self._listener(_finding("directory-unreadable", b"/" + path, error))
            return []

    def _directory(self, path: bytes, names: list[bytes], *, chosen: bool) -> _FilesDirectory | None:
        """The entries of those names that are there and not left out; None where nothing is left."""
        descriptor = self._opened(path) if names else None
        if descriptor is None:
            return None
        start = b"/" + path + b"/" if path else b"/"
        kept: list[bytes] = []
        stats: list[os.stat_result] = []
        picky = not chosen and (not self._patterns.empty or bool(self._never))
        linked: dict[int, tuple[int, int]] = {}
        for name in names:
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError as error:
                if not isinstance(error, FileNotFoundError) or chosen:
                    self._listener(_finding("entry-unreadable", start + name, error))
                continue
            kind = found.st_mode & scan.KIND
            if kind == stat.S_IFSOCK or (picky and self._left_out(start + name, found.st_mode)):
                continue
            if found.st_nlink > 1 and kind == stat.S_IFREG:
                linked[len(kept)] = (found.st_dev, found.st_ino)
            kept.append(name)
            stats.append(found)
        if not kept:
            os.close(descriptor)
            return None
        return _FilesDirectory(
            path, start, descriptor, scan.attributes(kept, stats), linked, self._ahead, leading=chosen
        )

    def _left_out(self, path: bytes, mode: int) -> bool:
        if stat.S_ISDIR(mode):
            if path in self._never:  # the walk's paths are real: roots are resolved, links not followed
                message = "is where backups are kept, and is left out"
                self._listener(Finding("own-storage", "info", _shown(path), message))
                return True
            return self._patterns.excludes_directory(path)
        return self._patterns.excludes(path)


class _FilesDirectory:
    __slots__ = ("_ahead", "_batch", "_descriptor", "_from_batch", "_start", "attributes", "leading", "linked", "path")

    def __init__(
        self,
        path: bytes,
        start: bytes,
        descriptor: int,
        attributes: Attributes,
        linked: Mapping[int, tuple[int, int]],
        ahead: ReadAhead,
        *,
        leading: bool,
    ) -> None:
        """``descriptor``: of the directory, for finding its entries."""
        self.path = path
        self._start = start
        self._descriptor = descriptor
        self.attributes = attributes
        self.leading = leading
        self.linked = linked
        self._ahead = ahead
        self._batch: Batch | None = None
        self._from_batch: frozenset[int] | set[int] = frozenset()

    def close(self) -> None:
        if self._batch is not None:
            self._ahead.release(self._batch)
            self._batch = None
        os.close(self._descriptor)

    def read_ahead(self, positions: Sequence[int]) -> None:
        self._batch = self._ahead.request(self._start, self.attributes, positions)
        if self._batch is not None:
            self._from_batch = set(positions)

    def where(self, position: int) -> bytes:
        """An entry's absolute path."""
        return self._start + self.attributes.names[position]

    def describe(self, position: int) -> Description:
        path = self.where(position)
        mode = self.attributes.mode[position]
        try:
            target = os.readlink(path) if stat.S_ISLNK(mode) else None
            device = os.lstat(path).st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None
            names = os.listxattr(path, follow_symlinks=False)
            if target is None and device is None and not names:
                return PLAIN
            return Description(target, device, _xattrs(path, names) if names else {})
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return Description(target, device) if target is not None or device is not None else PLAIN
            raise Unreadable(_finding("entry-unreadable", path, error)) from error

    def _open(self, position: int) -> int:
        try:
            return os.open(self.attributes.names[position], _OPEN, dir_fd=self._descriptor)
        except OSError as error:
            raise Unreadable(_finding("file-unreadable", self.where(position), error)) from error

    def read_small(self, position: int, view: memoryview) -> tuple[int, Description, Finding | None]:
        if self._batch is not None and position in self._from_batch:
            size = self._batch.take(view)
            if size >= 0:
                return size, PLAIN, None
        # Five system calls a file, and little else: this is what a tree of tiny files takes its time for.
        columns = self.attributes
        handle = self._open(position)
        done = -1
        finding = None
        try:
            done = os.readv(handle, (view,))
            found = os.fstat(handle)
            if (
                found.st_ctime_ns != columns.ctime[position]
                or done != columns.size[position]
                or done != found.st_size
                or found.st_ino != columns.inode[position]
            ):
                done, finding = self._read_changed(handle, position, view)
            names = os.listxattr(handle)
            return done, Description(None, None, _xattrs(handle, names)) if names else PLAIN, finding
        except OSError as error:
            if error.errno == errno.ENOTSUP and done >= 0:  # a file system without extended attributes
                return done, PLAIN, finding
            raise Unreadable(_finding("file-unreadable", self.where(position), error)) from error
        finally:
            os.close(handle)

    def _read_changed(self, handle: int, position: int, view: memoryview) -> tuple[int, Finding | None]:
        """Read a file that is not what the scan saw; its attributes are then those of what was opened."""
        self.refresh(handle, position)
        size = self.attributes.size[position]
        if size > len(view):
            return -1, None
        done = 0
        while done < size and (count := os.preadv(handle, [view[done:size]], done)):
            done += count
        return done, self.changed(handle, position, done)

    def refresh(self, handle: int, position: int) -> None:
        """Bring the attributes up to what was opened. Raises ``Unreadable`` where that is no file."""
        columns = self.attributes
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            message = "is no longer a file, and was left out"
            raise Unreadable(Finding("file-vanished", "warning", _shown(self.where(position)), message))
        if found.st_ino != columns.inode[position] or scan.representable(found.st_ctime_ns) != columns.ctime[position]:
            scan.update(columns, position, found)

    def open(self, position: int) -> Content:
        handle = self._open(position)
        try:
            self.refresh(handle, position)
        except BaseException:
            os.close(handle)
            raise
        return _FileContent(self, position, handle)

    def changed(self, handle: int, position: int, done: int) -> Finding | None:
        """Whether the file changed while it was read; its size is then what was read of it."""
        found = os.fstat(handle)
        columns = self.attributes
        if scan.representable(found.st_ctime_ns) == columns.ctime[position] and done == columns.size[position]:
            return None
        columns.size[position] = done
        message = f"changed while it was read; {done} bytes of it were captured"
        hint = "Capture it while nothing writes to it."
        return Finding("file-changed", "warning", _shown(self.where(position)), message, hint)


class _FileContent:
    """A file open for reading."""

    block_size: int | None = None

    def __init__(self, directory: _FilesDirectory, position: int, descriptor: int) -> None:
        self._directory = directory
        self._position = position
        self._descriptor = descriptor
        self._end = directory.attributes.size[position]

    def size(self) -> int:
        return self._end

    def parts(self) -> Sequence[tuple[int, int]]:
        found = os.fstat(self._descriptor)
        if found.st_blocks * 512 >= self._end:
            return [(0, self._end)] if self._end else []
        parts: list[tuple[int, int]] = []
        at = 0
        while at < self._end:
            try:
                start = os.lseek(self._descriptor, at, os.SEEK_DATA)
                at = min(os.lseek(self._descriptor, start, os.SEEK_HOLE), self._end)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    break
                return [(0, self._end)]  # the file system knows nothing of holes
            if start >= self._end:
                break
            if parts and start - sum(parts[-1]) < _HOLE_LEAST:
                start = parts.pop()[0]
            parts.append((start, at - start))
        return parts

    def read_into(self, offset: int, view: memoryview) -> int:
        room = self._end - offset
        if room <= 0:
            return 0
        try:
            count = os.preadv(self._descriptor, [view[:room]], offset)
        except OSError as error:
            raise Unreadable(_finding("file-unreadable", self._directory.where(self._position), error)) from error
        if not count:  # it was cut short meanwhile
            self._end = offset
        return count

    def close(self) -> Finding | None:
        try:
            return self._directory.changed(self._descriptor, self._position, self._end)
        finally:
            os.close(self._descriptor)


def _xattrs(place: bytes | int, names: Sequence[str]) -> Mapping[bytes, bytes]:
    """The values of those extended attributes; one that went meanwhile, or may not be read, is left out."""
    found: dict[bytes, bytes] = {}
    for name in names:
        try:
            if isinstance(place, int):
                found[os.fsencode(name)] = os.getxattr(place, name)
            else:
                found[os.fsencode(name)] = os.getxattr(place, name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.EPERM, errno.EACCES, errno.ENOTSUP}:
                raise
    if sum(map(len, found.values())) > _XATTRS_MOST:
        raise OSError(errno.E2BIG, f"more than {_XATTRS_MOST} bytes of extended attributes")
    return found


def _shown(path: bytes) -> str:
    """A path for people: bytes that are no UTF-8, and control characters, escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _finding(code: str, path: bytes, error: OSError) -> Finding:
    if isinstance(error, FileNotFoundError):
        return Finding("file-vanished", "warning", _shown(path), "vanished while the tree was read")
    hint = "Give the backup's user the right to read it, or exclude it." if error.errno in {1, 13} else ""
    return Finding(code, "error", _shown(path), error.strerror or str(error), hint)
