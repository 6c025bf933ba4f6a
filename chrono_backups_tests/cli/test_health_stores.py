"""``health`` about stores: a PostgreSQL server's WAL that lags, or has a gap; stores that accept and never answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from chrono_backups_tests.backup.receiving import SMALL_SEGMENTS
from chrono_backups_tests.cli.conftest import Site
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed
from chrono_backups_tests.servers.silent_server import SilentServer
from chrono_backups_tests.undisturbed import once_undisturbed

CALM: dict[str, Any] = {
    "BACKUP_HEALTH_DISK_WARNING_PERCENT": "100",
    "BACKUP_HEALTH_DISK_CRITICAL_PERCENT": "100",
    "BACKUP_HEALTH_CHECK_TIMEOUT": "60",
}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server(needed(18), options=SMALL_SEGMENTS) as running:
        running.add_role("backup", grants=("pg_read_all_data", "pg_read_all_settings"))
        running.execute("CREATE TABLE filler (t text)")
        yield running


def wal(site: Site, **settings: Any) -> tuple[str, list[str]]:
    """The state of the check, and its findings' codes."""
    found = site.json("health", code=None, **(CALM | settings))
    return found["checks"]["wal"], [one["code"] for one in found["findings"] if one["code"].startswith("wal")]


def test_wal_that_lags_and_a_gap(ready: Site, server: PostgresServer) -> None:
    ready.settings |= {
        "BACKUP_POSTGRES_HOST": "127.0.0.1", "BACKUP_POSTGRES_PORT": str(server.port),
        "BACKUP_POSTGRES_USER": "backup", "BACKUP_POSTGRES_PASSWORD": PASSWORD,
    }  # fmt: skip
    ready.backup()
    assert wal(ready) == ("healthy", []), "nobody has asked for points in time"
    ready.run("wal-receive", "--until-idle")
    assert wal(ready) == ("healthy", [])
    for _ in range(4):
        server.execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 500)")
        server.execute("SELECT pg_switch_wal()")
    assert wal(ready, BACKUP_HEALTH_WAL_LAG_SECONDS="0.001") == ("critical", ["wal-lag"])
    assert wal(ready, BACKUP_HEALTH_WAL_LAG_SECONDS="10000000") == ("healthy", [])
    ready.run("wal-receive", "--until-idle")
    segments = sorted(path for path in ready.repository.glob("wal/*/*") if len(path.name) == 24)
    segments[-2].unlink()
    assert wal(ready, BACKUP_HEALTH_WAL_LAG_SECONDS="10000000") == ("critical", ["wal-gap"])
    ready.backup()
    assert "wal-gap" not in wal(ready, BACKUP_HEALTH_WAL_LAG_SECONDS="10000000")[1], (
        "points in time go on behind the new base backup"
    )


def test_stores_that_never_answer_keep_nobody_waiting(ready: Site) -> None:
    with SilentServer() as silent:
        once_undisturbed(lambda: look_at_stores_that_never_answer(ready, str(silent.port)))


def look_at_stores_that_never_answer(ready: Site, port: str) -> None:
    began = time.monotonic()
    ready.run("list")
    alone = time.monotonic() - began
    began = time.monotonic()
    found = ready.json(
        "health", code=1,
        BACKUP_POSTGRES_HOST="127.0.0.1", BACKUP_POSTGRES_PORT=port, BACKUP_POSTGRES_USER="backup",
        BACKUP_REDIS_HOST="127.0.0.1", BACKUP_REDIS_PORT=port,
        BACKUP_SFTP_ENABLED="true", BACKUP_SFTP_HOST="127.0.0.1", BACKUP_SFTP_PORT=port,
        BACKUP_SFTP_USERNAME="user", BACKUP_SFTP_PASSWORD="a password", BACKUP_SFTP_PATH="/backups",
        BACKUP_PRIMARY_STORAGE="local",
    )  # fmt: skip
    took = time.monotonic() - began
    hanging = {(one["code"], one["subject"]) for one in found["findings"] if one["code"].endswith("-hangs")}
    assert {("source-hangs", "postgres"), ("source-hangs", "redis"), ("storage-hangs", "sftp")} <= hanging
    assert found["checks"]["database_connectivity"] == "critical"
    # On a machine that is so busy that a listing takes two seconds, that time comes on top.
    assert took <= max(5, 3 + 2 * alone), f"it took {took:.1f} s, a listing {alone:.1f} s"
