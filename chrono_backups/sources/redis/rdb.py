"""Reading an RDB file as it streams by: is it whole, and what is in it?

``RdbScanner`` is fed the bytes in pieces of any size and holds no more than one of them: a value that is larger is
skipped piece by piece. It counts two to three million keys a second. Of a type or opcode that it does not know, as a
newer server writes, it says so, counts no further, and still proves the checksum.

Source: redis/redis, `src/rdb.c`: "REDIS" and four digits, parts by their opcodes, 0xFF, and the CRC-64 of all before
(eight bytes, little-endian; zeros with `rdbchecksum no`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from chrono_backups.sources.redis import rdb_format as rdb
from chrono_backups.sources.redis.crc64 import crc64
from chrono_backups.sources.redis.rdb_format import (
    NoRdb,
    Skipper,
    Steps,
    UnknownPart,
    read_length,
    skip_fast,
    skip_strings,
)
from chrono_backups.sources.redis.rdb_strings import read_string

OLDEST_RDB = 5
"""The first with a checksum; of Redis 2.6."""
_MAGIC = b"REDIS"
_HEADER_SIZE = 9
_CRC_SIZE = 8
_LARGE = 1 << 20
"""A key that is not complete with so many bytes is skipped piece by piece."""
BEFORE_A_KEY = frozenset({rdb.EXPIRE_MS, rdb.EXPIRE_S, rdb.IDLE, rdb.FREQ})
FIRST_OPCODE = rdb.SLOT_INFO
_ONE_STRING, _QUICKLIST_2 = rdb.ONE_STRING, rdb.QUICKLIST_2
_EXPIRE_MS, _EXPIRE_MS_SIZE = rdb.EXPIRE_MS, 9
_FAST = frozenset({*rdb.ONE_STRING, rdb.LIST, rdb.SET, rdb.QUICKLIST, rdb.HASH, rdb.ZSET_2, rdb.QUICKLIST_2})


class Sampled(NamedTuple):
    """A key as it lies in the file. ``key`` and ``value`` are encoded still."""

    ordinal: int
    """Of all keys of the file, from 0."""
    database: int
    kind: int
    key: bytes
    value: bytes
    expires_ms: int | None


@dataclass
class DatabaseCount:
    """What was counted of one database."""

    expires: int = 0
    kinds: Counter[int] = field(default_factory=Counter)
    """Type byte → keys."""

    @property
    def keys(self) -> int:
        return sum(self.kinds.values())

    def types(self) -> dict[str, int]:
        """As ``TYPE`` names them → keys."""
        found: Counter[str] = Counter()
        for kind, count in self.kinds.items():
            found[rdb.TYPES[kind]] += count
        return dict(sorted(found.items()))


class Sampler:
    """Keeps every n-th key, n doubling whenever there are too many, so that they come from all over the file."""

    def __init__(self, most: int, largest: int = 64 * 1024) -> None:
        """``largest``: bytes of a key with its value that is kept."""
        self._most = most
        self._largest = largest
        self._stride = 1
        self.next = 0 if most else -1
        """Ordinal of the next key that is wanted."""
        self.kept: list[Sampled] = []

    def take(self, one: Sampled) -> None:
        self.next += self._stride
        if len(one.key) + len(one.value) > self._largest:
            return
        self.kept.append(one)
        if len(self.kept) > self._most:
            self._stride *= 2
            self.kept = [kept for kept in self.kept if kept.ordinal % self._stride == 0]
            self.next = (one.ordinal // self._stride + 1) * self._stride

    def skip(self) -> None:
        """The wanted key is too large to be looked at."""
        self.next += self._stride


class RdbScanner:
    """Fed with all of a file, it knows whether that was whole. Raises ``NoRdb`` as soon as it can't be."""

    def __init__(self, sampler: Sampler | None = None, *, structure: bool = True) -> None:
        """Without ``structure`` nothing but the checksum is proven, which the file must have then."""
        self._structure = structure
        self.sampler = sampler or Sampler(0)
        self.size = 0
        """Bytes fed."""
        self.version = 0
        self.aux: dict[str, str] = {}
        """What the server says of itself and of its replication at the moment of the file."""
        self.databases: dict[int, DatabaseCount] = {}
        """By number; complete once the file is finished."""
        self.functions = 0
        """Libraries of functions."""
        self.keys = 0
        self.has_module_data = False
        """A server without the module can't load it."""
        self.unknown = ""
        """The first part that is not known here; nothing behind it was counted."""
        self.has_checksum = False
        self._crc = 0
        self._held = b""
        self._buffer = b""
        self._database = 0
        self._count = DatabaseCount()
        self._skipper: Skipper | None = None
        self._steps: Steps | tuple[()] = ()
        self._skipped: tuple[int, bool] | None = None
        """Type and whether it expires, of the key that is being skipped; None: it is no key."""
        self._ended = False

    def feed(self, data: bytes) -> None:
        """What comes next of the file. Raises ``NoRdb``."""
        self.size += len(data)
        self._sum(data)
        if self.unknown or (self.version and not self._structure):
            return
        try:
            if self._skipper is not None:
                self._skipper.feed(data)
                if not self._skip():
                    return
            else:
                self._buffer += data
            self._scan()
        except UnknownPart as part:
            self.unknown = str(part)
            self._buffer, self._skipper = b"", None

    def finish(self) -> None:
        """That was all of it. Raises ``NoRdb`` where it is cut or its checksum is another one."""
        if not self.version:
            raise NoRdb("it is shorter than an RDB file's header")
        expected = int.from_bytes(self._held, "little")
        self.has_checksum = expected != 0
        if not expected and not self._structure:
            raise NoRdb("it has no checksum")
        if self._structure and not self.unknown and (not self._ended or len(self._buffer) != _CRC_SIZE):
            raise NoRdb(f"it is cut off after {self.size:,} bytes")
        if expected and expected != self._crc:
            raise NoRdb(f"its checksum is {expected:016x}, and that of its {self.size:,} bytes {self._crc:016x}")
        if not expected and self.unknown:
            raise NoRdb(f"it has no checksum, and what is in it is not known here: {self.unknown}")

    def _sum(self, data: bytes) -> None:
        """Continue the checksum, of all but the last eight bytes."""
        if len(data) < _CRC_SIZE:
            data = self._held + data
        else:
            self._crc = crc64(self._held, self._crc)
        self._crc = crc64(memoryview(data)[: max(0, len(data) - _CRC_SIZE)], self._crc)
        self._held = data[-_CRC_SIZE:]

    def _scan(self) -> None:
        """All that is complete in the buffer."""
        buffer, position = self._buffer, 0
        try:
            if not self.version:
                position = self._header(buffer)
            if not self._structure:
                return
            while not self._ended:
                position = self._run(buffer, position)
                kind = buffer[position]
                if kind >= FIRST_OPCODE and kind not in BEFORE_A_KEY:
                    position = self._part(buffer, position)
                elif not self._begin_skipping(buffer, position):
                    break
                if self._skipper is not None and not self._skip():
                    return
                if self._buffer is not buffer:  # what was skipped has ended
                    buffer, position = self._buffer, 0
        except IndexError:
            pass
        self._buffer = buffer[position:]
        if self._ended and len(self._buffer) > _CRC_SIZE:
            raise NoRdb("there is something behind its end")

    def _header(self, buffer: bytes) -> int:
        if buffer[: len(_MAGIC)] != _MAGIC[: len(buffer)]:
            raise NoRdb(f"it begins with {buffer[: len(_MAGIC)]!r}")
        digits = buffer[len(_MAGIC) : _HEADER_SIZE]
        if len(digits) < _HEADER_SIZE - len(_MAGIC):
            raise IndexError
        if not digits.isdigit() or int(digits) < OLDEST_RDB:
            raise NoRdb(f"its version is {digits!r}")
        self.version = int(digits)
        return _HEADER_SIZE

    def _run(self, buffer: bytes, position: int) -> int:  # noqa: PLR0912, PLR0915 - a call a key takes longer
        """Count keys as long as they are complete and quickly skipped; where the next part begins."""
        size, kinds, keys, wanted = len(buffer), [0] * 256, self.keys, self.sampler.next
        start, expires = position, 0
        try:
            while True:
                start = position
                kind = buffer[position]
                expiring = False
                if kind == _EXPIRE_MS:
                    position += _EXPIRE_MS_SIZE
                    kind = buffer[position]
                    expiring = True
                if kind >= FIRST_OPCODE:
                    if kind not in BEFORE_A_KEY:
                        break
                    kind, expiring, position = before_key(buffer, start)
                length = buffer[position + 1]
                if length < 0x40:
                    position += 2 + length
                else:
                    position, left = skip_strings(buffer, position + 1, 1)
                    if left:
                        break
                if kind == _QUICKLIST_2 and buffer[position] == 1 and buffer[position + 1] < 0x40:
                    position += 2  # a list with one node: what follows is a string like that of others
                elif kind not in _ONE_STRING:
                    end = skip_fast(buffer, position, kind)
                    if end is None:
                        break
                    position = end
                    length = -1
                if length >= 0:
                    length = buffer[position]
                    if length < 0x40:
                        position += 1 + length
                    elif length < 0x80:
                        position += 2 + ((length & 0x3F) << 8 | buffer[position + 1])
                    elif length == 0xC3 and buffer[position + 1] < 0x40 and buffer[position + 2] < 0x80:
                        position += buffer[position + 1] + (3 if buffer[position + 2] < 0x40 else 4)
                    else:
                        position, left = skip_strings(buffer, position, 1)
                        if left:
                            break
                if position > size:
                    break
                kinds[kind] += 1
                expires += expiring
                if keys == wanted:
                    self.sampler.take(self._sampled(buffer, start, position, keys))
                    wanted = self.sampler.next
                keys += 1
        except IndexError:
            pass
        self.keys = keys
        self._count.expires += expires
        for kind, count in enumerate(kinds):
            if count:
                self._count.kinds[kind] += count
        return start

    def _sampled(self, buffer: bytes, start: int, end: int, ordinal: int) -> Sampled:
        expires_ms = None
        if buffer[start] == rdb.EXPIRE_MS:
            expires_ms = int.from_bytes(buffer[start + 1 : start + 9], "little")
        elif buffer[start] == rdb.EXPIRE_S:
            expires_ms = int.from_bytes(buffer[start + 1 : start + 5], "little") * 1000
        kind, position = buffer[start], start
        if kind >= FIRST_OPCODE:
            kind, _, position = before_key(buffer, start)
        value, _ = skip_strings(buffer, position + 1, 1)
        return Sampled(ordinal, self._database, kind, buffer[position + 1 : value], buffer[value:end], expires_ms)

    def _begin_skipping(self, buffer: bytes, position: int) -> bool:
        """Start to skip a key that is large or of a type that takes a while; False: it may yet be completed."""
        kind, expiring = buffer[position], False
        start = position
        if kind >= FIRST_OPCODE:
            kind, expiring, position = before_key(buffer, position)
        if kind in _FAST and len(buffer) - start < _LARGE:
            return False
        self._skipper = Skipper(buffer, position + 1)
        self._steps = self._skipper.record(kind)
        self._skipped = kind, expiring
        return True

    def _skip(self) -> bool:
        """Go on with what is being skipped; whether it has ended."""
        assert self._skipper is not None
        for _ in self._steps:
            return False
        self._buffer = self._skipper.buffer[self._skipper.position :]
        self._skipper = None
        if self._skipped is not None:
            kind, expiring = self._skipped
            self._count.kinds[kind] += 1
            self._count.expires += expiring
            self.has_module_data |= kind == rdb.MODULE_2
            if self.keys == self.sampler.next:
                self.sampler.skip()
            self.keys += 1
        return True

    def _part(self, buffer: bytes, position: int) -> int:
        """A part that is no key; where it ends. Raises ``IndexError`` where the buffer ends before."""
        opcode = buffer[position]
        position += 1
        if opcode == rdb.EOF:
            self._ended = True
        elif opcode == rdb.SELECT_DB:
            self._database, position = read_length(buffer, position)
            self._count = self.databases.setdefault(self._database, DatabaseCount())
        elif opcode in {rdb.RESIZE_DB, rdb.SLOT_INFO}:
            for _ in range(2 if opcode == rdb.RESIZE_DB else 3):
                _, position = read_length(buffer, position)
        elif opcode == rdb.AUX:
            name, position = read_string(buffer, position)
            value, position = read_string(buffer, position)
            self.aux[name.decode(errors="replace")] = value.decode(errors="replace")
        elif opcode == rdb.FUNCTION:
            _, position = read_string(buffer, position)
            self.functions += 1
        elif opcode == rdb.MODULE_AUX:
            self._skipper = Skipper(buffer, position)
            self._steps, self._skipped = self._skipper.module(), None
            self.has_module_data = True
        else:
            raise UnknownPart(f"opcode {opcode}")
        return position


def before_key(buffer: bytes, position: int) -> tuple[int, bool, int]:
    """Past expiry and age: a key's type, whether it expires, and where the type stands. Raises ``IndexError``."""
    kind, expiring = buffer[position], False
    while kind in BEFORE_A_KEY:
        if kind == rdb.EXPIRE_MS:
            expiring, position = True, position + 9
        elif kind == rdb.EXPIRE_S:
            expiring, position = True, position + 5
        elif kind == rdb.FREQ:
            position += 2
        else:
            _, position = read_length(buffer, position + 1)
        kind = buffer[position]
    return kind, expiring, position
