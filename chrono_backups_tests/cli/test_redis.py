"""Redis from the command line: captured, shown, restored in place after a safety backup, and drilled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups_tests.cli.conftest import Site
from chrono_backups_tests.servers.redis import RedisServer, fill, redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server({"requirepass": "s3cret"}) as running:
        fill(running, databases=(0, 2), rich=False)
        yield running


@pytest.fixture
def backed_up(site: Site, server: RedisServer) -> Site:
    del site.settings["BACKUP_FILES_PATHS"]
    site.settings |= {
        "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port), "BACKUP_REDIS_PASSWORD": "s3cret",
    }  # fmt: skip
    site.run("init")
    assert "keys" in site.run("validate").text
    site.run("backup")
    return site


def test_all_of_it_a_part_and_as_a_file(backed_up: Site, server: RedisServer, tmp_path: Path) -> None:
    before = server.digest()
    shown = backed_up.run("show", "latest")
    assert "replication offset" in shown.text and "s3cret" not in shown.text
    server.client().set("text:1", "spoilt")
    server.client().delete("list:2")
    after = server.digest()
    dry = backed_up.json("restore", "latest", "--in-place", "--source", "redis", "--dry-run")
    assert dry["plan"]["redis"]["method"] == "replication" and server.digest() == after
    done = backed_up.json("restore", "latest", "--in-place", "--source", "redis")
    assert done["parts"][0]["source"] == "redis" and server.digest() == before
    safety = done["safety_backup_id"]
    backed_up.run("restore", safety, "--in-place", "--source", "redis", "--no-safety-backup")
    assert server.digest() == after
    assert [one["sources"] for one in backed_up.json("list") if one["id"] == safety] == [["redis"]]

    server.client(2).flushdb()
    words = ("--path", "text:*", "--database", "2", "--no-safety-backup")
    ran = backed_up.run("restore", "latest", "--in-place", "--source", "redis", *words)
    assert "60 items" in ran.text and server.client(2).dbsize() == 60
    assert "--database goes with" in backed_up.run("restore", "latest", "--to", "x", "--database", "2", code=2).err

    backed_up.run("restore", "latest", "--to", str(tmp_path / "r"), "--source", "redis")
    assert (tmp_path / "r/redis/dump.rdb").read_bytes().startswith(b"REDIS")
    assert b"user default" in (tmp_path / "r/redis/server/users.acl").read_bytes()


def test_nothing_is_overwritten_without_its_safety_backup(backed_up: Site, server: RedisServer) -> None:
    server.client().execute_command("ACL", "SETUSER", "few", "on", ">few", "~*", "+@all", "-sync")
    server.client().set("text:1", "spoilt")
    account = {"BACKUP_REDIS_USER": "few", "BACKUP_REDIS_PASSWORD": "few"}
    ran = backed_up.run("restore", "latest", "--in-place", "--source", "redis", code=1, **account)
    assert "no safety backup" in ran.err and server.client().get("text:1") == b"spoilt"

    away = {"BACKUP_REDIS_PORT": "1"}
    assert "Redis at 127.0.0.1:1" in backed_up.run("validate", code=2, **away).text
    ran = backed_up.run("restore", "latest", "--in-place", "--source", "redis", code=6, **away)
    assert "Redis at 127.0.0.1:1" in ran.err
