"""Redis in Dagster: an asset that is observed, captured with the others, its numbers on the backup, drilled."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from chrono_backups_tests.orchestration.site import Site, facts, failures
from chrono_backups_tests.servers.redis import RedisServer, fill, redis_server

STORE = dg.AssetKey("redis_store")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        fill(running, databases=(0, 4), rich=False)
        yield running


@pytest.fixture(scope="module")
def site(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("redis-site")
    data = home / "data"
    data.mkdir()
    (data / "readme.txt").write_text("hello\n")
    key = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    environment = {
        "BACKUP_LOCAL_PATH": str(home / "repository"), "BACKUP_ENCRYPTION_KEY": key,
        "BACKUP_FILES_PATHS": str(data), "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(home)
        made = Site(home, data, Path("/nowhere"), key, instance)
        made.application().create_repository().close()
        yield made


def observed(site: Site) -> dict[str, object]:
    observation = site.instance.fetch_observations(STORE, limit=1).records[0].asset_observation
    assert observation is not None
    return {name: value.value for name, value in observation.metadata.items()}


def test_it_is_observed(site: Site, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.launch("observe_sources").success
    seen = observed(site)
    assert seen["keys"] == server.client(0).dbsize() + server.client(4).dbsize()
    assert seen["reachable"] is True and seen["mode"] == "master"
    assert seen["replication_id"] == server.client().info("replication")["master_replid"]
    monkeypatch.setenv("REDIS_PORT", "1")
    assert site.launch("observe_sources").success
    assert observed(site)["reachable"] is False


def test_a_backup_tells_of_it(site: Site, server: RedisServer) -> None:
    result = site.backup("full")
    assert result.success, failures(result)
    shown = facts(site.materializations("full")[0])
    assert shown["redis_keys"] == server.client(0).dbsize() + server.client(4).dbsize()
    assert shown["redis_replication_id"] == server.client().info("replication")["master_replid"]
    assert "text:" not in str(shown)
    (manifest,) = site.backups()
    assert {one.source for one in manifest.snapshots} == {"redis", "files", "configuration"}


def test_trees_in_place_leave_stores_alone(site: Site, server: RedisServer) -> None:
    before = server.digest()
    (site.data / "readme.txt").write_text("spoilt\n")
    config = {"in_place": True, "sources": ["files"], "safety_backup": False}
    result = site.launch("restore_backup", config=config)
    assert result.success, failures(result)
    assert (site.data / "readme.txt").read_text() == "hello\n" and server.digest() == before
    assert not Path("/dump.rdb").exists()
