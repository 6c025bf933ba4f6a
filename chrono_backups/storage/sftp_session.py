"""SFTP, version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions, as far as a storage needs it.

A session asks without waiting: each ``ask_…`` gives a ticket, and the call that takes it waits for the answer.
So whatever does not depend on an answer shares one round trip, and data flows without any.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from chrono_backups.storage.pacing import leave
from chrono_backups.storage.sftp_messages import NO_SUCH_FILE, Attributes, Fields, FileSystem, SftpStatus, text

_OK, _EOF = 0, 1

READ, WRITE, CREATE, TRUNCATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x10, 0x20

_INIT, _VERSION = 1, 2
_OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _OPENDIR, _READDIR = 3, 4, 5, 6, 7, 11, 12
_REMOVE, _MKDIR, _RMDIR, _STAT, _RENAME = 13, 14, 15, 17, 18
_STATUS, _HANDLE, _DATA, _NAME, _ATTRIBUTES = 101, 102, 103, 104, 105
_EXTENDED, _EXTENDED_REPLY = 200, 201

FSYNC, HARD_LINK = "fsync@openssh.com", "hardlink@openssh.com"
_STATVFS, _LIMITS = "statvfs@openssh.com", "limits@openssh.com"

_SAFE_DATA = 32 * 1024
"""What every server takes at a time (the draft, section 3)."""
_MOST_DATA = 255 * 1024
_LONGEST_PACKET = 2**20
_READ_AHEAD = 16 * 2**20
"""Bytes asked for before the first of them came: 50 ms at 320 MB/s."""
_LISTINGS_AT_ONCE = 32


class Wire(Protocol):
    """A stream of bytes to an SFTP server. What goes wrong is a ``StorageError``."""

    def send(self, data: bytes | bytearray) -> None:
        """All of ``data``."""

    def receive(self) -> bytes:
        """What has come, at least one byte."""

    def has_come(self) -> bool:
        """Whether ``receive`` would not wait."""

    def broken(self, reason: str) -> Exception:
        """The error to raise where what came is not SFTP."""

    @property
    def open(self) -> bool: ...

    def close(self) -> None: ...


class SftpSession:
    """One session over one wire, for one thread at a time. Tickets are for this session only."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._moving = False
        self._refusals = 0
        self._out = bytearray()
        self._in = bytearray()
        self._last = 0
        self._pending: set[int] = set()
        self._unwanted: set[int] = set()
        self._answers: dict[int, tuple[int, bytes]] = {}
        self._sinks: dict[int, memoryview] = {}
        self._wire.send(struct.pack(">IBI", 5, _INIT, 3))
        self.extensions = self._greeting()
        self._most_read = self._most_written = _SAFE_DATA
        if _LIMITS in self.extensions:
            self._learn_limits()

    def _greeting(self) -> dict[str, str]:
        while (body := self._next_packet()) is None:
            self._in += self._wire.receive()
        if body[0] != _VERSION:
            raise self._wire.broken("no SFTP version came first")
        fields = Fields(body[5:])
        extensions = {}
        while fields.left:
            name, value = fields.string(), fields.string()
            extensions[name.decode("ascii", "replace")] = value.decode("ascii", "replace")
        return extensions

    def _learn_limits(self) -> None:
        fields = Fields(self._extended(self._ask(_EXTENDED, text(_LIMITS))))
        fields.number64()  # of a packet
        self._most_read = min(fields.number64() or _SAFE_DATA, _MOST_DATA)
        self._most_written = min(fields.number64() or _SAFE_DATA, _MOST_DATA)

    # Asking. Nothing is sent before an answer is waited for, ``flush`` is called, or much has gathered.

    def ask_open(self, path: str, flags: int, mode: int | None = None) -> int:
        attributes = struct.pack(">I", 0) if mode is None else struct.pack(">II", 0x04, mode)
        return self._ask(_OPEN, text(path), struct.pack(">I", flags), attributes)

    def ask_close(self, handle: bytes) -> int:
        return self._ask(_CLOSE, text(handle))

    def ask_fsync(self, handle: bytes) -> int:
        return self._ask(_EXTENDED, text(FSYNC), text(handle))

    def ask_stat(self, path: str) -> int:
        return self._ask(_STAT, text(path))

    def ask_lstat(self, path: str) -> int:
        return self._ask(_LSTAT, text(path))

    def ask_remove(self, path: str) -> int:
        return self._ask(_REMOVE, text(path))

    def ask_mkdir(self, path: str, mode: int) -> int:
        return self._ask(_MKDIR, text(path), struct.pack(">II", 0x04, mode))

    def ask_rmdir(self, path: str) -> int:
        return self._ask(_RMDIR, text(path))

    def ask_rename(self, path: str, target: str) -> int:
        return self._ask(_RENAME, text(path), text(target))

    def ask_hard_link(self, path: str, target: str) -> int:
        return self._ask(_EXTENDED, text(HARD_LINK), text(path), text(target))

    def ask_open_folder(self, path: str) -> int:
        return self._ask(_OPENDIR, text(path))

    def _ask(self, kind: int, *fields: bytes | memoryview) -> int:
        self._last = ticket = (self._last + 1) & 0xFFFFFFFF
        self._out += struct.pack(">IBI", 5 + sum(map(len, fields)), kind, ticket)
        for field in fields:
            self._out += field
        self._pending.add(ticket)
        return ticket

    def flush(self) -> None:
        """Send what was asked."""
        if self._out:
            out, self._out = self._out, bytearray()
            self._moving = True
            self._wire.send(out)
            self._moving = False

    # Answers

    def done(self, ticket: int) -> None:
        """Wait until it is done. Raises ``SftpStatus``, as all of these do."""
        kind, body = self._answer(ticket)
        _refuse(kind, body)

    def is_done(self, ticket: int) -> bool:
        """As ``done``, where a refusal is no news."""
        try:
            self.done(ticket)
        except SftpStatus:
            return False
        return True

    def handle(self, ticket: int) -> bytes:
        return Fields(self._expect(ticket, _HANDLE)).string()

    def attributes(self, ticket: int) -> Attributes:
        return Fields(self._expect(ticket, _ATTRIBUTES)).attributes()

    def found(self, ticket: int) -> Attributes | None:
        """What ``ask_stat`` and ``ask_lstat`` found; None where nothing is there."""
        try:
            return self.attributes(ticket)
        except SftpStatus as status:
            if status.code != NO_SUCH_FILE:
                raise
            return None

    def _extended(self, ticket: int) -> bytes:
        return self._expect(ticket, _EXTENDED_REPLY)

    def file_system(self, path: str) -> FileSystem | None:
        """Of the one that ``path`` lies on; None where the server does not tell."""
        if _STATVFS not in self.extensions:
            return None
        try:
            fields = Fields(self._extended(self._ask(_EXTENDED, text(_STATVFS), text(path))))
        except SftpStatus:
            return None
        numbers = [fields.number64() for _ in range(11)]
        _, fragment, _, _, available, _, _, files_available, _, flags, _ = numbers
        return FileSystem(available * fragment, files_available, bool(flags & 1))

    # Files

    def write(self, handle: bytes, data: memoryview) -> list[int]:
        """Ask for all of ``data`` to be written; the tickets are ``done`` when it is.

        Ends early where the server has refused a part by then.
        """
        tickets = []
        refusals = self._refusals
        for offset in range(0, len(data), self._most_written):
            with data[offset : offset + self._most_written] as part:
                leave(len(part))
                place = struct.pack(">QI", offset, len(part))
                tickets.append(self._ask(_WRITE, text(handle), place, part))
            self.flush()
            while self._wire.has_come():
                self._take()
            if self._refusals > refusals:
                break
        return tickets

    def read(self, handle: bytes, offset: int, length: int) -> bytearray:
        """``length`` bytes, or fewer where the file ends."""
        content = bytearray(length)
        with memoryview(content) as whole:
            end = self._read_into(handle, offset, whole)
        if end < length:
            del content[end:]
        return content

    def _read_into(self, handle: bytes, offset: int, whole: memoryview) -> int:
        waiting: list[tuple[int, int, int]] = []
        asked = 0
        end = len(whole)
        try:
            while asked < end or waiting:
                while asked < end and asked - (waiting[0][1] if waiting else asked) < _READ_AHEAD:
                    count = min(self._most_read, end - asked)
                    leave(count)
                    waiting.append((self._ask_read(handle, offset + asked, whole[asked : asked + count]), asked, count))
                    asked += count
                ticket, place, count = waiting.pop(0)
                got = self._data(ticket)
                if got == 0:
                    end = min(end, place)
                elif got < count and place + got < end:
                    rest = whole[place + got : place + count]
                    again = self._ask_read(handle, offset + place + got, rest)
                    waiting.insert(0, (again, place + got, count - got))
        finally:
            for ticket, _, _ in waiting:
                self.forget(ticket)
        return end

    def _ask_read(self, handle: bytes, offset: int, sink: memoryview) -> int:
        ticket = self._ask(_READ, text(handle), struct.pack(">QI", offset, len(sink)))
        self._sinks[ticket] = sink
        return ticket

    def _data(self, ticket: int) -> int:
        kind, body = self._answer(ticket)
        if kind == _DATA:
            return int.from_bytes(body, "big")
        if kind == _STATUS and _code(body) == _EOF:
            return 0
        _refuse(kind, body)
        raise self._wire.broken("no data came where data was asked for")

    # Folders

    def read_folders(self, paths: list[str]) -> Iterator[list[tuple[str, Attributes]] | None]:
        """Names and attributes of each folder, unordered; None for one that is not there."""
        opening = [self.ask_open_folder(path) for path in paths]
        handles: list[bytes | None] = []
        for ticket in opening:
            try:
                handles.append(self.handle(ticket))
            except SftpStatus as status:
                if status.code != NO_SUCH_FILE:
                    raise
                handles.append(None)
        first = [None if handle is None else [self._ask_listing(handle) for _ in range(2)] for handle in handles]
        for handle, tickets in zip(handles, first, strict=True):
            yield None if handle is None or tickets is None else self._read_folder(handle, tickets)

    def _ask_listing(self, handle: bytes) -> int:
        return self._ask(_READDIR, text(handle))

    def _read_folder(self, handle: bytes, tickets: list[int]) -> list[tuple[str, Attributes]]:
        """Answers come by the hundred names, so more and more are asked for ahead."""
        names: list[tuple[str, Attributes]] = []
        ahead = len(tickets)
        try:
            while tickets:
                kind, body = self._answer(tickets.pop(0))
                if kind == _STATUS and _code(body) == _EOF:
                    break
                if kind != _NAME:
                    _refuse(kind, body)
                fields = Fields(body)
                for _ in range(fields.number()):
                    name = fields.string().decode("utf-8", "surrogateescape")
                    fields.string()  # for people
                    names.append((name, fields.attributes()))
                ahead = min(2 * ahead, _LISTINGS_AT_ONCE)
                tickets += [self._ask_listing(handle) for _ in range(ahead - len(tickets))]
        finally:
            for ticket in (*tickets, self.ask_close(handle)):
                self.forget(ticket)
        return names

    # The stream

    def _answer(self, ticket: int) -> tuple[int, bytes]:
        while (answer := self._answers.pop(ticket, None)) is None:
            self.flush()
            self._take()
        return answer

    def _expect(self, ticket: int, wanted: int) -> bytes:
        kind, body = self._answer(ticket)
        if kind != wanted:
            _refuse(kind, body)
            raise self._wire.broken(f"an answer of type {kind} came, and {wanted} was due")
        return body

    def forget(self, *tickets: int) -> None:
        """Drop answers unseen, those to come too. What was asked is asked nevertheless."""
        for ticket in tickets:
            self._sinks.pop(ticket, None)
            if self._answers.pop(ticket, None) is None and ticket in self._pending:
                self._unwanted.add(ticket)

    def settle(self) -> None:
        """Wait until the server has come to all that it was asked."""
        self.flush()
        while self._pending:
            self._take()

    def _take(self) -> None:
        self._moving = True
        data = self._wire.receive()
        if self._in:
            self._in += data
            self._in = self._in[self._parse(self._in) :]
        else:
            used = self._parse(data)
            self._in += memoryview(data)[used:]
        self._moving = False

    def _parse(self, data: bytes | bytearray) -> int:
        """Take the whole packets at the beginning of ``data``; how many bytes they were."""
        place, end = 0, len(data)
        with memoryview(data) as view:
            while end - place >= 9:
                length, kind, ticket = struct.unpack_from(">IBI", view, place)
                if not 5 <= length <= _LONGEST_PACKET:
                    raise self._wire.broken(f"a packet of {length} bytes")
                if end - place < 4 + length:
                    break
                self._got(kind, ticket, view[place + 9 : place + 4 + length])
                place += 4 + length
        return place

    def _got(self, kind: int, ticket: int, body: memoryview) -> None:
        sink = self._sinks.pop(ticket, None)
        if ticket not in self._pending:
            raise self._wire.broken("an answer came that nothing was asked for")
        self._pending.discard(ticket)
        if ticket in self._unwanted:
            self._unwanted.discard(ticket)
            return
        if kind == _DATA and sink is not None:
            count = int.from_bytes(body[:4], "big")
            if count > len(sink) or count != len(body) - 4:
                raise self._wire.broken("more data came than was asked for")
            sink[:count] = body[4:]
            self._answers[ticket] = (_DATA, bytes(body[:4]))
        else:
            self._answers[ticket] = (kind, answer := bytes(body))
            self._refusals += _is_refusal(kind, answer)

    def _next_packet(self) -> bytes | None:
        if len(self._in) < 4:
            return None
        length = int.from_bytes(self._in[:4], "big")
        if not 5 <= length <= _LONGEST_PACKET:
            raise self._wire.broken("text, where SFTP was due")
        if len(self._in) < 4 + length:
            return None
        body = bytes(self._in[4 : 4 + length])
        del self._in[: 4 + length]
        return body

    @property
    def sound(self) -> bool:
        """Whether it can be used on: open, and nothing broke off in the middle of a message."""
        return self._wire.open and not self._moving

    def close(self) -> None:
        self._wire.close()


def _code(body: bytes) -> int:
    return int.from_bytes(body[:4], "big")


def _is_refusal(kind: int, body: bytes) -> bool:
    return kind == _STATUS and _code(body) != _OK


def _refuse(kind: int, body: bytes) -> None:
    """Raise what a status says, unless it says OK."""
    if _is_refusal(kind, body):
        raise SftpStatus(_code(body), Fields(body[4:]).string().decode("utf-8", "replace"))
