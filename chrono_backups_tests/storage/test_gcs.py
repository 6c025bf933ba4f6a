"""The GCS driver against a server of the tests' own, which is held to the documented JSON API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chrono_backups.storage.gcs import GcsStorage
from chrono_backups.storage.settings import GcsSettings
from chrono_backups_tests.contracts.http_fault_contract import HttpFaultContract, OpenAt
from chrono_backups_tests.contracts.storage_contract import Opener, SharedStorageContract
from chrono_backups_tests.servers.gcs_server import GcsServer


def settings(url: str, **more: object) -> GcsSettings:
    given = {"enabled": True, "bucket_name": "backups", "project_id": "a-project", "endpoint_url": url, **more}
    return GcsSettings.model_validate(given)


@dataclass(frozen=True)
class OpenGcs:
    """Opens the bucket, also in another process."""

    url: str

    def __call__(self) -> GcsStorage:
        return GcsStorage.open(settings(self.url))


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.make_bucket("backups")
        yield server


class TestGcsStorage(SharedStorageContract):
    @pytest.fixture
    def opener(self, server: GcsServer) -> Opener:
        return OpenGcs(server.url)


class TestFaults(HttpFaultContract):
    @pytest.fixture
    def target(self, server: GcsServer) -> int:
        return server.port

    @pytest.fixture
    def open_at(self) -> OpenAt:
        return lambda port, timeout: GcsStorage.open(settings(f"http://127.0.0.1:{port}"), timeout=timeout)
