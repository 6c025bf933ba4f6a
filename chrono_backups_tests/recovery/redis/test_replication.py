"""Restores over replication: the same data, or the old data; and no server that was handed what kills it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chrono_backups.errors import Damaged, RestoreError, SourceError, UsageError
from chrono_backups.recovery.redis import master as small_master
from chrono_backups.recovery.redis.dumps import Dump
from chrono_backups.recovery.redis.master import Master
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.settings import RedisSettings
from chrono_backups_tests.backup.taking import new_repository
from chrono_backups_tests.recovery.redis.taking import captured, handmade, planned, restored, sealed
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Reset
from chrono_backups_tests.servers.ports import free_port
from chrono_backups_tests.servers.redis import RedisServer, certificates, fill, redis_server, sentinels, wait


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
    with redis_server() as running:
        running.client().set("old", "data")
        running.client(7).rpush("older", 1, 2)
        yield running


def is_master(server: RedisServer) -> bool:
    return bool(server.client().info("replication")["role"] == "master")


def untouched(server: RedisServer) -> bool:
    return is_master(server) and server.client().get("old") == b"data" and server.client().dbsize() == 1


def test_everything_is_back_and_nothing_else(
    repository: Repository, backup: Manifest, origin: RedisServer, target: RedisServer
) -> None:
    plan = planned(repository, backup, target.settings())
    assert dict(plan.facts())["how"] == "over replication"
    assert dict(plan.facts())["holds now"] == "2 keys"
    assert untouched(target)
    report = restored(repository, backup, target.settings())
    assert report.findings == [] and report.items == backup.snapshots[0].facts["keys"]
    assert target.digest() == origin.digest()
    for db in (0, 3, 15):
        ours, theirs = target.client(db), origin.client(db)
        assert ours.dbsize() == theirs.dbsize()
        assert ours.pexpiretime("noise:7") == theirs.pexpiretime("noise:7") > 0
        assert ours.xinfo_groups("stream") == theirs.xinfo_groups("stream")
        assert ours.xpending("stream", "readers") == theirs.xpending("stream", "readers")
    assert target.client(7).dbsize() == 0
    assert target.client().fcall("twice", 0, 21) == 42
    assert is_master(target) and target.client().set("new", 1)
    target.restart()  # what was put on its disk is the new data
    assert target.client().dbsize() == origin.client().dbsize()


def test_an_aof_is_rewritten_and_true(repository: Repository, backup: Manifest, origin: RedisServer) -> None:
    with redis_server({"appendonly": "yes"}) as target:
        target.client().set("old", "data")
        report = restored(repository, backup, target.settings())
        assert report.findings == []
        assert target.digest() == origin.digest()
        target.client().set("after", "the restore")
        target.restart()
        assert target.client().get("after") == b"the restore" and target.client().get("old") is None
        target.client().delete("after")
        assert target.digest() == origin.digest()


def test_a_server_that_loads_from_the_wire_saves_what_it_got(
    repository: Repository, backup: Manifest, origin: RedisServer
) -> None:
    with redis_server({"repl-diskless-load": "swapdb"}) as target:
        restored(repository, backup, target.settings())
        target.restart()
        assert target.digest() == origin.digest()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts a proxy between the server and us that misbehaves."""
    proxies: list[FaultProxy] = []
    begin = Master.__init__

    def behind(self: Master, *words: Any, **more: Any) -> None:
        begin(self, *words, **more)
        proxy = FaultProxy(self.port, http=False)
        proxy.__enter__()
        proxy.script(faults.pop())
        proxies.append(proxy)
        self.port = proxy.port

    faults: list[Any] = []
    monkeypatch.setattr(Master, "__init__", behind)
    yield faults.append
    for proxy in proxies:
        proxy.__exit__(None, None, None)


