"""What a capture of Redis records for whoever restores it or finds out whether it was restored right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.sources.redis.connection import Shard
from chrono_backups.sources.redis.rdb import DatabaseCount, RdbScanner, Sampled
from chrono_backups.sources.redis.rdb_format import TYPES, NoRdb, UnknownPart
from chrono_backups.sources.redis.sync import RdbStream
from chrono_backups.sources.redis.values import digest, key_of, name_of

SAMPLED_MOST = 64


@dataclass(frozen=True)
class ServerFacts:
    """Of one server's RDB file."""

    facts: Mapping[str, Any]
    first: datetime
    """The file is the picture of a moment from here …"""
    last: datetime
    """… to here, by the clock of this machine."""

    @classmethod
    def of(cls, name: str, stream: RdbStream, shard: Shard | None, seen: Mapping[str, str]) -> ServerFacts:
        """``seen``: what ``INFO`` said, of the server or, in a cluster, of one of its servers."""
        scanner = stream.scanner
        aux = scanner.aux
        known = "repl-id" in aux or shard is not None
        facts = {
            "entry": name,
            "bytes": scanner.size,
            "rdb_version": scanner.version,
            "server_version": aux.get("redis-ver") or aux.get("valkey-ver", ""),
            "has_checksum": scanner.has_checksum,
            "replication_id": aux.get("repl-id") if known else seen.get("master_replid"),
            "replication_offset": int(aux.get("repl-offset", 0) if known else seen.get("master_repl_offset", 0)),
            "databases": {str(number): _database(count) for number, count in sorted(scanner.databases.items())},
            "keys": scanner.keys,
            "functions": scanner.functions,
            "has_module_data": scanner.has_module_data,
            "used_memory": int(aux.get("used-mem", 0)),
            "unknown": scanner.unknown,
            "sample": sample(scanner.sampler.kept),
        }
        if shard is not None:
            facts |= {"node": shard.node, "address": str(shard.address), "slots": [list(one) for one in shard.slots]}
        first, last = _moment(stream, scanner, seen if shard is None else {})
        return cls(facts, first, last)


def _moment(stream: RdbStream, scanner: RdbScanner, seen: Mapping[str, str]) -> tuple[datetime, datetime]:
    """When the picture was taken: between asking and the first byte, narrowed by the second that the file names."""
    first, last = stream.asked, stream.begun
    second, clock = scanner.aux.get("ctime", ""), seen.get("server_time_usec", "")
    if second.isdigit() and clock.isdigit():
        # INFO was asked just before: what the clocks differ by is known to within that.
        ahead = int(clock) / 1e6 - stream.asked.timestamp()
        if abs(ahead) < 1:
            taken = datetime.fromtimestamp(int(second), tz=stream.asked.tzinfo)
            first, last = max(first, taken - timedelta(seconds=1)), min(last, taken + timedelta(seconds=2))
    return min(first, last), last


def _database(count: DatabaseCount) -> dict[str, Any]:
    return {"keys": count.keys, "expires": count.expires, "types": count.types()}


def sample(kept: Sequence[Sampled]) -> list[dict[str, Any]]:
    """The sampled keys, without their names: where they stand in the file, and a digest of their content."""
    found = []
    for one in kept:
        try:
            content = digest(one.kind, one.value)
            name = name_of(key_of(one))
        except (UnknownPart, NoRdb):
            continue
        found.append(
            {
                "ordinal": one.ordinal,
                "database": one.database,
                "name": name,
                "type": TYPES[one.kind],
                "expires_ms": one.expires_ms,
                "digest": content,
            }
        )
    return found


def together(servers: Sequence[ServerFacts], seen: Mapping[str, str], *, cluster: bool) -> dict[str, Any]:
    """Of the whole capture; ``servers`` has what each file holds."""
    each = [one.facts for one in servers]
    return {
        "server_version": each[0]["server_version"] or seen.get("redis_version", ""),
        "mode": "cluster" if cluster else "standalone",
        "role": {"slave": "replica"}.get(seen.get("role", ""), seen.get("role", "")),
        "rdb_version": max(one["rdb_version"] for one in each),
        "replication_id": each[0]["replication_id"] if not cluster else None,
        "replication_offset": each[0]["replication_offset"] if not cluster else None,
        "keys": sum(one["keys"] for one in each),
        "types": _types(each),
        "maxmemory_policy": seen.get("maxmemory_policy", ""),
        "modules": seen.get("modules", "").split(),
        "files": each,
        "boundary": {
            "first": to_text(min(one.first for one in servers)),
            "last": to_text(max(one.last for one in servers)),
        },
    }


def _types(each: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in each:
        for database in one["databases"].values():
            found.update(database["types"])
    return dict(sorted(found.items()))
