"""Keys put back one by one: into clusters, where replication is refused, or a part; old data or new, never neither."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from chrono_backups.errors import Damaged, RestoreError, SourceError
from chrono_backups.recovery.in_place import Wanted
from chrono_backups.recovery.redis.dumps import Dump
from chrono_backups.recovery.redis.keys import PREFIX, staged_name
from chrono_backups.recovery.redis.pipe import slot_of
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.redis.key_patterns import matcher
from chrono_backups.sources.redis.rdb_format import NoRdb
from chrono_backups.sources.redis.records import Record, records
from chrono_backups_tests.backup.taking import new_repository
from chrono_backups_tests.recovery.redis.taking import captured, planned, restored
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Reset
from chrono_backups_tests.servers.redis import RedisServer, fill, redis_cluster, redis_server


@pytest.fixture(scope="module")
def origin() -> Iterator[RedisServer]:
    with redis_server() as running:
        fill(running)
        yield running


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    with new_repository() as made:
        yield made


@pytest.fixture(scope="module")
def backup(repository: Repository, origin: RedisServer) -> Manifest:
    return captured(repository, origin)


@pytest.fixture
def target() -> Iterator[RedisServer]:
    """A server whose user may do all but replicate, as managed ones are."""
    with redis_server({"appendonly": "yes"}) as running:
        running.client().set("old", "data")
        running.client().execute_command("ACL", "SETUSER", "app", "on", ">s3cret", "~*", "&*", "+@all", "-replicaof")
        yield running


def managed(server: RedisServer, **more: Any) -> Any:
    return server.settings(user="app", password=SecretStr("s3cret"), **more)


def ours_left(server: RedisServer, databases: tuple[int, ...] = (0, 3, 15)) -> list[bytes]:
    return [key for db in databases for key in server.client(db).scan_iter(match=PREFIX + b"*", count=10_000)]


def test_everything_where_replication_is_refused(
    repository: Repository, backup: Manifest, origin: RedisServer, target: RedisServer
) -> None:
    plan = planned(repository, backup, managed(target))
    assert "REPLICAOF is not to be had" in dict(plan.facts())["how"]
    target.client(9).set("other", "database")
    report = restored(repository, backup, managed(target))
    assert report.items == backup.snapshots[0].facts["keys"]
    assert report.details["removed"] == 2 and report.details["libraries"] == 1
    assert target.digest() == origin.digest()
    assert target.client().fcall("twice", 0, 21) == 42
    for db in (0, 3):
        assert target.client(db).pexpiretime("noise:9") == origin.client(db).pexpiretime("noise:9") > 0
    target.restart()
    assert target.digest() == origin.digest()


def test_a_part_by_patterns_and_databases(
    repository: Repository, backup: Manifest, origin: RedisServer, target: RedisServer
) -> None:
    target.client(3).set("text:1", "other")
    target.client(3).set("mine", "stays")
    report = restored(repository, backup, target.settings(), Wanted(patterns=["text:1*", "odd*"], databases=[3]))
    chosen = [f"text:{number}" for number in (1, *range(10, 20))]
    assert report.items == len(chosen) + 1
    assert sorted(target.client(3).keys()) == sorted([b"mine", b"odd \x00\xff{key}", *map(str.encode, chosen)])
    assert all(target.client(3).get(key) == origin.client(3).get(key) for key in chosen)
    assert target.client().keys() == [b"old"]
    report = restored(repository, backup, target.settings(), Wanted(databases=[15]))
    assert target.client(15).dbsize() == origin.client(15).dbsize() == report.items
    assert target.client(3).get("mine") == b"stays"


def test_a_key_whose_time_has_passed_is_left_out(repository: Repository, target: RedisServer) -> None:
    with redis_server() as running:
        running.client().execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        running.client().set("gone", "x", px=1)
        running.client().set("here", "x", px=10**9)
        manifest = captured(repository, running)
    report = restored(repository, manifest, managed(target))
    assert (report.items, report.details["expired"]) == (1, 1)
    assert target.client().keys() == [b"here"]


class TestInterrupted:
    def test_a_cut_before_the_last_step_leaves_the_old_data(
        self, repository: Repository, backup: Manifest, target: RedisServer
    ) -> None:
        for after in (2_000, 500_000, 3_000_000):
            with FaultProxy(target.port, http=False) as proxy:
                plan = planned(repository, backup, managed(target, port=proxy.port))
                plan.check()
                proxy.script(Reset(direction="up", after=after))
                with pytest.raises((RestoreError, SourceError), match="untouched"):
                    plan.execute(lambda _event: None)
            assert target.client().keys() == [b"old"] and ours_left(target) == []

    def test_a_storage_that_fails_leaves_the_old_data(
        self, repository: Repository, backup: Manifest, target: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = planned(repository, backup, managed(target))
        plan.check()
        keep = Dump.pieces

        def lost(self: Dump) -> Iterator[bytes]:
            yield next(keep(self))
            raise Damaged("a pack is gone", key="packs/x")

        monkeypatch.setattr(Dump, "pieces", lost)
        with pytest.raises(Damaged):
            plan.execute(lambda _event: None)
        assert target.client().keys() == [b"old"] and ours_left(target) == []

    def test_a_server_that_is_full_keeps_the_old_data(
        self, repository: Repository, backup: Manifest, target: RedisServer
    ) -> None:
        target.client().config_set("maxmemory", "12mb")
        with pytest.raises(RestoreError, match="maxmemory"):
            planned(repository, backup, managed(target)).check()
        plan = planned(repository, backup, managed(target), Wanted(patterns=["*"]))
        plan.check()
        with pytest.raises(RestoreError, match="OOM") as caught:
            plan.execute(lambda _event: None)
        assert "maxmemory" in caught.value.hint
        assert target.client().keys() == [b"old"] and ours_left(target) == []

    def test_the_last_step_is_finished_by_doing_it_again(
        self, repository: Repository, backup: Manifest, origin: RedisServer, target: RedisServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        plan = planned(repository, backup, managed(target))
        plan.check()

        def interrupted(event: Any) -> None:
            if event.operation == "rename":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            plan.execute(interrupted)
        assert ours_left(target) and target.client().get("old") is None
        restored(repository, backup, managed(target))
        assert target.digest() == origin.digest()

    def test_want_of_rights_is_told(self, repository: Repository, backup: Manifest, target: RedisServer) -> None:
        target.client().execute_command("ACL", "SETUSER", "app", "-restore")
        with pytest.raises(RestoreError, match="restore") as caught:
            restored(repository, backup, managed(target))
        assert "+restore" in caught.value.hint and target.client().keys() == [b"old"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisServer]]:
    with redis_cluster() as found:
        yield found


class TestClusters:
    @pytest.fixture
    def client(self, nodes: list[RedisServer]) -> redis.RedisCluster:
        found = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
        found.flushall()
        return found

    def test_into_a_cluster_and_out_of_it(
        self, repository: Repository, nodes: list[RedisServer], client: redis.RedisCluster, target: RedisServer
    ) -> None:
        with redis_server() as single:
            fill(single, databases=(0,), rich=False)
            for key in (b"a}b", b"}", b"", b"{}x", b"{user}:1", b"x{}y{z}"):
                single.client().set(key, b"odd")
            manifest = captured(repository, single)
            client.set("old", "data")
            report = restored(repository, manifest, nodes[1].settings())
            assert report.items == single.client().dbsize() == sum(node.client().dbsize() for node in nodes)
            assert client.get("old") is None and client.get(b"a}b") == b"odd" == client.get(b"")
            digests = [int(node.digest(), 16) for node in nodes]
            assert digests[0] ^ digests[1] ^ digests[2] == int(single.digest(), 16)
            again = captured(repository, nodes[2])
            assert again.snapshots[0].facts["mode"] == "cluster"
            plan = planned(repository, again, managed(target))
            assert "of a cluster" in dict(plan.facts())["how"]
            restored(repository, again, managed(target))
            assert target.digest() == single.digest()

    def test_more_databases_than_a_cluster_has(
        self, repository: Repository, backup: Manifest, nodes: list[RedisServer], client: redis.RedisCluster
    ) -> None:
        client.set("old", "data")
        with pytest.raises(RestoreError, match="database 0 only"):
            planned(repository, backup, nodes[0].settings()).check()
        assert client.get("old") == b"data"
        restored(repository, backup, nodes[0].settings(), Wanted(databases=[0]))
        assert client.get("text:1") is not None and client.get("old") is None

    def test_a_node_that_fails_midway_leaves_the_old_data_elsewhere(
        self, repository: Repository, backup: Manifest, nodes: list[RedisServer], client: redis.RedisCluster,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        for number in range(30):
            client.set(f"old:{number}", "data")
        plan = planned(repository, backup, nodes[0].settings(), Wanted(databases=[0]))
        plan.check()
        keep = Dump.pieces

        def lost(self: Dump) -> Iterator[bytes]:
            yield from [piece for piece, _ in zip(keep(self), range(2), strict=False)]
            raise Damaged("a pack is gone", key="packs/x")

        monkeypatch.setattr(Dump, "pieces", lost)
        with pytest.raises(Damaged):
            plan.execute(lambda _event: None)
        held = sorted(key for node in nodes for key in node.client().scan_iter())
        assert held == sorted(f"old:{number}".encode() for number in range(30))


def test_names_to_wait_under_fall_into_the_same_slot() -> None:
    assert slot_of(b"123456789") == 12739
    for key in (b"a", b"{user}:1", b"a{b", b"x{y}z{q}", b"foo{{bar}}zap", b"foo{bar}{zap}", b"{x}"):
        name = staged_name(key)
        assert name is not None and slot_of(name) == slot_of(key)
    assert staged_name(b"a}b") is staged_name(b"") is staged_name(b"{}x}") is None


def test_a_file_in_pieces_of_any_size_gives_the_same_keys(repository: Repository, origin: RedisServer) -> None:
    origin.client().save()
    content = (origin.home / "dump.rdb").read_bytes()

    def keys(step: int) -> list[Any]:
        return list(records(content[at : at + step] for at in range(0, len(content), step)))

    whole = keys(1 << 24)
    assert keys(50_001) == whole and keys(997) == whole
    found = [one for one in whole if isinstance(one, Record) and one.key == b"large"]
    assert len(found) == 3
    with pytest.raises(NoRdb):
        list(records([content[: len(content) // 2]]))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("user:*", [b"user:", b"user:1", b"user:\n"], [b"usr:1", b"xuser:1"]),
        ("h?llo", [b"hello", b"h\xffllo"], [b"hllo"]),
        ("h[ae]llo", [b"hello", b"hallo"], [b"hillo"]),
        ("h[^e]llo", [b"hallo"], [b"hello"]),
        ("h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        ("a\\*b", [b"a*b"], [b"axb"]),
        ("a.b", [b"a.b"], [b"axb"]),
        ("x[", [b"x["], [b"x"]),
    ],
)
def test_patterns_are_the_servers(origin: RedisServer, pattern: str, yes: list[bytes], no: list[bytes]) -> None:
    takes = matcher([pattern])
    assert all(map(takes, yes)) and not any(map(takes, no))
    client = origin.client(12)
    client.flushdb()
    for key in yes + no:
        client.set(key, 1)
    if "x[" not in pattern:
        assert sorted(client.keys(pattern)) == sorted(yes)
    assert matcher([])(b"anything") and matcher(["z", pattern])(b"z")
