"""Drills of Redis: what is right is proven, one key that is not is told, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from chrono_backups.errors import RestoreError
from chrono_backups.recovery.checks.syntax import parse_checks
from chrono_backups.recovery.drill import drill
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport
from chrono_backups.recovery.redis import drill as drilling
from chrono_backups.recovery.redis import throwaway as throwing_away
from chrono_backups.recovery.redis.restore import RedisPlan
from chrono_backups.repository.evidence import proven
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups_tests.backup.taking import Heard, new_repository
from chrono_backups_tests.recovery.redis.taking import captured, handmade, sealed
from chrono_backups_tests.servers.redis import RedisServer, fill, redis_cluster, redis_server


@pytest.fixture(scope="module")
def origin() -> Iterator[RedisServer]:
    # Other limits than the drill's server has: what is packed here is a table there.
    with redis_server({"hash-max-listpack-entries": "4", "set-max-intset-entries": "4"}) as running:
        fill(running, rich=False)
        running.client().execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        running.client().set("gone soon", "x", px=1)
        yield running


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    with new_repository() as made:
        yield made


@pytest.fixture(scope="module")
def backup(repository: Repository, origin: RedisServer) -> Manifest:
    return captured(repository, origin)


def drilled(repository: Repository, manifest: Manifest, place: Path, **more: Any) -> DrillReport:
    report = drill(repository, manifest, DrillOptions(place=place, **more), listener=Heard())
    assert list(place.iterdir()) == []
    return report


def errors(report: DrillReport) -> list[str]:
    (source,) = report.sources
    found = [*source.findings, *(one for proof in source.proofs for one in proof.findings)]
    return [f"{one.code} {one.subject}" for one in found if one.severity == "error"]


def test_a_good_backup_is_proven(repository: Repository, backup: Manifest, tmp_path: Path) -> None:
    report = drilled(repository, backup, tmp_path)
    assert errors(report) == [] and report.proven
    (source,) = report.sources
    keys = backup.snapshots[0].facts["keys"]
    told = {proof.name: proof.done for proof in source.proofs}
    assert told["content"] == f"{keys:,} keys compared"
    assert told["counts"] == f"{keys:,} keys in 3 databases" and told["functions"] == "1 libraries"
    assert int(told["sample"].split()[0]) > 30
    assert source.ready_seconds > 0
    assert backup.backup_id in proven(repository)


def spoil(monkeypatch: pytest.MonkeyPatch, what: Callable[[redis.Redis], object], db: int = 3) -> None:
    """Change the restored server before it is looked at."""
    keep = RedisPlan.execute

    def execute(self: RedisPlan, *words: Any) -> Any:
        report = keep(self, *words)
        settings = self.stores.redis
        assert settings.password is not None
        what(redis.Redis(port=settings.port, password=settings.password.get_secret_value(), db=db, protocol=2))
        return report

    monkeypatch.setattr(RedisPlan, "execute", execute)


def alter(client: redis.Redis) -> None:
    client.set("text:7", "altered")
    client.delete("hash:7")
    client.hset("hash:8", "field 1", "altered")
    client.zadd("scores:9", {"m1": 99})
    client.pexpire("text:9", 10**10)
    client.xdel("stream", "9-1")
    client.set("more", "x")


def test_altered_keys_are_told(
    repository: Repository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, alter)
    report = drilled(repository, backup, tmp_path)
    assert not report.good
    keys = ("hash:7", "hash:8", "more", "scores:9", "stream", "text:7", "text:9")
    found = [one for one in errors(report) if one.startswith("drill-different")]
    assert found == [f"drill-different database 3: {key}" for key in keys]


def test_one_altered_key_is_told(
    repository: Repository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda client: client.lset("list:5", 3, "altered"), db=0)
    report = drilled(repository, backup, tmp_path)
    assert "drill-different database 0: list:5" in errors(report) and not report.proven


def test_functions_that_are_gone_are_told(
    repository: Repository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda client: client.function_flush())
    assert errors(drilled(repository, backup, tmp_path)) == ["drill-functions-differ functions"]


def test_what_was_recorded_and_is_not_stored_is_told(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server() as running:
        for number in range(5):
            running.client().hset(f"hash:{number}", mapping={"a": number})
        manifest = captured(repository, running)
    file = manifest.snapshots[0].facts["files"][0]
    for name, value in (("digest", "00"), ("name", "00"), ("type", "list"), ("expires_ms", 10**14)):
        with monkeypatch.context() as patched:
            patched.setitem(file["sample"][2], name, value)
            assert [said.split()[0] for said in errors(drilled(repository, manifest, tmp_path))] == [
                "drill-sample-differs"
            ]
    monkeypatch.setitem(file["databases"]["0"], "types", {"string": 5})
    assert errors(drilled(repository, manifest, tmp_path)) == ["drill-counts-differ database 0"] * 2


def test_a_damaged_file_is_not_proven(repository: Repository, tmp_path: Path) -> None:
    wrong = sealed(b"REDIS0010\xfe\x00\x00\x01a\x01b\xff")[:-1] + b"\x00"
    report = drilled(repository, handmade(repository, wrong), tmp_path)
    assert not report.proven and errors(report) == ["drill-damaged redis"]


def test_a_cluster_is_drilled_in_one_server(repository: Repository, tmp_path: Path) -> None:
    with redis_cluster() as nodes:
        client = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
        for number in range(200):
            client.hset(f"key:{number}", mapping={"a": number})
        client.set("soon", "x", px=1)
        manifest = captured(repository, nodes[0])
    report = drilled(repository, manifest, tmp_path)
    assert errors(report) == [] and report.proven


def test_the_operators_checks_are_asked(repository: Repository, backup: Manifest, tmp_path: Path) -> None:
    keys = backup.snapshots[0].facts["files"][0]["databases"]["3"]["keys"]
    checks = parse_checks(f'size: redis(3) "DBSIZE" == {keys}\ntext: redis "GET \'text:0\'" == "0 some words "\n')
    assert drilled(repository, backup, tmp_path, checks=checks).good
    wrong = parse_checks('size: redis(3) "DBSIZE" == 1')
    assert not drilled(repository, backup, tmp_path, checks=wrong).good


class TestPrograms:
    def test_one_that_lacks_is_told_before_anything(
        self, repository: Repository, backup: Manifest, tmp_path: Path
    ) -> None:
        with pytest.raises(RestoreError, match="needs redis-server") as caught:
            drill(repository, backup, DrillOptions(place=tmp_path, redis_programs=[tmp_path]))
        assert "BACKUP_REDIS_BIN_DIR" in caught.value.hint and list(tmp_path.iterdir()) == []

    def test_one_that_is_too_old(
        self, repository: Repository, backup: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(drilling, "program_version", lambda _program: (6, 2))
        with pytest.raises(RestoreError, match="needs a newer one"):
            drill(repository, backup, DrillOptions(place=tmp_path))

    @pytest.mark.parametrize("said", ["exit 1", "echo something else", "echo 'Redis server v=7.0.15'; exit 1"])
    def test_one_that_is_none(self, tmp_path: Path, said: str) -> None:
        program = tmp_path / "redis-server"
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
        with pytest.raises(RestoreError), throwing_away.throwaway(program, tmp_path / "d", 1):
            pass
