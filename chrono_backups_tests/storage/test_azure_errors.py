"""What the Azure driver makes of the service's refusals, and what it asks of it."""

from __future__ import annotations

import base64
import os
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from chrono_backups.storage.azure import AzureBlobStorage
from chrono_backups_tests.servers.azurite import ACCOUNT, Azurite
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer


@pytest.fixture
def server(azurite_server: Azurite) -> Azurite:
    return azurite_server


@pytest.fixture
def container(azurite_container: str) -> str:
    return azurite_container


@pytest.fixture
def proxy(server: Azurite) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def storage(server: Azurite, container: str, proxy: FaultProxy) -> Iterator[AzureBlobStorage]:
    storage = AzureBlobStorage.open(server.settings(container, port=proxy.port))
    yield storage
    storage.close()


def calls(storage: AzureBlobStorage) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: storage.put("a/b", b"content"),
        "get": lambda: storage.get("a/b"),
        "info": lambda: storage.info("a/b"),
        "list": lambda: list(storage.list("a/b")),
        "delete": lambda: storage.delete("a/b"),
    }


def azure_error(status: int, code: str, message: str = "scripted", **more: object) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    headers = (("Content-Type", "application/xml"), ("x-ms-error-code", code))
    return Answer(status, body, headers=headers)


class TestRefusals:
    def test_a_container_that_is_not_there(self, server: Azurite) -> None:
        storage = AzureBlobStorage.open(server.settings("elsewhere"), create=True)
        for operation, call in calls(storage).items():
            if operation == "info":
                continue  # a HEAD has no body, and Azurite leaves the code out of the headers
            with pytest.raises(StorageError, match="elsewhere") as caught:
                call()
            assert type(caught.value) is StorageError
            assert "BACKUP_AZURE_CONTAINER_NAME" in caught.value.hint

    def test_a_wrong_key(self, server: Azurite, container: str) -> None:
        wrong = base64.b64encode(b"canary" * 8).decode()
        storage = AzureBlobStorage.open(server.settings(container, account_key=wrong), create=True)
        for operation, call in calls(storage).items():
            with pytest.raises(StorageDenied, match=operation) as caught:
                call()
            if operation != "info":
                assert "BACKUP_AZURE_ACCOUNT_NAME" in caught.value.hint
            assert wrong not in "".join(traceback.format_exception(caught.value))

    def test_a_key_that_is_none(self, server: Azurite, container: str) -> None:
        settings = server.settings(container, account_key="canary!")
        with pytest.raises(StorageDenied) as caught:
            AzureBlobStorage.open(settings)
        assert "base64" in caught.value.hint
        assert "canary" not in "".join(traceback.format_exception(caught.value))

    def test_no_credentials_for_a_plain_server(self, server: Azurite, container: str) -> None:
        with pytest.raises(StorageDenied) as caught:
            storage = AzureBlobStorage.open(server.settings(container, account_key=None))
            storage.get("a")
        assert "https" in caught.value.hint

    @pytest.mark.parametrize(
        ("status", "code", "message", "kind", "hint"),
        [
            (403, "AuthenticationFailed", "Request date header too old: 'Thu'", StorageDenied, "clock"),
            (403, "AuthenticationFailed", "Signature did not match", StorageDenied, "BACKUP_AZURE_ACCOUNT_NAME"),
            (403, "AuthorizationPermissionMismatch", "not authorized", StorageDenied, "role"),
            (403, "AccountIsDisabled", "disabled", StorageDenied, "role"),
            (400, "Md5Mismatch", "The MD5 value did not match", StorageUnavailable, ""),
            (404, "ContainerNotFound", "no", StorageError, "container"),
            (409, "ContainerBeingDeleted", "no", StorageUnavailable, ""),
            (409, "BlobAlreadyExists", "no", ObjectExists, ""),
            (412, "ConditionNotMet", "no", ObjectExists, ""),
            (409, "BlobArchived", "no", StorageError, "Rehydrate"),
            (500, "OperationTimedOut", "no", StorageUnavailable, ""),
            (503, "ServerBusy", "no", StorageUnavailable, ""),
            (400, "InvalidHeaderValue", "no", StorageError, ""),
        ],
    )
    def test_kinds(
        self, proxy: FaultProxy, storage: AzureBlobStorage, status: int, code: str, message: str,
        kind: type[StorageError], hint: str,
    ) -> None:  # fmt: skip
        proxy.script(azure_error(status, code, message))
        with pytest.raises(StorageError) as caught:
            storage.put("a", b"content")
        assert type(caught.value) is kind
        assert code in caught.value.message or kind is ObjectExists
        assert hint in caught.value.hint

    def test_what_others_keep_in_the_container_is_left_out(
        self, server: Azurite, container: str, storage: AzureBlobStorage
    ) -> None:
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient(server.url(), credential=server.credential()) as client:
            for name in ("README.TXT", "a/b", ".hidden", "ü", "a b"):
                client.get_blob_client(container, name).upload_blob(b"")
        assert [info.key for info in storage.list()] == ["a/b"]


