"""Connections to Redis servers and Sentinels, and the servers' words turned into errors of ours.

redis-py connects, speaks TLS and logs in; what is said then is our own, so that a server is asked nothing that the
backup's user was not granted.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis
from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationWrongNumberOfArgsError, AuthorizationError, NoPermissionError

from chrono_backups.errors import SourceError, SourceRefused, SourceUnavailable
from chrono_backups.sources.settings import RedisSettings

CONNECT_TIMEOUT = 15.0
ANSWER_TIMEOUT = 120.0
"""Seconds that a server may be silent. One that prepares its data says a line every ten seconds."""

_REMEDIES = (
    ("WRONGPASS", "Correct BACKUP_REDIS_USER and BACKUP_REDIS_PASSWORD."),
    ("NOAUTH", "Set BACKUP_REDIS_PASSWORD, and BACKUP_REDIS_USER for a user other than the default one."),
    ("without any password configured", "The server asks for no password: unset BACKUP_REDIS_PASSWORD."),
    ("NOPERM", "Run on the server: ACL SETUSER {user} {rights}"),
    ("CERTIFICATE_VERIFY_FAILED", "Set BACKUP_REDIS_TLS_CA to who signed the server's certificate."),
    ("certificate required", "Set BACKUP_REDIS_TLS_CERT and BACKUP_REDIS_TLS_KEY."),
    ("NOMASTERLINK", "It is a replica without its master: mend that, or name another server."),
)
_PASSING = ("LOADING", "NOMASTERLINK", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY ")
_CODES = (
    (NoPermissionError, "NOPERM"),
    (AuthenticationWrongNumberOfArgsError, "NOAUTH"),
    (redis.AuthenticationError, "WRONGPASS"),
    (redis.BusyLoadingError, "LOADING"),
)
"""What redis-py takes off the server's words."""
BACKUP_RIGHTS = "+ping +info +replconf +sync +config|get +acl|list +function|list +cluster|slots"


class Address(NamedTuple):
    """Of one server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def lacks_rights(error: SourceRefused) -> bool:
    """Whether the server refused because the user may not do it."""
    return "NOPERM" in error.message


def unavailable(message: str, hint: str = "Look whether the server runs.") -> SourceUnavailable:
    """The error for a server that does not answer."""
    return SourceUnavailable(message, source="redis", hint=hint)


class RedisConnection:
    """A connection to one server. Not for several threads at once."""

    def __init__(self, connection: Connection, address: Address, settings: RedisSettings) -> None:
        self._connection = connection
        self._settings = settings
        self.address = address

    @classmethod
    @contextmanager
    def open(
        cls, settings: RedisSettings, address: Address, *, timeout: float = ANSWER_TIMEOUT
    ) -> Iterator[RedisConnection]:
        """Connected and logged in. Raises ``SourceUnavailable``, ``SourceRefused`` with the remedy."""
        password = settings.password.get_secret_value() if settings.password is not None else None
        made = _connection(settings, address, timeout, user=settings.user, password=password)
        opened = cls(made, address, settings)
        try:
            with opened.explained():
                made.connect()
            yield opened
        finally:
            made.disconnect()

    def ask(self, *words: str | bytes | int) -> Any:
        """A command and its answer: bytes, a number, None, or a list of such. Raises as ``open``."""
        with self.explained():
            self._connection.send_command(*words, check_health=False)
            return self._connection.read_response(disable_decoding=True)

    def send(self, *words: str | bytes | int) -> None:
        """A command whose answer ``raw`` gives."""
        with self.explained():
            self._connection.send_command(*words, check_health=False)

    def ask_many(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """Many commands at once; an error answer is in the place of the answer, as ``SourceRefused``."""
        answers: list[Any] = []
        with self.explained():
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    answers.append(self._connection.read_response(disable_decoding=True))
                except redis.ResponseError as error:
                    answers.append(explained(error, self.address, self._settings))
        return answers

    def error(self, words: str) -> SourceError:
        """For words that the server answered with in a way that the driver does not know."""
        return explained(redis.ResponseError(words), self.address, self._settings)

    @property
    def raw(self) -> socket.socket:
        """What the answers come over, once nothing that was asked for is unread."""
        return cast("socket.socket", self._connection._sock)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the driver and the system raise into errors of ours."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise explained(error, self.address, self._settings) from error


def explained(error: Exception, address: Address, settings: RedisSettings) -> SourceError:
    """The error of ours for the driver's or the system's."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError | redis.TimeoutError):
        words = "it does not answer"
    code = getattr(error, "status_code", None) or next((code for kind, code in _CODES if isinstance(error, kind)), "")
    words = words if not code or words.startswith(code) else f"{code} {words}"
    user = settings.user or "default"
    hint = next((hint.format(user=user, rights=BACKUP_RIGHTS) for sign, hint in _REMEDIES if sign in words), "")
    message = f"Redis at {address}: {words}"
    if any(words.startswith(sign) for sign in _PASSING) or "max number of clients" in words:
        return unavailable(message, hint or "Try again once it is ready.")
    answered = isinstance(error, redis.ResponseError | redis.AuthenticationError | AuthorizationError)
    return SourceRefused(message, source="redis", hint=hint) if answered or hint else unavailable(message)


