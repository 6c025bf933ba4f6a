"""What would keep a Redis server's backups from being good, each with the command that mends it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chrono_backups.errors import SourceError, SourceRefused, SourceUnavailable
from chrono_backups.events import Finding, Severity
from chrono_backups.sources.redis.connection import BACKUP_RIGHTS, RedisConnection, find_server, info, shards
from chrono_backups.sources.redis.told import parameters
from chrono_backups.sources.settings import RedisSettings

_ACTS = ("sync", "replconf")
_LONG_DELAY = 1


def probe(settings: RedisSettings) -> list[Finding]:
    """Every finding about the server, the user's rights and the settings. Raises nothing of a source's own."""
    try:
        with RedisConnection.open(settings, find_server(settings)) as connection:
            seen = info(connection, "server", "replication", "cluster", "memory", "keyspace")
            found = [*_findings(connection, settings, seen)]
            masters = shards(connection) if seen.get("cluster_enabled") == "1" else []
            address = connection.address
        for shard in masters:
            with RedisConnection.open(settings, shard.address) as connection:
                connection.ask("PING")
    except SourceError as error:
        code = "redis-unavailable" if isinstance(error, SourceUnavailable) else "redis-refused"
        return [_finding(code, "error", error.message, error.hint)]
    if not any(one.severity == "error" for one in found):
        what = f"a cluster of {len(masters)} masters" if masters else f"{_keys(seen):,} keys"
        version = seen.get("redis_version", "of unknown version")
        found.append(_finding("redis-ready", "info", f"Redis {version} at {address}: {what}"))
    return found


def _finding(code: str, severity: Severity, message: str, hint: str = "") -> Finding:
    return Finding(code, severity, "redis", message, hint)


def _keys(seen: Mapping[str, str]) -> int:
    lines = [value for name, value in seen.items() if name.startswith("db") and name[2:].isdigit()]
    return sum(int(line.partition("keys=")[2].partition(",")[0] or 0) for line in lines)


def _findings(connection: RedisConnection, settings: RedisSettings, seen: Mapping[str, str]) -> Iterator[Finding]:
    if seen.get("role") == "slave":
        if seen.get("master_link_status") != "up":
            hint = "Mend its replication, or name another server."
            yield _finding("redis-replica-without-master", "error", "it is a replica without its master", hint)
        else:
            yield _finding("redis-replica", "info", "it is a replica: what it lacks of its master is not backed up")
    lacking = _lacking(connection)
    if lacking:
        user = settings.user or "default"
        hint = f"Run on the server: ACL SETUSER {user} {BACKUP_RIGHTS}"
        yield _finding("redis-no-right", "error", f"the user {user} may not run {', '.join(lacking)}", hint)
    try:
        delay = parameters(connection, "repl-diskless-sync-delay").get("repl-diskless-sync-delay", "0")
    except SourceRefused:
        return
    if delay.isdigit() and int(delay) > _LONG_DELAY:
        message = f"each capture begins with {delay} s of waiting: repl-diskless-sync-delay"
        hint = "CONFIG SET repl-diskless-sync-delay 0 ends that; replicas that come together then don't share a save."
        yield _finding("redis-sync-delay", "info", message, hint)


def _lacking(connection: RedisConnection) -> list[str]:
    """The commands of a capture that the user may not run, where the server lets it ask (``ACL DRYRUN``)."""
    lacking = []
    for command in _ACTS:
        try:
            who = connection.ask("ACL", "WHOAMI")
            words = ("rdb-only", "1") if command == "replconf" else ()
            answer = connection.ask("ACL", "DRYRUN", who, command, *words)
            if answer != b"OK":
                lacking.append(command.upper())
        except SourceRefused:  # no right to ask, or a server older than 7
            return []
    return lacking
