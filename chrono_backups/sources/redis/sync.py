"""A server's RDB over the replication protocol: asked for as a replica does, which then wants nothing more.

Source: redis/redis, `src/replication.c`, and `redis-cli --rdb`. The server answers ``SYNC`` with empty lines while it
prepares, then ``$<bytes>`` and the file, or ``$EOF:<40 characters>``, the file, and those characters again.
"""

from __future__ import annotations

import select
from collections import deque
from datetime import datetime

from chrono_backups.clock import Clock
from chrono_backups.errors import SourceError, SourceRefused
from chrono_backups.sources.redis.connection import RedisConnection, lacks_rights, unavailable
from chrono_backups.sources.redis.rdb import RdbScanner, Sampler
from chrono_backups.sources.redis.rdb_format import NoRdb

_MARK_SIZE = 40
_PIECE = 1 << 20
_PAUSE_MS = 2
_WAITING_MOST = 32 << 20
"""Bytes that were received and not looked at yet: the server is not to wait for that, as its fork lives meanwhile."""
_LINE_MOST = 1024


class RdbStream:
    """The file as it comes. ``read_into`` until it gives 0, then ``finish``: only then it is known to be whole."""

    def __init__(self, connection: RedisConnection, clock: Clock, sampler: Sampler | None = None) -> None:
        self.scanner = RdbScanner(sampler)
        self.asked: datetime
        """When the server was asked, by this machine's clock."""
        self.begun: datetime
        """When the file began to come. The server took its picture between the two."""
        self._connection = connection
        self._clock = clock
        self._left = -1
        """Bytes to come; -1: until the mark."""
        self._mark = b""
        self._buffer = bytearray(_PIECE + _MARK_SIZE)
        self._have = 0
        """Bytes at the buffer's start that may be the mark's."""
        self._ready = b""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._poll = select.poll()
        self._done = False

    def begin(self) -> None:
        """Ask for it, and wait until it begins to come. Raises ``SourceError``."""
        connection = self._connection
        for words in (("capa", "eof"), ("rdb-only", "1")):
            try:
                connection.ask("REPLCONF", *words)
            except SourceRefused as error:
                if lacks_rights(error):
                    raise
                # A server older than 6.2 does not know `rdb-only`, and sends what is behind the file as well.
        self._poll.register(connection.raw, select.POLLIN)
        self.asked = self._clock.now()
        connection.send("SYNC")
        line = b""
        while not line:
            line = self._line()
        self.begun = self._clock.now()
        if not line.startswith(b"$"):
            raise connection.error(line.decode(errors="replace").lstrip("-"))
        if line.startswith(b"$EOF:"):
            self._mark = line[5:]
            if len(self._mark) != _MARK_SIZE:
                raise SourceError(f"Redis at {connection.address}: its mark is {line!r}", source="redis")
        elif line[1:].isdigit():
            self._left = int(line[1:])
        else:
            raise SourceError(f"Redis at {connection.address} answers SYNC with {line!r}", source="redis")

    def _line(self) -> bytes:
        """Up to the line's end; empty for those that say no more than that the server is there."""
        found = bytearray()
        with self._connection.explained():
            while len(found) < _LINE_MOST:
                one = self._connection.raw.recv(1)
                if not one:
                    raise unavailable(
                        f"Redis at {self._connection.address} closed the connection before it sent its data",
                        "Its log says why: a save that failed, for want of memory or disk.",
                    )
                if one == b"\n":
                    return bytes(found.rstrip(b"\r"))
                found += one
        raise SourceError(f"Redis at {self._connection.address} answers SYNC with no line", source="redis")

    def read_into(self, view: memoryview) -> int:
        """As ``StreamedEntry.read_into``. Raises ``SourceError`` where the connection ends or what comes is no RDB."""
        if not self._ready:
            self._ready = self._next()
        piece = self._ready[: len(view)]
        view[: len(piece)] = piece
        self._ready = self._ready[len(piece) :]
        return len(piece)

    def _next(self) -> bytes:
        """A piece of the file; empty at its end."""
        while not self._done:
            piece = self._receive()
            if piece:
                self._waiting.append(piece)
                self._waiting_bytes += len(piece)
                while self._waiting and (self._waiting_bytes > _WAITING_MOST or not self._more(0)):
                    self._scan()
                return piece
        return b""

    def _scan(self) -> None:
        """Look at the oldest piece that waits."""
        piece = self._waiting.popleft()
        self._waiting_bytes -= len(piece)
        try:
            self.scanner.feed(piece)
        except NoRdb as error:
            raise self._damaged(error) from error

    def _more(self, milliseconds: int) -> bool:
        """Whether more has come, or comes within that time."""
        return bool(self._poll.poll(milliseconds))

    def _receive(self) -> bytes:
        if self._left == 0:
            self._done = True
            return b""
        room = memoryview(self._buffer)[self._have :]
        if self._left > 0:
            room = room[: min(len(room), self._left)]
        count = self._fill(room)
        if not count:
            raise unavailable(
                f"Redis at {self._connection.address} closed the connection after {self.scanner.size:,} bytes",
                "A server ends a replica that is too slow: see repl-timeout and its log.",
            )
        if self._left > 0:
            self._left -= count
            return bytes(room[:count])
        end = self._have + count
        kept = min(end, _MARK_SIZE)
        piece = bytes(memoryview(self._buffer)[: end - kept])
        tail = bytes(memoryview(self._buffer)[end - kept : end])
        self._buffer[:kept] = tail
        self._have = kept
        if tail == self._mark:
            self._done = True
        return piece

    def _fill(self, room: memoryview) -> int:
        """As much as comes without a pause; 0 where the connection has ended."""
        count = 0
        with self._connection.explained():
            while count < len(room):
                received = self._connection.raw.recv_into(room[count:])
                count += received
                at_end = bool(self._mark) and self._buffer.endswith(self._mark, 0, self._have + count)
                if not received or at_end or not self._more(_PAUSE_MS):
                    break
        return count

    def finish(self) -> None:
        """All of it has been read. Raises ``SourceError`` where it is not whole."""
        while self._waiting:
            self._scan()
        try:
            self.scanner.finish()
        except NoRdb as error:
            raise self._damaged(error) from error

    def _damaged(self, error: NoRdb) -> SourceError:
        return SourceError(
            f"what Redis at {self._connection.address} sent is no whole RDB file: {error}",
            source="redis",
            hint="Take another backup. Should it come again, look at the server's memory and the network.",
        )
