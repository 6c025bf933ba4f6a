"""How RDB files are laid out: lengths, strings, and where each type of value ends.

Source: redis/redis, `src/rdb.h` and `src/rdb.c`. Two ways of skipping a value: ``skip_fast`` within a buffer that holds
all of it, and ``Skipper``, which goes on with the next piece where one ends.

============ =====================================================================================
length       ``00llllll``; ``01llllll`` and a byte; 0x80 and 4 bytes; 0x81 and 8 bytes, big-endian
string       a length and so many bytes; 0xC0, 0xC1, 0xC2: an integer of 1, 2, 4 bytes, little-endian;
             0xC3: LZF, as two lengths (compressed, plain) and the compressed bytes
============ =====================================================================================
"""

from __future__ import annotations

from collections.abc import Generator

STRING, LIST, SET, ZSET, HASH, ZSET_2, MODULE_2 = 0, 1, 2, 3, 4, 5, 7
ZIPMAP, LIST_ZIPLIST, INTSET, ZSET_ZIPLIST, HASH_ZIPLIST, QUICKLIST = 9, 10, 11, 12, 13, 14
STREAM, HASH_LISTPACK, ZSET_LISTPACK, QUICKLIST_2, STREAM_2, SET_LISTPACK, STREAM_3 = 15, 16, 17, 18, 19, 20, 21
HASH_METADATA, HASH_LISTPACK_EX = 24, 25

TYPES = {
    STRING: "string", LIST: "list", SET: "set", ZSET: "zset", HASH: "hash", ZSET_2: "zset", MODULE_2: "module",
    ZIPMAP: "hash", LIST_ZIPLIST: "list", INTSET: "set", ZSET_ZIPLIST: "zset", HASH_ZIPLIST: "hash", QUICKLIST: "list",
    STREAM: "stream", HASH_LISTPACK: "hash", ZSET_LISTPACK: "zset", QUICKLIST_2: "list", STREAM_2: "stream",
    SET_LISTPACK: "set", STREAM_3: "stream", HASH_METADATA: "hash", HASH_LISTPACK_EX: "hash",
}  # fmt: skip
"""Type byte → what ``TYPE`` says of such a key. Others are not known here."""

ONE_STRING = frozenset({STRING, ZIPMAP, LIST_ZIPLIST, INTSET, ZSET_ZIPLIST, HASH_ZIPLIST, HASH_LISTPACK,
                        ZSET_LISTPACK, SET_LISTPACK})  # fmt: skip
_STRINGS_A_LENGTH = {LIST: 1, SET: 1, QUICKLIST: 1, HASH: 2}

EOF, SELECT_DB, EXPIRE_S, EXPIRE_MS, RESIZE_DB, AUX, FREQ, IDLE, MODULE_AUX, FUNCTION_OLD, FUNCTION, SLOT_INFO = (
    0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0xFA, 0xF9, 0xF8, 0xF7, 0xF6, 0xF5, 0xF4,
)  # fmt: skip


class NoRdb(Exception):
    """What was read is not laid out as an RDB file is."""


class UnknownPart(Exception):
    """A type or opcode that a newer server wrote."""


def read_length(buffer: bytes, position: int) -> tuple[int, int]:
    """A length and where it ends. Raises ``IndexError`` where the buffer ends before it, ``NoRdb``."""
    first = buffer[position]
    if first < 0x40:
        return first, position + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | buffer[position + 1], position + 2
    if first > 0x81:
        raise NoRdb(f"no length begins with {first:#04x}")
    end = position + (5 if first == 0x80 else 9)
    if end > len(buffer):
        raise IndexError
    return int.from_bytes(buffer[position + 1 : end], "big"), end


def skip_strings(buffer: bytes, position: int, count: int) -> tuple[int, int]:
    """Skip strings; where they end, and how many are left because the buffer ended before their lengths.

    The position is past the buffer's end where the last string's bytes are not all there.
    """
    size, start = len(buffer), position
    try:
        while count:
            start = position
            first = buffer[position]
            if first < 0x40:
                position += 1 + first
            elif first < 0x80:
                position += 2 + ((first & 0x3F) << 8 | buffer[position + 1])
            elif first < 0xC0:
                length, position = read_length(buffer, position)
                position += length
            elif first == 0xC0:
                position += 2
            elif first == 0xC1:
                position += 3
            elif first == 0xC2:
                position += 5
            elif first == 0xC3:
                compressed, position = read_length(buffer, position + 1)
                _, position = read_length(buffer, position)
                position += compressed
            else:
                raise NoRdb(f"no string begins with {first:#04x}")
            count -= 1
            if position > size:
                break
    except IndexError:
        position = start
    return position, count


