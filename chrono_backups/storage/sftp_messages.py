"""What SFTP's messages are made of: numbers, strings, attributes (draft-ietf-secsh-filexfer-02, section 5)."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

NO_SUCH_FILE, PERMISSION_DENIED, UNSUPPORTED = 2, 3, 8
"""Codes of a status. What else goes wrong is 4, a bare "Failure"."""


class SftpStatus(Exception):
    """The server said no. Never leaves the storage."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Attributes:
    """``mode`` is None where the server tells none; ``modified`` is in seconds since 1970, by the server's clock."""

    size: int
    mode: int | None
    modified: int

    @property
    def is_file(self) -> bool:
        return self.mode is None or stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return self.mode is not None and stat.S_ISLNK(self.mode)


@dataclass(frozen=True)
class FileSystem:
    """What ``statvfs`` tells: bytes and files that an ordinary user has room for."""

    free: int
    free_files: int
    read_only: bool


def text(value: str | bytes) -> bytes:
    """A string as it is sent."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(data)) + data


class Fields:
    """The fields of an answer, taken one after the other."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._place = 0

    @property
    def left(self) -> bool:
        return self._place < len(self._body)

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def number64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def attributes(self) -> Attributes:
        flags = self.number()
        size = self.number64() if flags & 0x01 else 0
        if flags & 0x02:
            self._take(8)  # uid and gid
        mode = self.number() if flags & 0x04 else None
        modified = 0
        if flags & 0x08:
            self._take(4)  # when it was read
            modified = self.number()
        if flags & 0x80000000:
            for _ in range(self.number()):
                self.string(), self.string()
        return Attributes(size, mode, modified)

    def _take(self, count: int) -> bytes:
        self._place += count
        return self._body[self._place - count : self._place]