def _connection(
    settings: RedisSettings, address: Address, timeout: float, *, user: str | None, password: str | None
) -> Connection:
    words: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "username": user,
        "password": password,
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "protocol": 2,
        "client_name": None,
        "driver_info": None,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
    }
    if not settings.tls:
        return Connection(**words)
    return SSLConnection(
        **words,
        ssl_ca_certs=str(settings.tls_ca) if settings.tls_ca else None,
        ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
    )


def info(connection: RedisConnection, *sections: str) -> dict[str, str]:
    """``INFO``, of the default sections or these. ``modules`` has the names of all loaded ones."""
    found: dict[str, str] = {}
    modules = []
    for section in sections or ("default",):
        for line in connection.ask("INFO", section).decode("utf-8", "replace").splitlines():
            name, colon, value = line.partition(":")
            if name == "module":
                modules.append(value.removeprefix("name=").partition(",")[0])
            elif colon and not line.startswith("#"):
                found[name] = value
    return {**found, "modules": " ".join(modules)}


@dataclass(frozen=True)
class Shard:
    """A master of a cluster and the slots that it serves."""

    address: Address
    node: str
    slots: tuple[tuple[int, int], ...]


def find_server(settings: RedisSettings) -> Address:
    """The server that the settings name, or the master that its Sentinels know. Raises ``SourceError``."""
    if not settings.sentinels:
        assert settings.host is not None  # it is no source otherwise
        return Address(settings.host, settings.port)
    failed: list[SourceError] = []
    for word in settings.sentinels:
        host, _, port = word.rpartition(":")
        sentinel = Address(host.strip("[]"), int(port))
        try:
            return _master_of(settings, sentinel)
        except SourceError as error:
            failed.append(error)
    reasons = "; ".join(error.message for error in failed)
    message = f"no Sentinel tells where the master {settings.sentinel_master} is: {reasons}"
    if all(isinstance(error, SourceUnavailable) for error in failed):
        raise unavailable(message, "Look whether the Sentinels run.")
    raise SourceError(
        message,
        source="redis",
        hint=next((error.hint for error in failed if error.hint and not isinstance(error, SourceUnavailable)), ""),
    )


def _master_of(settings: RedisSettings, sentinel: Address) -> Address:
    password = settings.sentinel_password.get_secret_value() if settings.sentinel_password else None
    made = _connection(settings, sentinel, CONNECT_TIMEOUT, user=None, password=password)
    opened = RedisConnection(made, sentinel, settings)
    try:
        with opened.explained():
            made.connect()
        found = opened.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.sentinel_master)
    finally:
        made.disconnect()
    if found is None:
        raise SourceRefused(
            f"the Sentinel at {sentinel} knows no master {settings.sentinel_master}",
            source="redis",
            hint="Correct BACKUP_REDIS_SENTINEL_MASTER.",
        )
    return Address(found[0].decode(), int(found[1]))


def shards(connection: RedisConnection) -> list[Shard]:
    """The masters of the cluster that the server belongs to, by their first slots. Raises ``SourceError``."""
    served: dict[tuple[str, Address], list[tuple[int, int]]] = {}
    for first, last, master, *_ in connection.ask("CLUSTER", "SLOTS"):
        host = (master[0] or b"").decode() or connection.address.host
        node = master[2].decode() if len(master) > 2 else ""
        served.setdefault((node, Address(host, int(master[1]))), []).append((int(first), int(last)))
    found = [Shard(address, node, tuple(sorted(slots))) for (node, address), slots in served.items()]
    missing = 16384 - sum(last - first + 1 for one in found for first, last in one.slots)
    if missing:
        raise unavailable(
            f"Redis cluster at {connection.address}: {missing} slots are served by nobody",
            "Mend the cluster: a backup without them would lack their keys.",
        )
    return sorted(found, key=lambda one: one.slots[0])
