"""Whole backups in a bucket of Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chrono_backups_tests.cli.conftest import Site
from chrono_backups_tests.contracts.whole_backup_contract import Variables, WholeBackupContract
from chrono_backups_tests.servers.gcs_server import GcsServer


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.make_bucket("backups")
        yield server


class TestWholeBackups(WholeBackupContract):
    UPLOADS = "POST"

    @pytest.fixture
    def target(self, server: GcsServer) -> int:
        return server.port

    @pytest.fixture
    def variables(self) -> Variables:
        return lambda port: {
            "BACKUP_GCS_ENABLED": "true",
            "BACKUP_GCS_BUCKET_NAME": "backups",
            "BACKUP_GCS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }

    def test_a_writer_that_can_not_delete(self, site: Site, server: GcsServer) -> None:
        site.run("init")
        server.forbidden = {"DELETE", "PATCH"}
        first = site.backup()
        second = site.backup("incremental")
        assert [one["id"] for one in site.json("list")] == [second, first]
        server.forbidden = set()
        site.run("verify", "--full")

    def test_in_a_bucket_that_locks(self, site: Site, server: GcsServer) -> None:
        server.make_bucket("locked", retention=True)
        site.settings |= {"BACKUP_GCS_BUCKET_NAME": "locked", "BACKUP_GCS_LOCK_DAYS": "30"}
        site.run("init")
        site.backup()
        site.backup("incremental")
        stored = server.buckets["locked"].objects.values()
        assert stored and all(one.retention is not None for one in stored)
        assert not any(one.name.startswith("leases/") for one in stored)
        site.run("verify", "--full")
