"""The audit log's files: appending, by any number of processes at once, and rotation.

A line is in the file, and the file on the disk, when ``append`` returns. Processes take turns by ``flock``. A crash can
leave a torn line at the end, of an act that was never reported: the next line but says how many bytes it has and their
hash, so that nobody can pass off a deletion as a crash.

Rotated files have the number of their last line in their name, so that they sort. The first line of a new file says
which file and line it goes on after; a file whose lines have all passed their time is deleted after a line that tells
its last number and hash, with which the chain of what is left begins.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import AuditUnwritable
from chrono_backups.monitoring.audit.line import FIRST, LONGEST, Line, digest, make, parse
from chrono_backups.monitoring.settings import AuditSettings
from chrono_backups.repository.records import AuditHead

_FILES = 12
"""The retention time is spread over about so many files, and each holds a day at least."""
_LARGEST = 64 * 1024 * 1024
_NUMBERED = re.compile(r"\.([0-9]{12,18})$")


@dataclass
class _End:
    """Where the next line goes on."""

    number: int = 0
    log: str = ""
    hash: str = FIRST


@dataclass
class _Open:
    file: int
    """Its handle, which a rotation replaces."""


class AuditLog:
    """One log. May be used by several threads and processes at once."""

    def __init__(self, path: Path, *, retention_days: int, clock: Clock) -> None:
        self.path = path
        self._keep = timedelta(days=retention_days)
        self._per_file = max(timedelta(days=1), self._keep / _FILES)
        self._clock = clock

    @classmethod
    def of(cls, settings: AuditSettings, clock: Clock) -> AuditLog | None:
        """The log that the settings ask for; None where they ask for none."""
        return cls(settings.log_file, retention_days=settings.retention_days, clock=clock) if settings.enabled else None

    def append(self, content: Mapping[str, Any]) -> AuditHead:
        """Write a line for good. Raises ``AuditUnwritable``."""
        try:
            with self._locked() as opened:
                end = self._end(opened.file)
                if self._is_over(opened.file):
                    self._rotate(opened, end)
                return _head(self._write(opened.file, end, content))
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise AuditUnwritable(
                f"the audit log {self.path} can't be written: {reason}",
                hint="Make it writable for this user, or make room; BACKUP_AUDIT_ENABLED=false does without one.",
            ) from error

    def head(self) -> AuditHead | None:
        """The end of the chain; None where nothing was written yet. Raises ``AuditUnwritable``, as ``append``."""
        try:
            with self.path.open("rb") as file:
                last = _last_line(file.fileno())[0]
        except FileNotFoundError:
            last = None
        except OSError as error:
            raise AuditUnwritable(f"the audit log {self.path} can't be read: {error.strerror}") from error
        return _head(last) if last is not None else None

    def files(self) -> list[Path]:
        """All files of the log, the oldest first. ``OSError`` where its folder can't be read."""
        rotated = sorted(one for one in self.path.parent.glob(f"{self.path.name}.*") if _NUMBERED.search(one.name))
        return [*rotated, *([self.path] if self.path.exists() else [])]

    @contextmanager
    def _locked(self) -> Iterator[_Open]:
        """The open file, ours alone; made where there is none."""
        while True:
            new = not self.path.exists()
            if new:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, self.path):  # else it was rotated while we waited
                break
            os.close(file)
        if new:
            _sync_folder(self.path.parent)
        opened = _Open(file)
        try:
            yield opened
        finally:
            os.close(opened.file)

    def _end(self, file: int) -> _End:
        """Where the chain ends; a torn line is ended and accounted for."""
        last, torn = _last_line(file)
        if last is None:
            last = self._last_rotated()
        end = _End() if last is None else _End(last.number, last.log, last.hash)
        if torn:
            _write_all(file, b"\n")
            self._write(file, end, {"act": "torn-line", "on": {"bytes": len(torn), "hash": digest(torn)}})
        elif last is None:
            end.log = self._clock.random_bytes(8).hex()
            self._write(file, end, {"act": "log-begun"})
        elif os.fstat(file).st_size == 0:
            self._write(file, end, {"act": "log-continued", "on": {"after": end.number, "head": end.hash}})
        return end

    def _last_rotated(self) -> Line | None:
        for path in reversed(self.files()):
            if path != self.path:
                with path.open("rb") as file:
                    return _last_line(file.fileno())[0]
        return None

    def _write(self, file: int, end: _End, content: Mapping[str, Any]) -> Line:
        end.log = end.log or self._clock.random_bytes(8).hex()
        line = make(end.number + 1, end.log, end.hash, self._clock.now(), content)
        _write_all(file, line.body + b"\n")
        os.fsync(file)
        end.number, end.hash = line.number, line.hash
        return line

    # Rotation.

    def _is_over(self, file: int) -> bool:
        """Whether a file has become too large, or its first line too old."""
        if os.fstat(file).st_size > _LARGEST:
            return True
        first = parse(os.pread(file, LONGEST, 0).partition(b"\n")[0])
        return first is not None and self._clock.now() - first.moment > self._per_file

    def _rotate(self, opened: _Open, end: _End) -> None:
        """Put the file aside, begin another one, locked as it was, and remove what is past its time."""
        name = f"{self.path.name}.{end.number:012}"
        self.path.rename(self.path.with_name(name))
        following = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(following, fcntl.LOCK_EX)
        os.close(opened.file)
        opened.file = following
        _sync_folder(self.path.parent)
        self._write(
            following, end, {"act": "log-continued", "on": {"file": name, "after": end.number, "head": end.hash}}
        )
        self._remove_old(following, end)

    def _remove_old(self, file: int, end: _End) -> None:
        for path in self.files():
            if path == self.path:
                return
            with path.open("rb") as old:
                last = _last_line(old.fileno())[0]
            if last is None or self._clock.now() - last.moment <= self._keep:
                return
            on = {"file": path.name, "through": last.number, "head": last.hash}
            self._write(file, end, {"act": "lines-removed", "on": on, "result": "older than is kept"})
            path.unlink()
            _sync_folder(self.path.parent)


def head_of(settings: AuditSettings, clock: Clock) -> AuditHead | None:
    """The end of the configured log's chain, for a manifest; None where there is none, or it can't be read."""
    log = AuditLog.of(settings, clock)
    with suppress(AuditUnwritable):
        return log.head() if log is not None else None
    return None


def _head(line: Line) -> AuditHead:
    return AuditHead(line.log, line.number, line.hash)


def _last_line(file: int) -> tuple[Line | None, bytes]:
    """The last whole line of a file that is one, and what stands behind the last newline."""
    size = os.fstat(file).st_size
    start = max(0, size - 4 * LONGEST)
    data = os.pread(file, size - start, start)
    whole, _, torn = data.rpartition(b"\n")
    for body in reversed(whole.split(b"\n")):
        if body and (line := parse(body)) is not None:
            return line, torn
    return None, torn


def _is_at(file: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        here, there = os.fstat(file), path.stat()
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    return False


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
