"""What the GCS driver makes of the service's refusals, and what it asks of it."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from chrono_backups.storage.gcs import GcsStorage
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer
from chrono_backups_tests.servers.gcs_server import ApiError, GcsServer, StoredObject
from chrono_backups_tests.storage.test_gcs import settings


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.make_bucket("backups")
        yield server


@pytest.fixture
def storage(server: GcsServer) -> Iterator[GcsStorage]:
    storage = GcsStorage.open(settings(server.url))
    yield storage
    storage.close()


def calls(storage: GcsStorage) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: storage.put("a/b", b"content"),
        "get": lambda: storage.get("a/b"),
        "info": lambda: storage.info("a/b"),
        "list": lambda: list(storage.list("a/b")),
        "delete": lambda: storage.delete("a/b"),
    }


class TestRefusals:
    def test_a_bucket_that_is_not_there(self, server: GcsServer) -> None:
        storage = GcsStorage.open(settings(server.url, bucket_name="elsewhere"), create=True)
        for operation, call in calls(storage).items():
            with pytest.raises(StorageError, match="gs://elsewhere") as caught:
                call()
            assert type(caught.value) is StorageError
            assert "BACKUP_GCS_BUCKET_NAME" in caught.value.hint
            assert caught.value.operation == operation

    def test_no_right(self, server: GcsServer, storage: GcsStorage) -> None:
        server.forbidden = {"GET", "POST", "DELETE"}
        for operation, call in calls(storage).items():
            with pytest.raises(StorageDenied, match=operation) as caught:
                call()
            assert "role" in caught.value.hint

    def test_a_login_that_is_needed(self, server: GcsServer, storage: GcsStorage) -> None:
        server.token = "a-token"
        for call in calls(storage).values():
            with pytest.raises(StorageDenied, match="login") as caught:
                call()
            assert "BACKUP_GCS_CREDENTIALS_PATH" in caught.value.hint

    @pytest.mark.parametrize(
        ("status", "reason", "text", "kind"),
        [
            (403, "rateLimitExceeded", "The project exceeded the rate limit", StorageUnavailable),
            (403, "userRateLimitExceeded", "slow down", StorageUnavailable),
            (403, "forbidden", "no access", StorageDenied),
            (400, "invalid", 'Provided CRC32C "a" doesn\'t match calculated CRC32C "b".', StorageUnavailable),
            (400, "invalid", "Invalid argument.", StorageError),
            (409, "conflict", "another request was in progress", StorageUnavailable),
            (412, "conditionNotMet", "pre-conditions", ObjectExists),
            (500, "backendError", "Backend Error", StorageUnavailable),
        ],
    )
    def test_kinds(self, server: GcsServer, status: int, reason: str, text: str, kind: type[StorageError]) -> None:
        with FaultProxy(server.port) as proxy:
            storage = GcsStorage.open(settings(f"http://127.0.0.1:{proxy.port}"))
            headers = (("Content-Type", "application/json"),)
            proxy.script(Answer(status, ApiError(status, reason, text).body(), headers=headers))
            with pytest.raises(StorageError) as caught:
                storage.put("a", b"content")
            assert type(caught.value) is kind
            assert text in caught.value.message

    def test_what_others_keep_in_the_bucket_is_left_out(self, server: GcsServer, storage: GcsStorage) -> None:
        for name in ("README.TXT", "a/b", "a//b", ".hidden", "ü", "b/"):
            server.buckets["backups"].objects[name] = StoredObject(name, b"", 1, "STANDARD", "")
        assert [info.key for info in storage.list()] == ["a/b"]
        assert storage.usage().used == 0


class TestLogin:
    @pytest.fixture
    def key(self, tmp_path: Path, server: GcsServer) -> Path:
        """A service account's key file, whose logins the server answers."""
        private = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        server.token = "the-token"
        path = tmp_path / "key.json"
        path.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "a-project",
                    "private_key_id": "canary-id",
                    "private_key": private.decode(),
                    "client_email": "backup@a-project.example.com",
                    "token_uri": f"{server.url}/token",
                }
            )
        )
        return path

    def test_with_a_key_file(self, server: GcsServer, key: Path) -> None:
        storage = GcsStorage.open(settings(server.url, credentials_path=key))
        storage.put("a", b"content")
        server.token = "the-next-token"  # the first one has run out: it logs in again, and sends the body again
        data = os.urandom(1_000_000)
        storage.put("b", data)
        assert bytes(storage.get("b")) == data
        assert server.count("POST", "/token") == 2

    @pytest.mark.parametrize(
        ("answer", "message", "hint"),
        [
            ("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your "
             "iat and exp values in the JWT claim.", "clock", "NTP"),
            ("Invalid JWT Signature.", "refused", "BACKUP_GCS_CREDENTIALS_PATH"),
        ],
    )  # fmt: skip
    def test_a_login_that_is_refused(self, server: GcsServer, key: Path, answer: str, message: str, hint: str) -> None:
        server.login_failure = answer
        storage = GcsStorage.open(settings(server.url, credentials_path=key))
        for call in calls(storage).values():
            with pytest.raises(StorageDenied, match=message) as caught:
                call()
            assert hint in caught.value.hint
            shown = "".join(traceback.format_exception(caught.value))
            assert "BEGIN PRIVATE" not in shown and "canary-id" not in shown and "eyJ" not in shown

    def test_a_login_service_that_is_away(self, server: GcsServer, key: Path) -> None:
        told = json.loads(key.read_text())
        key.write_text(json.dumps({**told, "token_uri": "http://127.0.0.1:9/token"}))
        storage = GcsStorage.open(settings(server.url, credentials_path=key))
        with pytest.raises(StorageUnavailable, match="refused"):
            storage.get("a")

    @pytest.mark.parametrize(
        "content", [None, "", "canary", "[]", '{"type": "service_account", "private_key": "canary"}']
    )
    def test_a_file_that_is_no_key(self, tmp_path: Path, server: GcsServer, content: str | None) -> None:
        path = tmp_path / "no-key.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(StorageDenied, match=r"no-key\.json") as caught:
            GcsStorage.open(settings(server.url, credentials_path=path))
        assert "BACKUP_GCS_CREDENTIALS_PATH" in caught.value.hint
        assert "canary" not in "".join(traceback.format_exception(caught.value))

    def test_a_clients_own_login_is_used(self, server: GcsServer, key: Path) -> None:
        from google.cloud import storage as sdk

        client = sdk.Client.from_service_account_json(str(key), client_options={"api_endpoint": server.url})
        storage = GcsStorage.open(settings("http://127.0.0.1:9"), client=client)
        storage.put("a", b"content")
        storage.close()
        assert bytes(GcsStorage.open(settings(server.url), client=client).get("a")) == b"content"


