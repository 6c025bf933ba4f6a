"""A master as small as can be: one replica connects, is sent one RDB file, and nothing more.

Only the server that is to be restored gets it. It names itself by its replication id, which nobody knows who may not
ask it; whoever names another one, or none, is turned away.

Source: redis/redis, `src/replication.c`, what a replica says and awaits.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from chrono_backups.clock import Clock
from chrono_backups.errors import RestoreError
from chrono_backups.events import Finding
from chrono_backups.sources.settings import RedisSettings

CONNECT_SECONDS = 60.0
"""How long the server may take to connect to us."""
_HANDSHAKE_SECONDS = 10.0
_SEND_SECONDS = 60.0
_WORDS_MOST, _WORD_MOST = 64, 4096


class Master:
    """Listens from the start; a context."""

    def __init__(self, settings: RedisSettings, local: str, replica_id: str, clock: Clock, *, tls: bool) -> None:
        """``local``: our address as the server sees us. ``replica_id``: the server's replication id."""
        self._replica_id = replica_id.encode()
        self._clock = clock
        self._tls = _context(settings) if tls else None
        self.findings: list[Finding] = []
        self._replica: socket.socket | None = None
        family = socket.AF_INET6 if ":" in local else socket.AF_INET
        # With an address of the operator's the server may come from anywhere: through a proxy, a forwarded port.
        bound = "" if settings.restore_address else local
        try:
            self._listening = socket.create_server((bound, settings.restore_port), family=family)
        except OSError as error:
            raise RestoreError(
                f"no port can be listened on at {bound or 'any address'}:{settings.restore_port}: {error.strerror}",
                hint="Set BACKUP_REDIS_RESTORE_PORT to a free one.",
            ) from error
        self.host = settings.restore_address or local
        self.port = int(self._listening.getsockname()[1])

    def __enter__(self) -> Master:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        if self._replica is not None:
            self._replica.close()

    def wait(self, check: Callable[[], None]) -> None:
        """Until the server has connected and asked for everything. ``check`` is called now and then, and may raise."""
        until = time.monotonic() + CONNECT_SECONDS
        self._listening.settimeout(0.25)
        while self._replica is None:
            try:
                connection, peer = self._listening.accept()
            except TimeoutError:
                check()
                if time.monotonic() > until:
                    raise RestoreError(
                        f"the server did not connect to {self.host}:{self.port} within {CONNECT_SECONDS:.0f} s",
                        hint="It connects to us. Set BACKUP_REDIS_RESTORE_ADDRESS and BACKUP_REDIS_RESTORE_PORT to "
                        "what it reaches; its log says why it does not.",
                    ) from None
                continue
            try:
                connection.settimeout(_HANDSHAKE_SECONDS)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                if self._greet(connection):
                    self._replica = connection
                    return
                message = "somebody else asked for the data that is being restored, and was turned away"
                self.findings.append(Finding("redis-stranger", "warning", str(peer[0]), message))
            except (OSError, ValueError) as error:
                message = f"a connection that was no replica's: {error}"
                self.findings.append(Finding("redis-stranger", "info", str(peer[0]), message))
            connection.close()

    def _greet(self, connection: socket.socket) -> bool:
        """Answer what a replica says before its data comes; whether it is the one that is awaited."""
        reader = connection.makefile("rb", buffering=0)
        while True:
            words = _command(reader.read)
            if words[0] == b"PING":
                connection.sendall(b"+PONG\r\n")
            elif words[0] in {b"AUTH", b"REPLCONF"}:
                connection.sendall(b"+OK\r\n")
            elif words[0] == b"PSYNC" and len(words) == 3:
                if words[1] != self._replica_id:
                    connection.sendall(b"-ERR this is not the replica that is awaited\r\n")
                    return False
                ours = self._clock.random_bytes(20).hex()
                connection.sendall(b"+FULLRESYNC %s 0\r\n" % ours.encode())
                return True
            else:
                connection.sendall(b"-ERR not known here\r\n")

    def send(self, size: int, pieces: Iterable[bytes]) -> None:
        """The file. Raises ``RestoreError`` where the server does not take it; what ``pieces`` raises."""
        replica = self._connected()
        replica.settimeout(_SEND_SECONDS)
        sent = 0
        try:
            replica.sendall(b"$%d\r\n" % size)
            for piece in pieces:
                replica.sendall(piece)
                sent += len(piece)
        except OSError as error:
            raise RestoreError(
                f"the server closed the connection after {sent:,} of {size:,} bytes ({error})",
                hint="Its old data is untouched. Its log says why: no room for the file, say.",
            ) from error

    def is_connected(self) -> bool:
        """Whether the replica is still there; takes what it says."""
        replica = self._connected()
        replica.settimeout(0)
        try:
            while said := replica.recv(4096):
                del said
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def keep_alive(self) -> None:
        """What a master says when it has nothing to say."""
        replica = self._connected()
        replica.settimeout(1)
        with suppress(OSError):
            replica.sendall(b"*1\r\n$4\r\nPING\r\n")

    def _connected(self) -> socket.socket:
        assert self._replica is not None
        return self._replica


def _context(settings: RedisSettings) -> ssl.SSLContext:
    """For a server that speaks TLS to its master. Raises ``RestoreError`` without a certificate to show it."""
    if settings.tls_cert is None or settings.tls_key is None:
        raise RestoreError(
            "the server speaks TLS to its master (tls-replication), and there is no certificate to show it",
            hint="Set BACKUP_REDIS_TLS_CERT and BACKUP_REDIS_TLS_KEY, of an authority that the server trusts.",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise RestoreError(
            f"BACKUP_REDIS_TLS_CERT and BACKUP_REDIS_TLS_KEY can't be used: {error}", hint="Correct them."
        ) from error
    return context


def _command(read: Callable[[int], bytes]) -> list[bytes]:
    """One command. Raises ``ValueError`` for what is none."""
    count = _number(_line(read), b"*", _WORDS_MOST)
    words = []
    for _ in range(count):
        size = _number(_line(read), b"$", _WORD_MOST)
        word = b""
        while len(word) < size + 2:
            piece = read(size + 2 - len(word))
            if not piece:
                raise ValueError("it was closed")
            word += piece
        words.append(word[:-2])
    if not words:
        raise ValueError("an empty command")
    return [words[0].upper(), *words[1:]]


def _number(line: bytes, sign: bytes, most: int) -> int:
    if line[:1] != sign or not line[1:].isdigit() or int(line[1:]) > most:
        raise ValueError("what it said is no command")
    return int(line[1:])


def _line(read: Callable[[int], bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        one = read(1)
        if not one or len(line) > _WORD_MOST:
            raise ValueError("it was closed")
        line += one
    return line[:-2]
