"""What a key's value is, however its server encodes it: one digest for the same content.

A list packed otherwise, a hash grown into a table or a newer server's encodings are the same content. What is digested:

========= ==========================================================================
string    its bytes
list      its elements in their order
set       its members, sorted
hash      fields with their values, sorted
zset      members with their scores, sorted by member
stream    nodes as they are, length, last id
========= ==========================================================================

Source: redis/redis, `src/listpack.c`, `src/ziplist.c`, `src/intset.c`, `src/rdb.c`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from chrono_backups.sources.redis import rdb_format as rdb
from chrono_backups.sources.redis.rdb import Sampled
from chrono_backups.sources.redis.rdb_format import NoRdb, UnknownPart, read_length
from chrono_backups.sources.redis.rdb_strings import read_string

DIGEST_SIZE = 16
_PAIRED = frozenset({rdb.HASH_LISTPACK, rdb.HASH_ZIPLIST, rdb.ZSET_LISTPACK, rdb.ZSET_ZIPLIST, rdb.HASH_LISTPACK_EX})
_ZIPPED = frozenset({rdb.HASH_ZIPLIST, rdb.ZSET_ZIPLIST, rdb.LIST_ZIPLIST})


def name_of(key: bytes) -> str:
    """Stands for a key where its name is not to be seen."""
    return blake2b(key, digest_size=8).hexdigest()


def key_of(sampled: Sampled) -> bytes:
    """The key, decoded."""
    return read_string(sampled.key, 0)[0]


def digest(kind: int, value: bytes) -> str:
    """Of an encoded value of that type. Raises ``UnknownPart``, ``NoRdb``."""
    try:
        content = _content(kind, value)
    except (IndexError, ValueError, struct.error) as error:
        raise NoRdb(f"a value of type {kind} is not laid out as one") from error
    return digest_of(rdb.TYPES[kind], content)


def digest_of(kind: str, content: Sequence[bytes]) -> str:
    """Of a value's parts as the table above has them. ``kind`` as ``TYPE`` says."""
    hashed = blake2b(kind.encode(), digest_size=DIGEST_SIZE)
    for part in content:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.hexdigest()


def pairs(content: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Fields with their values, or members with their scores, in the order in which they are digested."""
    return [part for pair in sorted(content) for part in pair]


def score(value: float) -> bytes:
    """A score, the same for the same number."""
    return struct.pack(">d", value)


def _content(kind: int, value: bytes) -> Sequence[bytes]:
    if kind == rdb.STRING:
        return [read_string(value, 0)[0]]
    if kind in {rdb.STREAM, rdb.STREAM_2, rdb.STREAM_3}:
        return _stream(value)
    name = rdb.TYPES[kind]
    elements = list(_elements(kind, value))
    if name == "list":
        return elements
    if name == "set":
        return sorted(elements)
    if name == "hash":
        return pairs(zip(elements[::2], elements[1::2], strict=True))
    if kind != rdb.ZSET_2:
        elements[1::2] = [score(float(one)) for one in elements[1::2]]
    return pairs(zip(elements[::2], elements[1::2], strict=True))


def _elements(kind: int, value: bytes) -> Iterator[bytes]:
    if kind == rdb.INTSET:
        yield from _intset(read_string(value, 0)[0])
    elif kind in _ZIPPED:
        yield from _ziplist(read_string(value, 0)[0])
    elif kind in _PAIRED or kind == rdb.SET_LISTPACK:
        if kind == rdb.HASH_LISTPACK_EX:
            raise UnknownPart("fields that expire")
        yield from _listpack(read_string(value, 0)[0])
    elif kind in {rdb.LIST, rdb.SET, rdb.HASH, rdb.ZSET_2, rdb.QUICKLIST, rdb.QUICKLIST_2}:
        yield from _collection(kind, value)
    else:
        raise UnknownPart(f"values of type {kind}")


def _collection(kind: int, value: bytes) -> Iterator[bytes]:
    count, position = read_length(value, 0)
    for _ in range(count * (2 if kind == rdb.HASH else 1)):
        container = 0
        if kind == rdb.QUICKLIST_2:
            container, position = read_length(value, position)
        one, position = read_string(value, position)
        if kind == rdb.QUICKLIST:
            yield from _ziplist(one)
        elif container == 2:
            yield from _listpack(one)
        else:
            yield one
        if kind == rdb.ZSET_2:
            yield score(struct.unpack_from("<d", value, position)[0])
            position += 8


def _stream(value: bytes) -> list[bytes]:
    count, position = read_length(value, 0)
    parts: list[bytes] = []
    for _ in range(2 * count):
        one, position = read_string(value, position)
        parts.append(one)
    for _ in range(3):
        number, position = read_length(value, position)
        parts.append(str(number).encode())
    return parts


def _integer(data: bytes, position: int, size: int) -> bytes:
    if position + size > len(data):
        raise IndexError
    return str(int.from_bytes(data[position : position + size], "little", signed=True)).encode()


def _intset(data: bytes) -> Iterator[bytes]:
    size, count = struct.unpack_from("<II", data)
    for at in range(count):
        yield _integer(data, 8 + at * size, size)


_LISTPACK_INTEGERS = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}
_ZIPLIST_INTEGERS = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}


def _listpack(data: bytes) -> Iterator[bytes]:
    position = 6
    while (first := data[position]) != 0xFF:
        start = position
        if first < 0x80:
            content, position = str(first).encode(), position + 1
        elif first < 0xC0:
            content, position = _bytes(data, position + 1, first & 0x3F)
        elif first < 0xE0:
            number = (first & 0x1F) << 8 | data[position + 1]
            content, position = str(number - (1 << 13) * (number >= 1 << 12)).encode(), position + 2
        elif first < 0xF0:
            content, position = _bytes(data, position + 2, (first & 0x0F) << 8 | data[position + 1])
        elif first == 0xF0:
            content, position = _bytes(data, position + 5, int.from_bytes(data[position + 1 : position + 5], "little"))
        elif first in _LISTPACK_INTEGERS:
            size = _LISTPACK_INTEGERS[first]
            content, position = _integer(data, position + 1, size), position + 1 + size
        else:
            raise NoRdb(f"no element of a listpack begins with {first:#04x}")
        yield content
        size = position - start
        position += 1 + (size > 127) + (size > 16383) + (size > 2097151) + (size > 268435455)


def _ziplist(data: bytes) -> Iterator[bytes]:
    position = 10
    while data[position] != 0xFF:
        position += 1 if data[position] < 0xFE else 5
        first = data[position]
        if first < 0x40:
            content, position = _bytes(data, position + 1, first)
        elif first < 0x80:
            content, position = _bytes(data, position + 2, (first & 0x3F) << 8 | data[position + 1])
        elif first == 0x80:
            content, position = _bytes(data, position + 5, int.from_bytes(data[position + 1 : position + 5], "big"))
        elif first in _ZIPLIST_INTEGERS:
            size = _ZIPLIST_INTEGERS[first]
            content, position = _integer(data, position + 1, size), position + 1 + size
        elif 0xF1 <= first <= 0xFD:
            content, position = str((first & 0x0F) - 1).encode(), position + 1
        else:
            raise NoRdb(f"no element of a ziplist begins with {first:#04x}")
        yield content


def _bytes(data: bytes, position: int, size: int) -> tuple[bytes, int]:
    if position + size > len(data):
        raise IndexError
    return data[position : position + size], position + size
