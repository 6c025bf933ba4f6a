"""The Azure driver against Azurite."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chrono_backups.storage.azure import AzureBlobStorage
from chrono_backups_tests.contracts.http_fault_contract import HttpFaultContract, OpenAt
from chrono_backups_tests.contracts.storage_contract import Opener, SharedStorageContract
from chrono_backups_tests.servers.azurite import Azurite


@dataclass(frozen=True)
class OpenAzure:
    """Opens the container, also in another process."""

    server: Azurite
    container: str

    def __call__(self) -> AzureBlobStorage:
        return AzureBlobStorage.open(self.server.settings(self.container))


@pytest.fixture
def server(azurite_server: Azurite) -> Azurite:
    return azurite_server


@pytest.fixture
def container(azurite_container: str) -> str:
    return azurite_container


class TestAzureBlobStorage(SharedStorageContract):
    @pytest.fixture
    def opener(self, server: Azurite, container: str) -> Opener:
        return OpenAzure(server, container)


class TestFaults(HttpFaultContract):
    BODY_BREAKS = 3

    @pytest.fixture
    def target(self, server: Azurite) -> int:
        return server.port

    @pytest.fixture
    def open_at(self, server: Azurite, container: str) -> OpenAt:
        return lambda port, timeout: AzureBlobStorage.open(server.settings(container, port=port), timeout=timeout)
