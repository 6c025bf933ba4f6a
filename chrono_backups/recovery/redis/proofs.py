"""What is asked of a server that a backup was restored to: is it what was captured?

============= ==========================================================================================
`counts`      keys, expiries and types of each database, as they were counted at the capture
`content`     every key, its type, time and content, against the stored file
`sample`      keys by the commands that applications use, against digests that the capture recorded
`functions`   as many libraries
============= ==========================================================================================

Counts and content are read from an RDB file that the restored server makes of what it holds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any
from zlib import crc32

from chrono_backups.clock import Clock
from chrono_backups.events import Finding
from chrono_backups.recovery.postgres.proof import Proof
from chrono_backups.recovery.redis.dumps import Dump
from chrono_backups.sources.redis.connection import RedisConnection, find_server
from chrono_backups.sources.redis.rdb_format import TYPES, NoRdb, UnknownPart
from chrono_backups.sources.redis.records import Record, records
from chrono_backups.sources.redis.sync import RdbStream
from chrono_backups.sources.redis.values import digest, digest_of, name_of, pairs, score
from chrono_backups.sources.settings import RedisSettings

_BUCKETS = 4096
_NAMED_MOST = 20
_PIECE = 1 << 20
Counts = dict[tuple[int, str], int]
"""Database and type → keys."""


class Summary:
    """Of many keys: how many there are, and sums over their content that tell where two of them differ."""

    def __init__(self, keys: Iterable[Record], *, left_out: Callable[[Record], bool] = lambda _one: False) -> None:
        self.types: Counter[tuple[int, str]] = Counter()
        self.expires: Counter[int] = Counter()
        self.sums = [0] * _BUCKETS
        self.compared = self.unknown = 0
        for one in keys:
            if left_out(one):
                continue
            self.types[one.database, TYPES.get(one.kind, "unknown")] += 1
            self.expires[one.database] += one.expires_ms is not None
            content = content_of(one)
            if content is None:
                self.unknown += 1
                continue
            self.compared += 1
            bucket = bucket_of(one)
            self.sums[bucket] = (self.sums[bucket] + int.from_bytes(content, "big")) & 0xFFFFFFFFFFFFFFFF


def bucket_of(one: Record) -> int:
    """Where a key is summed."""
    return crc32(one.key, one.database) % _BUCKETS


def content_of(one: Record) -> bytes | None:
    """Of a key with all that it holds, the same for the same; None for types that are not understood here."""
    try:
        value = digest(one.kind, one.value)
    except UnknownPart:
        return None
    hashed = blake2b(one.key, digest_size=8)
    hashed.update(f"{one.database} {one.expires_ms} {value}".encode())
    return hashed.digest()


def held_by(settings: RedisSettings, clock: Clock) -> Iterator[Record]:
    """All keys of a running server. Raises ``SourceError``."""
    with RedisConnection.open(settings, find_server(settings)) as connection:
        stream = RdbStream(connection, clock)
        stream.begin()
        view = memoryview(bytearray(_PIECE))

        def pieces() -> Iterator[bytes]:
            while count := stream.read_into(view):
                yield bytes(view[:count])
            stream.finish()

        yield from _keys(pieces())


def stored_in(dumps: Sequence[Dump]) -> Iterator[Record]:
    """All keys of a backup. Raises ``Damaged``, ``NoRdb``, ``UnknownPart``."""
    for dump in dumps:
        yield from _keys(dump.pieces())


def _keys(pieces: Iterable[bytes]) -> Iterator[Record]:
    return (one for one in records(pieces) if isinstance(one, Record))


Ask = Callable[[Proof], None]


def check_counts(held: Summary, dumps: Sequence[Dump], expired: int) -> Ask:
    """Whether there are as many keys as were counted at the capture; ``expired`` were left out, as their time is up."""

    def ask(proof: Proof) -> None:
        recorded: Counter[tuple[int, str]] = Counter()
        expires: Counter[int] = Counter()
        for dump in dumps:
            for number, what in dump.databases.items():
                expires[number] += what["expires"]
                recorded.update({(number, kind): count for kind, count in what["types"].items()})
        proof.done = f"{sum(held.types.values()):,} keys in {len({number for number, _ in held.types})} databases"
        if any(dump.facts.get("unknown") for dump in dumps):
            message = "a newer server's file was not counted to its end at the capture"
            proof.findings.append(Finding("drill-not-counted", "info", "counts", message))
            return
        missing = sum(recorded.values()) - sum(held.types.values())
        if expired and missing == expired:
            return
        for number, kind in sorted(recorded.keys() | held.types.keys()):
            was, now = recorded[number, kind], held.types[number, kind]
            if was != now:
                message = f"{now:,} keys of type {kind}, and {was:,} were captured"
                proof.findings.append(Finding("drill-counts-differ", "error", f"database {number}", message))
        for number in sorted(expires.keys() | held.expires.keys()):
            if not expired and expires[number] != held.expires[number]:
                message = f"{held.expires[number]:,} keys that expire, and {expires[number]:,} were captured"
                proof.findings.append(Finding("drill-counts-differ", "error", f"database {number}", message))

    return ask


def check_content(stored: Summary, held: Summary, each: Callable[[], tuple[Iterable[Record], Iterable[Record]]]) -> Ask:
    """Whether every key has the content that is stored. ``each``: both anew, to name what differs."""

    def ask(proof: Proof) -> None:
        proof.done = f"{held.compared:,} keys compared"
        if stored.unknown:
            message = f"{stored.unknown:,} keys are of types that are not understood here, modules' say; not compared"
            proof.findings.append(Finding("drill-not-compared", "info", "content", message))
        wrong = {number for number in range(_BUCKETS) if stored.sums[number] != held.sums[number]}
        if wrong:
            proof.findings += list(_differences(*each(), wrong))

    return ask


def _differences(stored: Iterable[Record], held: Iterable[Record], buckets: set[int]) -> Iterator[Finding]:
    def of(keys: Iterable[Record]) -> dict[tuple[int, bytes], bytes | None]:
        return {(one.database, one.key): content_of(one) for one in keys if bucket_of(one) in buckets}

    was, now = of(stored), of(held)
    named = 0
    for database, key in sorted(was.keys() | now.keys()):
        if was.get((database, key)) == now.get((database, key)):
            continue
        named += 1
        if named > _NAMED_MOST:
            return
        what = "is missing" if (database, key) not in now else "was not captured"
        if (database, key) in was and (database, key) in now:
            what = "has another content, type or time than was captured"
        yield Finding("drill-different", "error", f"database {database}: {_shown(key)}", f"it {what}")
    if not named:
        yield Finding("drill-different", "error", "content", "the sums differ, and no key that does was found")


def _shown(key: bytes) -> str:
    return key[:80].decode("utf-8", "backslashreplace")


def check_sample(settings: RedisSettings, dumps: Sequence[Dump]) -> Ask:
    """Whether keys that were looked at during the capture answer to commands with what they held then."""

    def ask(proof: Proof) -> None:
        asked = 0
        with RedisConnection.open(settings, find_server(settings)) as connection:
            for dump in dumps:
                wanted = {one["ordinal"]: one for one in dump.facts.get("sample", ())}
                for ordinal, one in enumerate(_keys(dump.pieces()) if wanted else ()):
                    recorded = wanted.pop(ordinal, None)
                    if recorded is not None:
                        asked += 1
                        proof.findings += _compared(connection, one, recorded)
                    if not wanted:
                        break
        proof.done = f"{asked} keys asked for, held against what was recorded at the capture"

    return ask


def _compared(connection: RedisConnection, one: Record, recorded: Mapping[str, Any]) -> Iterator[Finding]:
    expires = recorded["expires_ms"]
    if expires is not None and expires <= time.time() * 1000:
        return
    subject = f"database {one.database}: {_shown(one.key)}"
    connection.ask("SELECT", one.database)
    kind = connection.ask("TYPE", one.key).decode()
    if name_of(one.key) != recorded["name"] or kind != recorded["type"]:
        yield Finding("drill-sample-differs", "error", subject, f"it is no {recorded['type']} any more, but {kind}")
    elif digest_of(kind, _asked(connection, kind, one.key)) != recorded["digest"]:
        yield Finding("drill-sample-differs", "error", subject, "its content is not what was captured")
    left = connection.ask("PTTL", one.key)
    now = time.time() * 1000
    if (expires is None) != (left < 0) or (expires is not None and abs(now + left - expires) > 60_000):
        yield Finding("drill-sample-differs", "error", subject, "it expires at another time than was captured")


def _asked(connection: RedisConnection, kind: str, key: bytes) -> Sequence[bytes]:
    match kind:
        case "string":
            return [connection.ask("GET", key)]
        case "list":
            found: list[bytes] = connection.ask("LRANGE", key, 0, -1)
            return found
        case "set":
            return sorted(connection.ask("SMEMBERS", key))
        case "hash":
            flat = connection.ask("HGETALL", key)
            return pairs(zip(flat[::2], flat[1::2], strict=True))
        case "zset":
            flat = connection.ask("ZRANGE", key, 0, -1, "WITHSCORES")
            return pairs((one, score(float(value))) for one, value in zip(flat[::2], flat[1::2], strict=True))
    raise NoRdb(f"a {kind} was sampled")


def check_functions(settings: RedisSettings, dumps: Sequence[Dump], *, cluster: bool) -> Ask:
    """Whether the libraries of functions are there; each shard of a cluster has the same."""

    def ask(proof: Proof) -> None:
        counts = [int(dump.facts.get("functions", 0)) for dump in dumps]
        expected = max(counts) if cluster else sum(counts)
        found = 0
        if expected:
            with RedisConnection.open(settings, find_server(settings)) as connection:
                found = len(connection.ask("FUNCTION", "LIST"))
        proof.done = f"{found} libraries"
        if found != expected:
            message = f"{found} libraries of functions, and {expected} were captured"
            proof.findings.append(Finding("drill-functions-differ", "error", "functions", message))

    return ask
