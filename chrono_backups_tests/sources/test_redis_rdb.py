"""Reading RDB files: what is whole is told from what is not, in pieces of any size, and every type is counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.sources.redis import rdb as scanning
from chrono_backups.sources.redis.crc64 import crc64
from chrono_backups.sources.redis.rdb import RdbScanner, Sampler
from chrono_backups.sources.redis.rdb_format import NoRdb
from chrono_backups.sources.redis.rdb_strings import read_string
from chrono_backups.sources.redis.values import digest, digest_of, key_of, pairs, score
from chrono_backups_tests.servers.redis import RedisServer, fill, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        fill(running)
        yield running


@pytest.fixture(scope="module")
def file(server: RedisServer) -> bytes:
    server.client().save()
    return (server.home / "dump.rdb").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with redis_server() as running:
        client = running.client()
        client.set("a", "1")
        client.hset("b", mapping={"x": "y" * 50})
        client.pexpire("b", 10**9)
        client.xadd("s", {"f": "v"})
        client.save()
        return (running.home / "dump.rdb").read_bytes()


def scanned(content: bytes, step: int = 1 << 20, most: int = 0) -> RdbScanner:
    scanner = RdbScanner(Sampler(most))
    for at in range(0, len(content), step):
        scanner.feed(content[at : at + step])
    scanner.finish()
    return scanner


def counts(scanner: RdbScanner) -> dict[int, tuple[int, int, dict[str, int]]]:
    return {number: (one.keys, one.expires, one.types()) for number, one in scanner.databases.items()}


def sealed(content: bytes) -> bytes:
    return content + crc64(content).to_bytes(8, "little")


def test_the_checksum_is_redis_own() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"56789", crc64(b"1234")) == 0xE9C6D914C4B8D9CA


def test_keys_are_counted_as_the_server_counts_them(server: RedisServer, file: bytes) -> None:
    scanner = scanned(file)
    keyspace = server.client().info("keyspace")
    assert counts(scanner).keys() == {0, 3, 15}
    for number, (keys, expires, types) in counts(scanner).items():
        assert {"keys": keys, "expires": expires}.items() <= keyspace[f"db{number}"].items()
        client = server.client(number)
        for name, count in types.items():
            assert count == len(list(client.scan_iter(count=1000, _type=name)))
    assert scanner.functions == 1 and scanner.has_checksum and not scanner.unknown


@pytest.mark.parametrize("step", [1 << 24, 1 << 16, 4097, 311])
def test_pieces_of_any_size_give_the_same(file: bytes, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_LARGE", 2000)  # so that many are skipped piece by piece
    whole, pieces = scanned(file), scanned(file, step)
    assert counts(pieces) == counts(whole)
    assert pieces.keys == whole.keys == sum(one.keys for one in whole.databases.values())


def test_any_byte_that_is_another_one_is_seen(small: bytes) -> None:
    for at in range(len(small)):
        for mask in (0x01, 0x80):
            wrong = bytearray(small)
            wrong[at] ^= mask
            with pytest.raises(NoRdb):
                scanned(bytes(wrong))


def test_a_file_cut_anywhere_is_seen(small: bytes, file: bytes) -> None:
    for end in [*range(len(small)), len(small) - 8]:
        with pytest.raises(NoRdb):
            scanned(small[:end])
    for end in random.Random(1).sample(range(len(file)), 20):
        with pytest.raises(NoRdb):
            scanned(file[:end])


def test_what_is_behind_the_end_is_seen(small: bytes) -> None:
    with pytest.raises(NoRdb):
        scanned(small + b"\0")


def test_without_checksum_the_structure_alone_is_proven(small: bytes) -> None:
    plain = small[:-8] + bytes(8)
    assert not scanned(plain).has_checksum
    with pytest.raises(NoRdb):
        scanned(plain[: len(plain) // 2] + bytes(8))


def test_unknown_parts_are_named_and_the_checksum_still_proven() -> None:
    newer = sealed(b"REDIS0099\xfe\x00\x00\x01a\x01b\x63\x01c\x01d\xff")
    scanner = scanned(newer)
    assert scanner.unknown == "type 99" and scanner.version == 99 and scanner.keys == 1
    with pytest.raises(NoRdb, match="checksum"):
        scanned(newer[:-1] + b"\0")
    with pytest.raises(NoRdb, match="not known here"):
        scanned(newer[:-8] + bytes(8))


@pytest.mark.parametrize("content", [b"", b"REDIS", b"REDIS0004\xff" + bytes(8), b"PK\x03\x04" * 9, b"REDIS00x1" * 3])
def test_what_is_no_rdb_is_refused(content: bytes) -> None:
    with pytest.raises(NoRdb):
        scanned(content)


def test_compressed_strings_that_make_no_sense_are_refused() -> None:
    for content in (b"\xc3\x03\x05\xe0\x00\x00", b"\xc3\x02\x05\x04a", b"\xc3\x02\x05\x00a"):
        with pytest.raises(NoRdb):
            read_string(content, 0)


def test_the_sample_comes_from_all_over_the_file_and_digests_content(server: RedisServer, file: bytes) -> None:
    scanner = scanned(file, most=200)
    kept = scanner.sampler.kept
    assert 100 <= len(kept) <= 200
    assert {one.database for one in kept} == {0, 3, 15}
    assert [one.ordinal for one in scanned(file, 5000, most=200).sampler.kept] == [one.ordinal for one in kept]
    for one in kept:
        client = server.client(one.database)
        assert digest(one.kind, one.value) == digest_of(*asked(client, key_of(one)))
        assert (one.expires_ms or -1) == client.execute_command("PEXPIRETIME", key_of(one))


def asked(client: Any, key: bytes) -> tuple[str, list[bytes]]:
    kind = client.type(key).decode()
    match kind:
        case "string":
            return kind, [client.get(key)]
        case "list":
            return kind, client.lrange(key, 0, -1)
        case "set":
            return kind, sorted(client.smembers(key))
        case "hash":
            return kind, pairs(client.hgetall(key).items())
        case _:
            return kind, pairs((member, score(one)) for member, one in client.zrange(key, 0, -1, withscores=True))


def test_old_encodings_are_read(tmp_path: Path) -> None:
    ziplist = b"\0" * 8 + b"\2\0" + b"\0\1a" + b"\3\xfe\x85" + b"\2\xf3" + b"\xff"
    content = b"REDIS0006\xfe\x00" + b"\x0a\1l" + bytes([len(ziplist)]) + ziplist
    content += b"\x03\1z\1\1m\x043.50" + b"\xff"
    scanner = scanned(sealed(content), most=5)
    assert counts(scanner) == {0: (2, 0, {"list": 1, "zset": 1})}
    kept = scanner.sampler.kept[0]
    assert digest(kept.kind, kept.value) == digest_of("list", [b"a", b"-123", b"2"])