class TestSignatures:
    """A shared access signature in the key's place: what it allows, it allows."""

    def token(self, server: Azurite, container: str, permission: str, *, hours: float = 1) -> str:
        from azure.storage.blob import generate_container_sas

        now = datetime.now(UTC)
        signed: str = generate_container_sas(
            ACCOUNT, container, account_key=server.key, permission=permission,
            start=now - timedelta(hours=3), expiry=now + timedelta(hours=hours),
        )  # fmt: skip
        return signed

    def opened(self, server: Azurite, container: str, token: str) -> AzureBlobStorage:
        return AzureBlobStorage.open(server.settings(container, account_key=None, sas_token=token))

    def test_a_writer_that_can_not_delete(self, server: Azurite, container: str) -> None:
        storage = self.opened(server, container, self.token(server, container, "rcl"))
        storage.put("a", b"content")
        assert bytes(storage.get("a")) == b"content"
        assert [info.key for info in storage.list()] == ["a"]
        with pytest.raises(StorageDenied) as caught:
            storage.delete("a")
        assert caught.value.hint
        assert bytes(storage.get("a")) == b"content"

    def test_one_that_ran_out(self, server: Azurite, container: str) -> None:
        token = self.token(server, container, "rcwl", hours=-1)
        storage = self.opened(server, container, token)
        for call in calls(storage).values():
            with pytest.raises(StorageDenied) as caught:
                call()
            assert "sig=" not in "".join(traceback.format_exception(caught.value))

    def test_it_is_not_in_any_text(self, server: Azurite, container: str) -> None:
        token = self.token(server, container, "rcwl")
        storage = AzureBlobStorage.open(
            server.settings(container, account_key=None, sas_token=token, port=9), timeout=(0.5, 0.5)
        )
        with pytest.raises(StorageUnavailable) as caught:
            storage.get("a")
        assert "sig=" not in "".join(traceback.format_exception(caught.value)) + storage.location + caught.value.hint

    def test_a_clients_own_login_is_used(self, server: Azurite, container: str) -> None:
        from azure.storage.blob import BlobServiceClient

        elsewhere = server.settings(container, port=9)
        token = self.token(server, container, "rcwl")
        for client in (
            BlobServiceClient(server.url(), credential=server.credential()),
            BlobServiceClient(server.url(), credential=server.key),
            BlobServiceClient(server.url(), credential=token),
            BlobServiceClient(f"{server.url()}?{token}"),
        ):
            storage = AzureBlobStorage.open(elsewhere, client=client)
            key = uuid.uuid4().hex
            storage.put(key, b"content")
            assert bytes(storage.get(key)) == b"content"
            assert "sig=" not in storage.location
            storage.close()
            client.close()


class TestRequests:
    def test_one_for_a_pack(self, proxy: FaultProxy, storage: AzureBlobStorage) -> None:
        data = os.urandom(17 * 2**20)
        storage.put("packs/a", data)
        assert proxy.count() == 1
        storage.get("packs/a")
        storage.get("packs/a", 1000, 2000)
        assert proxy.count() == 3
        storage.delete("packs/a")
        assert proxy.count() == 4

    def test_pages(self, proxy: FaultProxy, storage: AzureBlobStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: storage.put(f"many/{number:02d}", b"xyz"), range(21)))
        proxy.clear()
        assert storage.usage().used == 63
        assert (
            proxy.count("GET", "comp=list&.*maxresults=1000") + proxy.count("GET", "maxresults=1000&.*comp=list") == 1
        )
        assert proxy.count() == 1
        monkeypatch.setattr("chrono_backups.storage.azure._PAGE", 10)
        assert [info.key for info in storage.list("many/")] == [f"many/{number:02d}" for number in range(21)]
        assert proxy.count() == 1 + 3

    def test_the_settings_reach_the_service(self, server: Azurite, container: str) -> None:
        from azure.storage.blob import BlobServiceClient

        AzureBlobStorage.open(server.settings(container, tier="Cool")).put("a", b"content")
        with BlobServiceClient(server.url(), credential=server.credential()) as client:
            properties = client.get_blob_client(container, "a").get_blob_properties()
        assert properties.blob_tier == "Cool"
        assert properties.content_settings.content_type == "application/octet-stream"


class TestLargeObjects:
    """Those that go up in blocks."""

    @pytest.fixture(autouse=True)
    def _small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chrono_backups.storage.azure._ONE_REQUEST", 2**20)

    def test_round_trip(self, proxy: FaultProxy, storage: AzureBlobStorage) -> None:
        data = os.urandom(2_500_000)
        storage.put("a", memoryview(data))
        assert proxy.count("PUT") == 5 + 1
        assert bytes(storage.get("a")) == data

    def test_created_once(self, storage: AzureBlobStorage) -> None:
        storage.put("a", b"first")
        with pytest.raises(ObjectExists):
            storage.put("a", bytes(2**21))
        assert bytes(storage.get("a")) == b"first"

    def test_racing_writers_do_not_mix(self, storage: AzureBlobStorage) -> None:
        marks = [bytes([number]) * 2**21 for number in range(4)]

        def put(data: bytes) -> bool:
            for _ in range(5):
                try:
                    storage.put("a", data)
                except ObjectExists:
                    return False
                except StorageUnavailable:
                    continue  # another one's commit threw its blocks away
                return True
            raise AssertionError("neither stored nor refused")

        for round_ in range(3):
            with ThreadPoolExecutor(4) as pool:
                won = list(pool.map(put, marks))
            assert sum(won) == 1, round_
            assert bytes(storage.get("a")) == marks[won.index(True)]
            storage.delete("a")

    def test_a_block_that_is_lost_leaves_nothing(self, proxy: FaultProxy, storage: AzureBlobStorage) -> None:
        proxy.script(Answer(503, method="PUT", path="comp=block&", skip=2))
        with pytest.raises(StorageUnavailable):
            storage.put("a", bytes(2_500_000))
        with pytest.raises(ObjectMissing):
            storage.get("a")
        assert list(storage.list()) == []
        storage.put("a", bytes(2_500_000))
