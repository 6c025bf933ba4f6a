"""The keys of an RDB file, one after another, each with its whole value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chrono_backups.sources.redis import rdb_format as rdb
from chrono_backups.sources.redis.crc64 import crc64
from chrono_backups.sources.redis.rdb import BEFORE_A_KEY, FIRST_OPCODE, before_key
from chrono_backups.sources.redis.rdb_format import NoRdb, Skipper, UnknownPart, read_length, skip_fast
from chrono_backups.sources.redis.rdb_strings import read_string

_HEADER_SIZE = 9


class Record(NamedTuple):
    """A key. ``value`` is encoded still."""

    database: int
    kind: int
    key: bytes
    value: bytes
    expires_ms: int | None


class Library(NamedTuple):
    """A library of functions."""

    code: bytes


def payload(record: Record, rdb_version: int) -> bytes:
    """The value as ``DUMP`` would give it, for ``RESTORE``."""
    content = bytes((record.kind,)) + record.value + rdb_version.to_bytes(2, "little")
    return content + crc64(content).to_bytes(8, "little")


def records(pieces: Iterable[bytes]) -> Iterator[Record | Library]:
    """All keys and libraries of the file that comes in ``pieces``. Raises ``NoRdb``, ``UnknownPart``.

    Holds a piece and the largest value in memory.
    """
    waiting = iter(pieces)
    buffer, start, database, wanted = b"", 0, -1, _HEADER_SIZE
    while True:
        buffer, start = _longer(buffer[start:], waiting, wanted), 0
        position = 0 if database >= 0 else _HEADER_SIZE
        database = max(database, 0)
        try:
            while True:
                start = position
                kind = buffer[position]
                if kind == rdb.EOF:
                    return
                if kind < FIRST_OPCODE or kind in BEFORE_A_KEY:
                    record, position = _record(buffer, position, database)
                    yield record
                elif kind == rdb.SELECT_DB:
                    database, position = read_length(buffer, position + 1)
                elif kind == rdb.FUNCTION:
                    code, position = read_string(buffer, position + 1)
                    yield Library(code)
                else:
                    position = _skip_part(buffer, position + 1, kind)
        except IndexError:
            # A large value is asked for in steps that double, so that it is not looked through again and again.
            wanted = max(1, 2 * (len(buffer) - start))


def _longer(buffer: bytes, waiting: Iterator[bytes], wanted: int) -> bytes:
    """The buffer with what follows it, so many bytes if there are as many."""
    pieces, have = [buffer], len(buffer)
    while have < wanted:
        piece = next(waiting, None)
        if piece is None:
            break
        pieces.append(piece)
        have += len(piece)
    if len(pieces) == 1:
        raise NoRdb("it is cut off")
    return b"".join(pieces)


def _record(buffer: bytes, position: int, database: int) -> tuple[Record, int]:
    expires = None
    if buffer[position] == rdb.EXPIRE_MS:
        expires = int.from_bytes(buffer[position + 1 : position + 9], "little")
    elif buffer[position] == rdb.EXPIRE_S:
        expires = int.from_bytes(buffer[position + 1 : position + 5], "little") * 1000
    kind, _, position = before_key(buffer, position)
    key, position = read_string(buffer, position + 1)
    end = skip_fast(buffer, position, kind)
    if end is None:
        skipper = Skipper(buffer, position)
        _run(skipper, kind)
        end = skipper.position
    return Record(database, kind, key, buffer[position:end], expires), end


def _run(skipper: Skipper, kind: int) -> None:
    for _ in skipper.value(kind):
        raise IndexError


def _skip_part(buffer: bytes, position: int, opcode: int) -> int:
    if opcode in {rdb.RESIZE_DB, rdb.SLOT_INFO}:
        for _ in range(2 if opcode == rdb.RESIZE_DB else 3):
            _, position = read_length(buffer, position)
    elif opcode == rdb.AUX:
        for _ in range(2):
            _, position = read_string(buffer, position)
    elif opcode == rdb.MODULE_AUX:
        skipper = Skipper(buffer, position)
        for _ in skipper.module():
            raise IndexError
        position = skipper.position
    else:
        raise UnknownPart(f"opcode {opcode}")
    return position