def skip_fast(buffer: bytes, position: int, kind: int) -> int | None:
    """Where a value of that type ends; None for types that are skipped by ``Skipper`` alone.

    Raises ``IndexError`` where the buffer ends before the value does.
    """
    if kind in ONE_STRING:
        count = 1
    elif kind in _STRINGS_A_LENGTH:
        count, position = read_length(buffer, position)
        count *= _STRINGS_A_LENGTH[kind]
    elif kind in {ZSET_2, QUICKLIST_2}:
        count, position = read_length(buffer, position)
        for _ in range(count):
            if kind == QUICKLIST_2:
                _, position = read_length(buffer, position)
            position, left = skip_strings(buffer, position, 1)
            if left:
                raise IndexError
            if kind == ZSET_2:
                position += 8
        count = 0
    else:
        return None
    position, left = skip_strings(buffer, position, count)
    if left or position > len(buffer):
        raise IndexError
    return position


Steps = Generator[None, None, None]
"""Comes back whenever the buffer is used up, and goes on once ``Skipper.feed`` has been given more."""


class Skipper:
    """Skips piece by piece what may be of any size. What it gives is to be run until it ends."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self.buffer = buffer
        self.position = position
        self._number = 0

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        self.buffer = self.buffer[self.position :] + data
        self.position = 0

    def value(self, kind: int) -> Steps:
        """A value of that type. Raises ``UnknownPart``, ``NoRdb``."""
        if kind in ONE_STRING:
            yield from self.strings(1)
        elif kind in _STRINGS_A_LENGTH:
            yield from self._length()
            yield from self.strings(self._number * _STRINGS_A_LENGTH[kind])
        elif kind in {ZSET_2, QUICKLIST_2, HASH_METADATA, ZSET}:
            yield from self._items(kind)
        elif kind == HASH_LISTPACK_EX:
            yield from self._skip(8)
            yield from self.strings(1)
        elif kind in {STREAM, STREAM_2, STREAM_3}:
            yield from self._stream(kind)
        elif kind == MODULE_2:
            yield from self.module()
        else:
            raise UnknownPart(f"type {kind}")

    def record(self, kind: int) -> Steps:
        """A key and its value."""
        yield from self.strings(1)
        yield from self.value(kind)

    def strings(self, count: int) -> Steps:
        """So many strings."""
        while True:
            self.position, left = skip_strings(self.buffer, self.position, count)
            beyond = self.position - len(self.buffer)
            if beyond > 0:
                self.position = len(self.buffer)
                yield from self._skip(beyond)
            count = left
            if not count:
                return
            if beyond <= 0:
                yield

    def module(self) -> Steps:
        """A module's value or auxiliary data, as marked parts up to their end."""
        yield from self._length()
        while True:
            yield from self._length()
            part = self._number
            if part == 0:
                return
            if part in {1, 2}:
                yield from self._length()
            elif part in {3, 4}:
                yield from self._skip(4 if part == 3 else 8)
            elif part == 5:
                yield from self.strings(1)
            else:
                raise NoRdb(f"a module's part of kind {part}")

    def lengths(self, count: int) -> Steps:
        """So many lengths."""
        for _ in range(count):
            yield from self._length()

    def _items(self, kind: int) -> Steps:
        if kind == HASH_METADATA:
            yield from self._skip(8)
        yield from self._length()
        for _ in range(self._number):
            if kind == ZSET:
                yield from self.strings(1)
                yield from self._need(1)
                written = self.buffer[self.position]
                yield from self._skip(1 + (written if written < 253 else 0))
                continue
            if kind != ZSET_2:
                yield from self._length()
            yield from self.strings(2 if kind == HASH_METADATA else 1)
            if kind == ZSET_2:
                yield from self._skip(8)

    def _stream(self, kind: int) -> Steps:
        yield from self._length()
        yield from self.strings(2 * self._number)
        yield from self.lengths(3 if kind == STREAM else 8)
        yield from self._length()
        for _ in range(self._number):
            yield from self.strings(1)
            yield from self.lengths(2 if kind == STREAM else 3)
            yield from self._length()
            for _ in range(self._number):
                yield from self._skip(16 + 8)
                yield from self._length()
            yield from self._length()
            for _ in range(self._number):
                yield from self.strings(1)
                yield from self._skip(16 if kind == STREAM_3 else 8)
                yield from self._length()
                yield from self._skip(16 * self._number)

    def _length(self) -> Steps:
        while True:
            try:
                self._number, self.position = read_length(self.buffer, self.position)
                return
            except IndexError:
                yield

    def _need(self, count: int) -> Steps:
        while len(self.buffer) - self.position < count:
            yield

    def _skip(self, count: int) -> Steps:
        while True:
            have = len(self.buffer) - self.position
            if count <= have:
                self.position += count
                return
            count -= have
            self.position = len(self.buffer)
            yield
