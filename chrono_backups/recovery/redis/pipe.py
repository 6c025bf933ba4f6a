"""Many commands to the servers of a target in few writes, whose answers are one line each.

A cluster's keys go to the master that serves their slot. Source: the Redis cluster specification, "Key distribution
model" and "Hash tags".
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from chrono_backups.errors import RestoreError, SourceError, SourceRefused
from chrono_backups.sources.redis.connection import Address, RedisConnection, Shard, lacks_rights, shards
from chrono_backups.sources.settings import RedisSettings

_FLUSH_BYTES, _FLUSH_COMMANDS = 1 << 20, 2000
SLOTS = 16384

Failed = Callable[[int, bytes], None]
"""What an error answer is told to: the command's number, as ``Lane.add`` gave it, and the words."""


def hash_tag(key: bytes) -> bytes:
    """The part of a key that its slot is computed from."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return key[start + 1 : end] if end > start + 1 else key


def slot_of(key: bytes) -> int:
    """CRC-16 (XMODEM) of the hash tag."""
    return crc_hqx(hash_tag(key), 0) % SLOTS


def command(*words: bytes) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Lane:
    """Commands to one server."""

    def __init__(self, connection: RedisConnection) -> None:
        self.connection = connection
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._numbers: list[int] = []
        self._database = 0

    def add(self, words: Sequence[bytes], number: int, database: int, failed: Failed) -> None:
        """A command for later; sent with the others once they are many."""
        if database != self._database:
            self.flush(failed)
            self.select(database)
        packed = command(*words)
        self._waiting.append(packed)
        self._numbers.append(number)
        self._bytes += len(packed)
        if self._bytes >= _FLUSH_BYTES or len(self._waiting) >= _FLUSH_COMMANDS:
            self.flush(failed)

    def select(self, database: int) -> None:
        """Have what follows be about that database; nothing may wait."""
        if database != self._database:
            self.connection.ask("SELECT", database)
            self._database = database

    def flush(self, failed: Failed) -> None:
        """Send what waits, and take the answers. Raises ``SourceUnavailable``."""
        numbers, packed = self._numbers, b"".join(self._waiting)
        self._waiting, self._numbers, self._bytes = [], [], 0
        if not numbers:
            return
        with self.connection.explained():
            self.connection.raw.sendall(packed)
            for number, line in zip(numbers, self._lines(len(numbers)), strict=True):
                if line.startswith(b"-"):
                    failed(number, line[1:])

    def _lines(self, count: int) -> Iterator[bytes]:
        received = b""
        while count:
            *lines, received = received.split(b"\r\n")
            for line in lines:
                yield line
                count -= 1
            if count:
                piece = self.connection.raw.recv(1 << 16)
                if not piece:
                    raise ConnectionResetError("the server closed the connection")
                received += piece


class Lanes:
    """All servers of a target."""

    def __init__(self, lanes: Sequence[Lane], served: Sequence[Shard]) -> None:
        """``served``: the cluster's shards in the order of ``lanes``; none where it is no cluster."""
        self.lanes = lanes
        self._of_slot = [lanes[0]] * SLOTS
        for lane, shard in zip(lanes, served, strict=False):
            for first, last in shard.slots:
                self._of_slot[first : last + 1] = [lane] * (last + 1 - first)
        self.is_cluster = bool(served)

    def of(self, key: bytes) -> Lane:
        """Where a key belongs."""
        return self._of_slot[slot_of(key)] if self.is_cluster else self.lanes[0]

    def flush(self, failed: Failed) -> None:
        """As ``Lane.flush``, all of them."""
        for lane in self.lanes:
            lane.flush(failed)


@contextmanager
def lanes_to(settings: RedisSettings, address: Address) -> Iterator[Lanes]:
    """Connections to the server, or to each master of its cluster. Raises ``SourceError``."""
    with ExitStack() as stack:
        first = stack.enter_context(RedisConnection.open(settings, address))
        try:
            served = shards(first)
        except SourceRefused as error:
            if lacks_rights(error):
                raise
            served = []  # "This instance has cluster support disabled"
        connections = [stack.enter_context(RedisConnection.open(settings, one.address)) for one in served] or [first]
        yield Lanes([Lane(one) for one in connections], served)


def raising(what: str) -> Failed:
    """Ends the work with the first error answer."""

    def failed(_number: int, words: bytes) -> None:
        text = words.decode(errors="replace")
        hint = ""
        if text.startswith("OOM"):
            hint = "Raise maxmemory: the old and the new data are held side by side for a while."
        elif "Bad data format" in text or "version" in text:
            hint = "The server is older than the one that was backed up, or lacks a module."
        elif "NOPERM" in text:
            hint = "Grant the user +restore +rename +unlink +scan +select, and all keys: ~*"
        raise RestoreError(f"{what}: {text}", hint=hint)

    return failed


def explain(error: SourceError, state: str) -> RestoreError:
    """An error of the connection, with the state that it leaves."""
    return RestoreError(f"{error.message}; {state}", hint=error.hint)