@pytest.mark.parametrize("share", [1e-5, 0.5, 0.999])
def test_a_connection_cut_anywhere_leaves_the_old_data(
    repository: Repository, backup: Manifest, target: RedisServer, cut: Any, share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(small_master, "CONNECT_SECONDS", 3.0)
    size = backup.snapshots[0].facts["files"][0]["bytes"]
    cut(Reset(direction="down", after=int(size * share)))
    with pytest.raises(RestoreError):
        restored(repository, backup, target.settings())
    assert untouched(target)
    target.restart()
    assert target.running


def test_a_handshake_that_is_cut_is_begun_again(
    repository: Repository, backup: Manifest, origin: RedisServer, target: RedisServer, cut: Any
) -> None:
    cut(Reset(direction="down", after=3))
    report = restored(repository, backup, target.settings())
    assert [one.code for one in report.findings] == ["redis-stranger"]
    assert target.digest() == origin.digest()


def test_a_storage_that_fails_midway_leaves_the_old_data(
    repository: Repository, backup: Manifest, target: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(repository, backup, target.settings())
    plan.check()
    keep = Dump.pieces

    def lost(self: Dump) -> Iterator[bytes]:
        yield next(keep(self))
        raise Damaged("a pack is gone", key="packs/x")

    monkeypatch.setattr(Dump, "pieces", lost)
    with pytest.raises(Damaged):
        plan.execute(lambda _event: None)
    assert untouched(target)


def test_an_interruption_leaves_the_old_data(repository: Repository, backup: Manifest, target: RedisServer) -> None:
    def interrupted(_event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restored(repository, backup, target.settings(), listener=interrupted)
    assert untouched(target)


def test_a_server_that_is_killed_midway_is_told_of(
    repository: Repository, backup: Manifest, target: RedisServer
) -> None:
    plan = planned(repository, backup, target.settings())
    plan.check()
    with pytest.raises((RestoreError, SourceError)):
        plan.execute(lambda _event: target.stop())


class TestRefused:
    """Before anything is changed."""

    @pytest.fixture(autouse=True)
    def nothing_is_changed(self, target: RedisServer) -> Iterator[None]:
        yield
        assert target.running and untouched(target)
        assert target.client().info("stats")["sync_full"] == 0

    def test_a_damaged_file_at_any_byte(self, repository: Repository, target: RedisServer) -> None:
        good = sealed(b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfe\x00\xfb\x01\x00\x00\x01a\x01b\xff")
        for at in range(0, len(good), 5):
            wrong = bytearray(good)
            wrong[at] ^= 0x20
            manifest = handmade(repository, bytes(wrong))
            with pytest.raises(Damaged, match="no whole RDB"):
                planned(repository, manifest, target.settings()).check()
        with pytest.raises(Damaged, match="cut off"):
            planned(repository, handmade(repository, good[:-9]), target.settings()).check()

    def test_a_newer_version(self, repository: Repository, target: RedisServer) -> None:
        manifest = handmade(repository, sealed(b"REDIS0012\xfe\x00\x00\x01a\x01b\xff"), rdb_version=12)
        with pytest.raises(RestoreError, match=r"up to version 10.*version 12"):
            planned(repository, manifest, target.settings()).check()

    def test_more_databases_than_it_has(self, repository: Repository, target: RedisServer) -> None:
        databases = {"20": {"keys": 1, "expires": 0, "types": {}}}
        manifest = handmade(repository, sealed(b"REDIS0010\xfe\x14\x00\x01a\x01b\xff"), databases=databases)
        with pytest.raises(RestoreError, match="has no database 20"):
            planned(repository, manifest, target.settings()).check()

    def test_data_of_modules_that_it_lacks(self, repository: Repository, target: RedisServer) -> None:
        manifest = handmade(repository, sealed(b"REDIS0010\xff"), has_module_data=True)
        with pytest.raises(RestoreError, match="lacks the modules"):
            planned(repository, manifest, target.settings()).check()

    def test_less_memory_than_it_takes(self, repository: Repository, backup: Manifest, target: RedisServer) -> None:
        target.client().config_set("maxmemory", "3mb")
        with pytest.raises(RestoreError, match="maxmemory"):
            planned(repository, backup, target.settings()).check()
        target.client().config_set("maxmemory", "0")

    def test_a_wrong_password(self, repository: Repository, backup: Manifest, target: RedisServer) -> None:
        with pytest.raises(SourceError, match="without any password"):
            planned(repository, backup, target.settings(password=SecretStr("wr0ng")))

    def test_a_database_that_the_backup_has_not(
        self, repository: Repository, backup: Manifest, target: RedisServer
    ) -> None:
        from chrono_backups.recovery.in_place import Wanted

        with pytest.raises(UsageError, match="no database 9"):
            planned(repository, backup, target.settings(), Wanted(databases=[9]))

    def test_no_server_that_is_named(self, repository: Repository, backup: Manifest, target: RedisServer) -> None:
        with pytest.raises(UsageError, match="no Redis server is named"):
            planned(repository, backup, RedisSettings())
        with pytest.raises(SourceError, match=r"Redis at 127\.0\.0\.1:1"):
            planned(repository, backup, RedisSettings(host="127.0.0.1", port=1))

    def test_a_way_back_that_leads_nowhere(
        self, repository: Repository, backup: Manifest, target: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(small_master, "CONNECT_SECONDS", 1.0)
        settings = target.settings(restore_address="127.0.0.2", restore_port=free_port())
        monkeypatch.setattr(Master, "__init__", _deaf(Master.__init__))
        with pytest.raises(RestoreError, match="did not connect"):
            restored(repository, backup, settings)


def _deaf(begin: Any) -> Any:
    def begin_deaf(self: Master, *words: Any, **more: Any) -> None:
        begin(self, *words, **more)
        self.port = 1

    return begin_deaf


def test_a_replica_is_refused(repository: Repository, backup: Manifest, target: RedisServer) -> None:
    replica = RedisServer(target.home / "replica", lines=f"replicaof 127.0.0.1 {target.port}\n")
    try:
        replica.start()
        with pytest.raises(RestoreError, match="is a replica"):
            planned(repository, backup, replica.settings()).check()
        wait(lambda: replica.client().info("replication")["master_link_status"] == "up", "a replica")
        plan = planned(repository, backup, target.settings())
        assert [one.code for one in plan.findings] == ["redis-replicas"]
        plan.check()
        plan.execute(lambda _event: None)
        wait(lambda: replica.digest() == target.digest(), "a replica that follows")
    finally:
        replica.stop()


def test_a_masterauth_is_warned_of(repository: Repository, backup: Manifest, origin: RedisServer) -> None:
    with redis_server({"masterauth": "s3cret", "masteruser": "someone"}) as target:
        plan = planned(repository, backup, target.settings())
        assert [one.code for one in plan.findings] == ["redis-masterauth"]
        assert "s3cret" not in str(plan) + str(plan.to_json())
        plan.check()
        plan.execute(lambda _event: None)
        assert target.digest() == origin.digest()


def test_nobody_else_gets_the_data(
    repository: Repository, backup: Manifest, target: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers: list[socket.socket] = []
    begin = Master.__init__

    def ask(self: Master, *words: Any, **more: Any) -> None:
        """Before the server was told to connect."""
        begin(self, *words, **more)
        for said in (b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            strangers.append(socket.create_connection((self.host, self.port)))
            strangers[-1].sendall(said)

    monkeypatch.setattr(Master, "__init__", ask)
    report = restored(repository, backup, target.settings())
    assert [one.code for one in report.findings] == ["redis-stranger"] * 2
    answers = []
    for stranger in strangers:
        stranger.settimeout(10)
        with suppress(ConnectionResetError):
            answers.append(stranger.recv(100))
        stranger.close()
    assert answers[0].startswith(b"-ERR") and not any(answers[1:])


def test_a_server_that_speaks_tls_to_its_master(
    repository: Repository, backup: Manifest, origin: RedisServer, tmp_path: Path
) -> None:
    files = certificates(tmp_path)
    config = {
        "port": "0", "tls-port": str(free_port()), "tls-ca-cert-file": str(files["ca"]), "tls-replication": "yes",
        "tls-cert-file": str(files["cert"]), "tls-key-file": str(files["key"]), "tls-auth-clients": "no",
    }  # fmt: skip
    with redis_server(config) as target:
        reached = {"port": target.tls_port, "tls": True, "tls_ca": files["ca"]}
        ours = target.settings(**reached, tls_cert=files["cert"], tls_key=files["key"])
        assert dict(planned(repository, backup, ours).facts())["how"] == "over replication"
        restored(repository, backup, ours)
        assert target.digest() == origin.digest()
        without = planned(repository, backup, target.settings(**reached))
        assert "speaks TLS" in dict(without.facts())["how"]


def test_what_sentinels_watch_is_restored_key_by_key(
    repository: Repository, backup: Manifest, origin: RedisServer, target: RedisServer
) -> None:
    with sentinels(target) as (sentinel,):
        settings = RedisSettings(sentinels=(f"127.0.0.1:{sentinel.port}",))
        assert "Sentinels" in dict(planned(repository, backup, settings).facts())["how"]
        restored(repository, backup, settings)
        assert target.digest() == origin.digest()
