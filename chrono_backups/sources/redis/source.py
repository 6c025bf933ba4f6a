"""The source ``redis``."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.base import Earlier, StreamedCapture, StreamedEntry
from chrono_backups.sources.redis.connection import Address, RedisConnection, Shard, find_server, info, shards
from chrono_backups.sources.redis.facts import SAMPLED_MOST, ServerFacts, together
from chrono_backups.sources.redis.names import TOLD, dump_name
from chrono_backups.sources.redis.probe import probe
from chrono_backups.sources.redis.rdb import Sampler
from chrono_backups.sources.redis.sync import RdbStream
from chrono_backups.sources.redis.told import told_by
from chrono_backups.sources.settings import RedisSettings

Effective = Literal["full", "incremental", "differential"]


class RedisSource:
    """A Redis server or cluster, over the network.

    A snapshot of it lists ``dump.rdb``, of a cluster ``shard-1.rdb`` and so on, and what the server told of its
    configuration below ``server/``.
    """

    name: SourceName = "redis"

    def __init__(self, settings: RedisSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""
        return probe(self._settings)

    @contextmanager
    def stream(self, _earlier: Earlier | None, asked: Effective, listener: Listener) -> Iterator[StreamedCapture]:
        """Begin a capture. Raises ``SourceError``."""
        with RedisConnection.open(self._settings, find_server(self._settings)) as connection:
            seen = info(connection, "server", "replication", "cluster", "memory", "modules")
            masters = shards(connection) if seen.get("cluster_enabled") == "1" else []
            told = told_by(connection, listener)
            address = connection.address
        if seen.get("role") == "slave":
            message = "it is a replica: what it has not received yet is not in the backup"
            listener(Finding("redis-replica", "info", "redis", message))
        yield RedisCapture(self._settings, self._clock, address, seen, masters, told, asked)


class RedisCapture:
    """One picture of the dataset; of a cluster, one of each shard after the other."""

    effective: Effective = "full"

    def __init__(
        self,
        settings: RedisSettings,
        clock: Clock,
        address: Address,
        seen: Mapping[str, str],
        masters: list[Shard],
        told: Mapping[str, bytes],
        asked: Effective,
    ) -> None:
        """``seen``: what ``INFO`` said. ``masters``: none for a server that is no cluster's."""
        self.reason = "" if asked == "full" else "Redis is read whole each time; what is unchanged is not stored again"
        self.expected_bytes: int | None = None
        self._settings = settings
        self._clock = clock
        self._address = address
        self._seen = seen
        self._masters = masters
        self._told = told
        self._servers: list[ServerFacts] = []

    def entries(self) -> Iterator[StreamedEntry]:
        """As ``StreamedCapture.entries``. Raises ``SourceError`` where what came is not whole."""
        if not self._masters:
            yield from self._dump(dump_name(0), self._address, None)
        for number, shard in enumerate(self._masters, start=1):
            yield from self._dump(dump_name(number), shard.address, shard)
        moment = int(self._clock.now().timestamp() * 1e9)
        for name, content in sorted(self._told.items()):
            yield StreamedEntry(
                TOLD + b"/" + name.encode(),
                stat.S_IFREG | 0o600,
                size=len(content),
                mtime_ns=moment,
                read_into=_reader(content),
            )

    def _dump(self, name: bytes, address: Address, shard: Shard | None) -> Iterator[StreamedEntry]:
        with RedisConnection.open(self._settings, address) as connection:
            sampler = Sampler(SAMPLED_MOST // max(1, len(self._masters)))
            stream = RdbStream(connection, self._clock, sampler)
            stream.begin()
            moment = int(stream.begun.timestamp() * 1e9)
            yield StreamedEntry(name, stat.S_IFREG | 0o600, size=-1, mtime_ns=moment, read_into=stream.read_into)
            stream.finish()
        self._servers.append(ServerFacts.of(name.decode(), stream, shard, self._seen))

    def facts(self) -> Mapping[str, Any]:
        """As ``StreamedCapture.facts``: the boundary, versions, and what the files hold."""
        if not self._servers:
            raise SourceError("nothing was captured of Redis", source="redis")
        return together(self._servers, self._seen, cluster=bool(self._masters))


def _reader(content: bytes) -> Callable[[memoryview], int]:
    left = memoryview(content)

    def read_into(view: memoryview) -> int:
        nonlocal left
        part = left[: len(view)]
        view[: len(part)] = part
        left = left[len(part) :]
        return len(part)

    return read_into