class TestRequests:
    def test_one_for_a_pack(self, server: GcsServer, storage: GcsStorage) -> None:
        data = os.urandom(17 * 2**20)
        storage.put("packs/a", data)
        assert server.count() == 1
        storage.get("packs/a")
        storage.get("packs/a", 1000, 2000)
        assert server.count() == 3
        storage.delete("packs/a")
        assert server.count() == 4

    def test_one_for_a_thousand_names(self, server: GcsServer, storage: GcsStorage) -> None:
        names = [f"many/{number:05d}" for number in range(2001)]
        server.buckets["backups"].objects.update(
            {name: StoredObject(name, b"xyz", 1, "STANDARD", "") for name in names}
        )
        assert [info.key for info in storage.list("many/")] == names
        assert server.count() == 3
        assert storage.usage().used == 3 * 2001

    def test_the_settings_reach_the_service(self, server: GcsServer) -> None:
        GcsStorage.open(settings(server.url, storage_class="NEARLINE")).put("a", b"content")
        stored = server.buckets["backups"].objects["a"]
        assert (stored.storage_class, stored.content_type) == ("NEARLINE", "application/octet-stream")

    def test_few_connections(self, server: GcsServer, storage: GcsStorage) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: storage.put(f"a/{number}", b""), range(80)))
        assert server.connections <= 8

    def test_its_place_is_told_without_secrets(self, server: GcsServer) -> None:
        storage = GcsStorage.open(settings(server.url.replace("//", "//user:canary@")))
        assert storage.location.startswith("gs://backups at 127.0.0.1:")


class TestLargeObjects:
    """Those that go up in parts."""

    @pytest.fixture(autouse=True)
    def _small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chrono_backups.storage.gcs._ONE_REQUEST", 2**23)  # the library has parts from there on

    def test_round_trip(self, server: GcsServer, storage: GcsStorage) -> None:
        data = os.urandom(9_000_000)
        storage.put("a", memoryview(data))
        assert server.count() == 1 + 3
        assert bytes(storage.get("a")) == data

    def test_created_once(self, server: GcsServer, storage: GcsStorage) -> None:
        storage.put("a", b"first")
        with pytest.raises(ObjectExists):
            storage.put("a", bytes(9_000_000))
        assert server.count("PUT") == 0  # refused before a part was sent
        assert bytes(storage.get("a")) == b"first"

    def test_created_once_while_the_parts_go_up(self, server: GcsServer, storage: GcsStorage) -> None:
        marks = [os.urandom(9_000_000) for _ in range(4)]

        def put(data: bytes) -> bool:
            try:
                storage.put("a", data)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(put, marks))
        assert sum(won) == 1
        assert bytes(storage.get("a")) == marks[won.index(True)]

    def test_a_part_that_is_lost_leaves_nothing(self, server: GcsServer) -> None:
        with FaultProxy(server.port) as proxy:
            storage = GcsStorage.open(settings(f"http://127.0.0.1:{proxy.port}"))
            # The service names the place to send parts to, and that is not the proxy.
            proxy.script(Answer(503, method="POST", retry_after=3))
            with pytest.raises(StorageUnavailable):
                storage.put("a", bytes(9_000_000))
        server.forbidden = {"PUT"}
        with pytest.raises(StorageDenied):
            storage = GcsStorage.open(settings(server.url))
            storage.put("a", bytes(9_000_000))
        with pytest.raises(ObjectMissing):
            storage.get("a")
