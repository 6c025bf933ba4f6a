"""Locks of the Azure driver, against a stand-in: Azurite has neither versions nor immutability policies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.errors import ObjectLocked, ObjectMissing, StorageError
from chrono_backups.storage.azure import AzureBlobStorage
from chrono_backups.storage.base import ObjectInfo
from chrono_backups_tests.contracts.locking_contract import LockingContract, OpenLocking
from chrono_backups_tests.contracts.storage_contract import Opener, StorageContract
from chrono_backups_tests.servers.azure_versions import AzureVersionsServer


@pytest.fixture
def server() -> Iterator[AzureVersionsServer]:
    with AzureVersionsServer() as server:
        yield server


def open_locking(server: AzureVersionsServer, days: int) -> AzureBlobStorage:
    return AzureBlobStorage.open(server.settings(lock_days=days))


class TestLocks(LockingContract):
    @pytest.fixture(autouse=True)
    def _the_server(self, server: AzureVersionsServer) -> None:
        self.server = server

    @pytest.fixture
    def open_locking(self, server: AzureVersionsServer) -> OpenLocking:
        return lambda days: open_locking(server, days)

    def let_it_run_out(self, key: str) -> None:
        for version in self.server.of(key):
            version.until = datetime.now(UTC) - timedelta(seconds=1)


class TestWhereVersionsAreKept(StorageContract):
    """The whole contract holds in such a container; locks that have run out are none."""

    @pytest.fixture
    def opener(self, server: AzureVersionsServer, monkeypatch: pytest.MonkeyPatch) -> Opener:
        monkeypatch.setattr("chrono_backups.storage.azure.AzureBlobStorage._policy", lambda self, key: {})
        return lambda: open_locking(server, 10)


class TestSomebodyElse:
    def test_deleting_leaves_nothing_of_any_version(self, server: AzureVersionsServer) -> None:
        storage = open_locking(server, 10)
        server.write("a", b"first")
        server.write("a", b"second")
        server.write("ab", b"another")
        storage.delete("a")
        assert [version.name for version in server.versions] == ["ab"]

    def test_one_locked_version_keeps_them_all(self, server: AzureVersionsServer) -> None:
        storage = open_locking(server, 10)
        storage.put("a", b"ours")
        server.write("a", b"theirs")
        with pytest.raises(ObjectLocked):
            storage.delete("a")
        assert [(version.content, version.current) for version in server.of("a")] == [
            (b"ours", False),
            (b"theirs", True),
        ]

    def test_what_somebody_deleted_is_still_there(self, server: AzureVersionsServer) -> None:
        storage = open_locking(server, 10)
        storage.put("packs/a", b"content")
        server.hide("packs/a")
        assert bytes(storage.get("packs/a")) == b"content"
        assert bytes(storage.get("packs/a", 2, 3)) == b"nte"
        assert bytes(storage.get("packs/a", 7)) == b""
        with pytest.raises(StorageError, match="has 7"):
            storage.get("packs/a", 3, 10)
        assert storage.info("packs/a") == ObjectInfo("packs/a", 7)
        assert list(storage.list()) == [ObjectInfo("packs/a", 7)]
        assert storage.locked_until("packs/a") is not None
        with pytest.raises(ObjectLocked):
            storage.delete("packs/a")
        storage.extend_lock("packs/a", datetime.now(UTC) + timedelta(days=30))
        with pytest.raises(ObjectMissing):
            AzureBlobStorage.open(server.settings()).get("packs/a")

    def test_a_listing_shows_what_was_put_first(self, server: AzureVersionsServer) -> None:
        storage = open_locking(server, 10)
        storage.put("a", b"ours")
        server.write("a", b"theirs, longer")
        assert list(storage.list()) == [ObjectInfo("a", 4)]


class TestTheContainer:
    def test_one_without_immutability_is_told_at_init(self) -> None:
        with AzureVersionsServer(immutable=False) as server:
            settings = server.settings(lock_days=10)
            with pytest.raises(StorageError, match="lock") as caught:
                AzureBlobStorage.open(settings, create=True)
            assert "version-level immutability" in caught.value.hint
            with pytest.raises(StorageError) as caught:
                AzureBlobStorage.open(settings).put("a", b"")
            assert server.versions == []
            AzureBlobStorage.open(server.settings(), create=True).put("a", b"")

    def test_one_with_it_is_taken(self, server: AzureVersionsServer) -> None:
        AzureBlobStorage.open(server.settings(lock_days=10, tier="Cool"), create=True).put("a", b"")
        (version,) = server.versions
        assert (version.mode, version.tier) == ("locked", "Cool")
        AzureBlobStorage.open(server.settings(lock_days=10, lock_mode="Unlocked")).put("b", b"")
        assert server.of("b")[0].mode == "unlocked"

    def test_a_hierarchical_account_is_told_at_init(self) -> None:
        with (
            AzureVersionsServer(hierarchical=True) as server,
            pytest.raises(StorageError, match="hierarchical namespace"),
        ):
            AzureBlobStorage.open(server.settings(), create=True)
