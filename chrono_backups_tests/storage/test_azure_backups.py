"""Whole backups in a container of Azure Blob Storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups_tests.cli.conftest import Site
from chrono_backups_tests.cli.in_process import SiteInProcess
from chrono_backups_tests.contracts.whole_backup_contract import Variables, WholeBackupContract
from chrono_backups_tests.servers.azurite import ACCOUNT, Azurite


@pytest.fixture
def server(azurite_server: Azurite) -> Azurite:
    return azurite_server


class TestWholeBackups(WholeBackupContract):
    @pytest.fixture
    def target(self, server: Azurite) -> int:
        return server.port

    @pytest.fixture
    def variables(self, server: Azurite, azurite_container: str) -> Variables:
        return lambda port: {
            "BACKUP_AZURE_ENABLED": "true",
            "BACKUP_AZURE_ACCOUNT_NAME": ACCOUNT,
            "BACKUP_AZURE_ACCOUNT_KEY": server.key,
            "BACKUP_AZURE_CONTAINER_NAME": azurite_container,
            "BACKUP_AZURE_ENDPOINT_URL": server.url(port),
        }

    def test_a_writer_that_can_not_delete(self, site: Site, server: Azurite) -> None:
        from azure.storage.blob import generate_container_sas

        site.run("init")
        now = datetime.now(UTC)
        token = generate_container_sas(
            ACCOUNT, site.settings["BACKUP_AZURE_CONTAINER_NAME"], account_key=server.key, permission="rcl",
            start=now - timedelta(minutes=5), expiry=now + timedelta(hours=1),
        )  # fmt: skip
        writer = SiteInProcess(
            site.root, site.settings | {"BACKUP_AZURE_SAS_TOKEN": token, "BACKUP_AZURE_ACCOUNT_KEY": ""}
        )
        first = writer.backup()
        second = writer.backup("incremental")
        assert [one["id"] for one in writer.json("list")] == [second, first]
        site.run("verify", "--full")
