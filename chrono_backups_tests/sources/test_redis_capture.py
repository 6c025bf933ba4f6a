"""The source ``redis`` against real servers: what is captured is what the server held, or nothing is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from chrono_backups.errors import BackupFailed, SourceError, SourceUnavailable
from chrono_backups.recovery.browse import read_file
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.redis.connection import BACKUP_RIGHTS
from chrono_backups.sources.redis.source import RedisSource
from chrono_backups.sources.settings import RedisSettings
from chrono_backups_tests.backup.taking import Heard, new_repository, take
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Corrupt, Reset
from chrono_backups_tests.servers.redis import (
    RedisServer,
    certificates,
    fill,
    redis_cluster,
    redis_home,
    redis_server,
    sentinels,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server({"requirepass": "p4ss"}) as running:
        fill(running)
        yield running


@pytest.fixture
def repository() -> Iterator[Repository]:
    with new_repository() as made:
        yield made


def captured(repository: Repository, settings: RedisSettings, heard: Heard | None = None) -> Manifest:
    return take(repository, "full", RedisSource(settings), listener=heard)


def content(repository: Repository, manifest: Manifest, path: str) -> bytes:
    return b"".join(map(bytes, read_file(repository, manifest.backup_id, path, source="redis")))


@contextmanager
def loaded(rdb: bytes, config: dict[str, str] | None = None) -> Iterator[RedisServer]:
    """A server that was started with the file as its data."""
    with redis_home() as home:
        (home / "dump.rdb").write_bytes(rdb)
        found = RedisServer(home, config)
        try:
            yield found.start()
        finally:
            found.stop()


def test_all_of_it_comes_back(server: RedisServer, repository: Repository) -> None:
    heard = Heard()
    manifest = captured(repository, server.settings(), heard)
    assert manifest.status == "complete" and heard.codes == []
    with loaded(content(repository, manifest, "dump.rdb")) as copy:
        assert copy.digest() == server.digest()
        assert copy.client().fcall("twice", 0, 4) == 8
        assert copy.client(3).xinfo_groups("stream") == server.client(3).xinfo_groups("stream")
    facts = manifest.snapshots[0].facts
    (file,) = facts["files"]
    assert file["databases"]["3"]["keys"] == server.client(3).dbsize()
    assert facts["keys"] == sum(server.client(db).dbsize() for db in (0, 3, 15))
    assert file["replication_id"] == server.client().info("replication")["master_replid"]
    assert facts["server_version"].startswith("7.") and facts["rdb_version"] == file["rdb_version"]
    assert file["sample"] and all("name" in one and "digest" in one for one in file["sample"])
    assert b"text:" not in str(facts).encode()
    assert manifest.snapshots[0].effective == "full"


def test_what_the_server_says_of_itself_comes_with_it(server: RedisServer, repository: Repository) -> None:
    manifest = captured(repository, server.settings())
    assert b'"maxmemory"' in content(repository, manifest, "server/config.json")
    assert content(repository, manifest, "server/users.acl").startswith(b"user default on")
    assert b"register_function" in content(repository, manifest, "server/functions.json")
    assert b"redis_version" in content(repository, manifest, "server/server.json")


def test_what_is_unchanged_is_not_stored_again(server: RedisServer, repository: Repository) -> None:
    # Most of the content is without repetitions: where it repeats itself, chunks are as large as the whole of this.
    client, noise = server.client(9), random.Random(9)
    with client.pipeline(transaction=False) as pipe:
        for number in range(80_000):
            pipe.set(f"noise:{number}", noise.randbytes(200))
        pipe.execute()
    first = captured(repository, server.settings())
    client.set("noise:1", noise.randbytes(200))
    second = take(repository, "incremental", RedisSource(server.settings()))
    (one,), (two,) = first.snapshots, second.snapshots
    assert two.effective == "full" and "whole" in two.reason
    assert two.statistics.bytes_total > one.statistics.bytes_total * 0.99
    assert two.statistics.bytes_added < one.statistics.bytes_added * 0.5
    client.flushdb()


def test_an_offset_that_moves_is_recorded(repository: Repository) -> None:
    with redis_server() as running:
        replica = RedisServer(running.home / "replica", lines=f"replicaof 127.0.0.1 {running.port}\n")
        try:
            replica.start()
            running.client().set("a", "b")
            assert running.client(socket_timeout=240).wait(1, 120_000) == 1
            offset = running.client().info("replication")["master_repl_offset"]
            manifest = captured(repository, running.settings())
            assert manifest.snapshots[0].facts["replication_offset"] >= offset > 0
            heard = Heard()
            of_replica = captured(repository, replica.settings(), heard)
            assert "redis-replica" in heard.codes
            assert of_replica.snapshots[0].facts["role"] == "replica"
            assert of_replica.snapshots[0].facts["replication_id"] == manifest.snapshots[0].facts["replication_id"]
        finally:
            replica.stop()


def test_diskless_or_not_is_all_the_same(repository: Repository) -> None:
    with redis_server({"repl-diskless-sync": "no", "rdbchecksum": "no"}) as running:
        fill(running, databases=(0,), rich=False)
        manifest = captured(repository, running.settings())
        with loaded(content(repository, manifest, "dump.rdb")) as copy:
            assert copy.digest() == running.digest()
        assert manifest.snapshots[0].facts["files"][0]["has_checksum"] is False


def test_an_empty_server_is_captured(repository: Repository) -> None:
    with redis_server() as running:
        manifest = captured(repository, running.settings())
        assert manifest.snapshots[0].facts["keys"] == 0
        with loaded(content(repository, manifest, "dump.rdb")) as copy:
            assert copy.client().dbsize() == 0


class TestRights:
    @staticmethod
    def user(server: RedisServer, rights: str) -> RedisSettings:
        server.client().execute_command("ACL", "SETUSER", "backup", "reset", "on", ">s3cret", *rights.split())
        return server.settings(user="backup", password=SecretStr("s3cret"))

    def test_few_rights_are_enough(self, server: RedisServer, repository: Repository) -> None:
        heard = Heard()
        settings = self.user(server, "-@all +sync +replconf +ping +info")
        assert [one.code for one in RedisSource(settings).probe()] == ["redis-ready"]
        manifest = captured(repository, settings, heard)
        assert manifest.status == "complete"
        assert heard.codes == ["redis-configuration-unseen"] and "+acl|list" in heard.findings[0].hint

    def test_the_rights_that_are_told_are_all_that_is_needed(self, server: RedisServer, repository: Repository) -> None:
        heard = Heard()
        captured(repository, self.user(server, f"-@all {BACKUP_RIGHTS}"), heard)
        assert heard.codes == []

    @pytest.mark.parametrize("lacking", ["sync", "replconf", "info"])
    def test_a_right_that_lacks_is_named(self, server: RedisServer, repository: Repository, lacking: str) -> None:
        rights = {"sync", "replconf", "info", "ping"} - {lacking}
        settings = self.user(server, " ".join(["-@all", *(f"+{one}" for one in sorted(rights))]))
        with pytest.raises(BackupFailed, match=rf"(?i){lacking}.*ACL SETUSER|ACL SETUSER"):
            captured(repository, settings)

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"password": SecretStr("wr0ng")}, "BACKUP_REDIS_PASSWORD"),
            ({"password": None}, "BACKUP_REDIS_PASSWORD"),
            ({"user": "nobody", "password": SecretStr("wr0ng")}, "BACKUP_REDIS_USER"),
        ],
    )
    def test_a_wrong_password_is_told_and_never_shown(
        self, server: RedisServer, repository: Repository, more: dict[str, object], said: str
    ) -> None:
        settings = server.settings(**more)
        (finding,) = RedisSource(settings).probe()
        assert (finding.severity, finding.code) == ("error", "redis-refused")
        assert said in finding.hint and "wr0ng" not in str(finding)
        with pytest.raises(BackupFailed, match=said):
            captured(repository, settings)


class TestCut:
    def test_a_connection_cut_anywhere_leaves_nothing(self, server: RedisServer, repository: Repository) -> None:
        size = captured(repository, server.settings()).snapshots[0].facts["files"][0]["bytes"]
        for connection, after in [(0, 0), (0, 9), (1, 0), (1, 14), (1, 30), (1, 100), (1, size // 2), (1, size + 40)]:
            with FaultProxy(server.port, http=False) as proxy:
                proxy.script(Reset(direction="down", after=after, skip=connection))
                with pytest.raises(BackupFailed) as caught:
                    captured(repository, server.settings(port=proxy.port))
                assert "Redis at 127.0.0.1" in str(caught.value), (connection, after)
        assert len(repository.names("manifest")) == 1

    def test_a_byte_that_was_changed_on_the_way_is_seen(self, server: RedisServer, repository: Repository) -> None:
        for position in (70, 300, 100_000, 1_500_000):
            with FaultProxy(server.port, http=False) as proxy:
                proxy.script(Corrupt(direction="down", position=position, mask=0x10, skip=1))
                with pytest.raises(BackupFailed, match=r"no whole RDB|mark|SYNC|closed"):
                    captured(repository, server.settings(port=proxy.port))
        assert repository.names("manifest") == []

    def test_a_server_that_is_not_there_may_be_tried_again(self, repository: Repository) -> None:
        settings = RedisSettings(host="127.0.0.1", port=1)
        (finding,) = RedisSource(settings).probe()
        assert (finding.code, finding.severity) == ("redis-unavailable", "error")
        with pytest.raises(SourceUnavailable), RedisSource(settings).stream(None, "full", Heard()):
            pass

    def test_a_save_that_fails_is_told(self, repository: Repository) -> None:
        with redis_server({"repl-diskless-sync": "no"}) as running:
            running.client().set("a", "b")
            shutil.rmtree(running.home)
            with pytest.raises(BackupFailed, match="Redis at"):
                captured(repository, running.settings())


def test_over_tls(repository: Repository, tmp_path: Path) -> None:
    files = certificates(tmp_path)
    from chrono_backups_tests.servers.ports import free_port

    config = {
        "port": "0", "tls-port": str(free_port()), "tls-ca-cert-file": str(files["ca"]),
        "tls-cert-file": str(files["cert"]), "tls-key-file": str(files["key"]), "tls-auth-clients": "optional",
    }  # fmt: skip
    with redis_server(config) as running:
        fill(running, databases=(0,), rich=False)
        tls = {"port": running.tls_port, "tls": True}
        manifest = captured(repository, running.settings(**tls, tls_ca=files["ca"]))
        assert manifest.snapshots[0].facts["keys"] == running.client().dbsize()
        with pytest.raises(BackupFailed, match="BACKUP_REDIS_TLS_CA"):
            captured(repository, running.settings(**tls))
        with pytest.raises(BackupFailed):
            captured(repository, running.settings(port=running.tls_port))
        running.client().config_set("tls-auth-clients", "yes")
        with pytest.raises(BackupFailed):
            captured(repository, running.settings(**tls, tls_ca=files["ca"]))
        ours = {"tls_ca": files["ca"], "tls_cert": files["cert"], "tls_key": files["key"]}
        assert captured(repository, running.settings(**tls, **ours)).status == "complete"


def test_the_master_is_asked_of_the_sentinels(repository: Repository) -> None:
    with redis_server() as running, sentinels(running) as (sentinel,):
        running.client().set("a", "b")
        words = ("127.0.0.1:1", f"127.0.0.1:{sentinel.port}")  # the first does not answer
        manifest = captured(repository, RedisSettings(sentinels=words))
        assert manifest.snapshots[0].facts["keys"] == 1
        with pytest.raises(BackupFailed, match="BACKUP_REDIS_SENTINEL_MASTER"):
            captured(repository, RedisSettings(sentinels=words, sentinel_master="other"))
    with pytest.raises(SourceUnavailable, match="no Sentinel"):
        RedisSource(RedisSettings(sentinels=words)).stream(None, "full", Heard()).__enter__()


def test_each_master_of_a_cluster(repository: Repository) -> None:
    import redis

    with redis_cluster() as nodes:
        client = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
        for number in range(500):
            client.set(f"key:{number}", number)
        manifest = captured(repository, nodes[1].settings())
        facts = manifest.snapshots[0].facts
        assert facts["mode"] == "cluster" and facts["keys"] == 500
        assert [file["entry"] for file in facts["files"]] == ["shard-1.rdb", "shard-2.rdb", "shard-3.rdb"]
        assert sum(last - first + 1 for file in facts["files"] for first, last in file["slots"]) == 16384
        assert all(content(repository, manifest, file["entry"]).startswith(b"REDIS") for file in facts["files"])
        nodes[2].stop()
        with pytest.raises(BackupFailed, match="Redis"):
            captured(repository, nodes[1].settings())


def test_words_that_are_no_answer_are_a_source_error(repository: Repository) -> None:
    """Something else listens there."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        settings = RedisSettings(host="127.0.0.1", port=listening.getsockname()[1])
        with pytest.raises(SourceError, match="Redis at"), RedisSource(settings).stream(None, "full", Heard()):
            pass
        thread.join()
