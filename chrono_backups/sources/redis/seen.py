"""What a Redis server or cluster tells at a glance, whatever its size."""

from __future__ import annotations

from dataclasses import dataclass

from chrono_backups.sources.redis.connection import RedisConnection, find_server, info, shards
from chrono_backups.sources.settings import RedisSettings


@dataclass(frozen=True)
class SeenServer:
    """A server at a moment; of a cluster, all its masters together. Memory in bytes."""

    version: str
    mode: str
    """``standalone``, ``cluster``."""
    role: str
    masters: int
    keys: int
    expires: int
    used_memory: int
    maxmemory: int
    """0: no limit."""
    replication_id: str
    replication_offset: int
    replicas: int
    keeps_aof: bool


def see(settings: RedisSettings) -> SeenServer:
    """Look at the server. Raises ``SourceError``."""
    with RedisConnection.open(settings, find_server(settings)) as connection:
        first = _info(connection)
        each = [first]
        if first.get("cluster_enabled") == "1":
            each = []
            for shard in shards(connection):
                with RedisConnection.open(settings, shard.address) as other:
                    each.append(_info(other))
    return SeenServer(
        version=first.get("redis_version", ""),
        mode="cluster" if first.get("cluster_enabled") == "1" else "standalone",
        role={"slave": "replica"}.get(first.get("role", ""), first.get("role", "")),
        masters=len(each),
        keys=sum(_of_keyspace(one, "keys") for one in each),
        expires=sum(_of_keyspace(one, "expires") for one in each),
        used_memory=sum(int(one.get("used_memory", 0)) for one in each),
        maxmemory=sum(int(one.get("maxmemory", 0)) for one in each),
        replication_id=first.get("master_replid", ""),
        replication_offset=int(first.get("master_repl_offset", 0)),
        replicas=sum(int(one.get("connected_slaves", 0)) for one in each),
        keeps_aof=first.get("aof_enabled") == "1",
    )


def _info(connection: RedisConnection) -> dict[str, str]:
    return info(connection, "server", "replication", "cluster", "memory", "persistence", "keyspace")


def _of_keyspace(seen: dict[str, str], name: str) -> int:
    lines = [value for key, value in seen.items() if key.startswith("db") and key[2:].isdigit()]
    return sum(int(part.partition("=")[2]) for line in lines for part in line.split(",") if part.startswith(f"{name}="))
