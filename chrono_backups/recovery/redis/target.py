"""What is to be known of a running server before its data may be replaced, and what would keep that from being safe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from chrono_backups.errors import SourceError, SourceRefused
from chrono_backups.sources.redis.connection import RedisConnection, info
from chrono_backups.sources.redis.told import parameters
from chrono_backups.sources.settings import RedisSettings

RESTORE_RIGHTS = "+ping +info +replicaof +select +function|dump +config|get +command|info"
"""What a restore over replication asks for, beside what its safety backup does."""
_PARAMETERS = ("appendonly", "masterauth", "tls-replication", "maxmemory", "repl-diskless-load", "cluster-enabled")
_VERSIONS = ((8, 0, 12), (7, 4, 12), (7, 2, 11), (7, 0, 10), (5, 0, 9), (4, 0, 8), (3, 2, 7), (2, 6, 6))
"""Major, minor → the newest RDB version that such a server reads. Later ones tell it themselves."""


@dataclass(frozen=True)
class Target:
    """A server, as it was when it was asked."""

    address: str
    seen: Mapping[str, str]
    """``INFO``."""
    parameters: Mapping[str, str]
    """The few of ``CONFIG GET`` that matter; empty where the server does not tell."""
    rdb_version: int
    """The newest that it reads."""
    databases: int
    """How many it has, as far as was asked for."""
    modules: frozenset[str]
    may_replicate: bool
    """It knows ``REPLICAOF``, and its user may run it."""
    keyspace: Mapping[int, int] = field(default_factory=dict)
    """Database → keys."""

    @property
    def version(self) -> str:
        return self.seen.get("redis_version", "")

    @property
    def keys(self) -> int:
        return sum(self.keyspace.values())

    @property
    def is_cluster(self) -> bool:
        return self.seen.get("cluster_enabled") == "1"

    @property
    def is_replica(self) -> bool:
        return self.seen.get("role") == "slave"

    @property
    def keeps_aof(self) -> bool:
        return self.seen.get("aof_enabled") == "1"

    @property
    def maxmemory(self) -> int:
        """Bytes; 0: no limit."""
        return int(self.seen.get("maxmemory", 0) or 0)


def ask_target(connection: RedisConnection, settings: RedisSettings, most_databases: int) -> Target:
    """Ask the server; ``most_databases``: how many the backup needs. Raises ``SourceError``."""
    seen = info(connection, "server", "replication", "cluster", "memory", "persistence", "keyspace", "modules")
    if seen.get("loading") == "1":
        raise connection.error("LOADING the server is loading its data")
    known: dict[str, str] = {}
    with suppress(SourceRefused):  # managed servers hide them; the plan says what that means
        known = parameters(connection, *_PARAMETERS)
        known["masterauth"] = "set" if known.get("masterauth") else ""  # the secret itself is kept nowhere
    return Target(
        address=str(connection.address),
        seen=seen,
        parameters=known,
        rdb_version=_rdb_version(connection, seen.get("redis_version", "")),
        databases=_databases(connection, most_databases),
        modules=frozenset(seen.get("modules", "").split()),
        may_replicate=_may_replicate(connection, settings),
        keyspace=keyspace(seen),
    )


def keyspace(seen: Mapping[str, str]) -> dict[int, int]:
    """Database → keys, of what ``INFO keyspace`` says."""
    return {
        int(name[2:]): int(value.partition("keys=")[2].partition(",")[0])
        for name, value in seen.items()
        if name.startswith("db") and name[2:].isdigit()
    }


def _rdb_version(connection: RedisConnection, version: str) -> int:
    """By what the server dumps itself, else by its version."""
    try:
        dumped = connection.ask("FUNCTION", "DUMP")
        if dumped is not None and len(dumped) >= 10:
            return int.from_bytes(dumped[-10:-8], "little")
    except SourceError:
        pass  # older than 7, or no right
    return newest_rdb(version)


def newest_rdb(version: str) -> int:
    """The newest RDB version that a server of that version reads, at least."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    major, minor = (*numbers, 0, 0)[:2]
    return next((rdb for one, two, rdb in _VERSIONS if (major, minor) >= (one, two)), 0)


def _databases(connection: RedisConnection, wanted: int) -> int:
    """``wanted``, or fewer where the server has not as many."""
    for count in range(wanted, 0, -1):
        try:
            connection.ask("SELECT", count - 1)
        except SourceRefused:
            continue
        connection.ask("SELECT", 0)
        return count
    return 1


def _may_replicate(connection: RedisConnection, settings: RedisSettings) -> bool:
    try:
        if connection.ask("COMMAND", "INFO", "replicaof") in ([None], []):
            return False
    except SourceRefused:
        pass
    try:
        answer = connection.ask("ACL", "DRYRUN", settings.user or "default", "replicaof", "no", "one")
    except SourceRefused:  # older than 7, or no right to ask: it is tried
        return True
    return bool(answer == b"OK")
