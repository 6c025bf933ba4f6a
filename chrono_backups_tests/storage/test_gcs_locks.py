"""Locks of the GCS driver: object retention."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chrono_backups.errors import ObjectLocked, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.storage.gcs import GcsStorage
from chrono_backups_tests.contracts.locking_contract import LockingContract, OpenLocking, in_days
from chrono_backups_tests.servers.gcs_server import GcsServer
from chrono_backups_tests.storage.test_gcs import settings


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.make_bucket("backups", retention=True)
        yield server


def open_locking(server: GcsServer, days: int, **more: object) -> GcsStorage:
    return GcsStorage.open(settings(server.url, lock_days=days, **more))


class TestLocks(LockingContract):
    @pytest.fixture(autouse=True)
    def _the_server(self, server: GcsServer) -> None:
        self.server = server

    @pytest.fixture
    def open_locking(self, server: GcsServer) -> OpenLocking:
        return lambda days: open_locking(server, days)

    def let_it_run_out(self, key: str) -> None:
        retention = self.server.buckets["backups"].objects[key].retention
        assert retention is not None
        retention["retainUntilTime"] = f"{in_days(-1):%Y-%m-%dT%H:%M:%SZ}"


def test_a_large_object_is_locked_too(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrono_backups.storage.gcs._ONE_REQUEST", 2**23)
    storage = open_locking(server, 10)
    storage.put("a", bytes(9_000_000))
    assert storage.locked_until("a") is not None


@pytest.mark.parametrize("mode", ["Locked", "Unlocked"])
def test_the_mode_is_the_settings_and_stays_when_extended(server: GcsServer, mode: str) -> None:
    open_locking(server, 10, lock_mode=mode).put("a", b"")
    other = open_locking(server, 10, lock_mode="Unlocked" if mode == "Locked" else "Locked")
    other.extend_lock("a", in_days(20))
    retention = server.buckets["backups"].objects["a"].retention
    assert retention is not None
    assert retention["mode"] == mode


def test_two_who_extend_at_once(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, other = open_locking(server, 10), open_locking(server, 10)
    storage.put("a", b"")
    loaded = storage._loaded

    def loaded_just_before(key: str) -> object:
        blob = loaded(key)
        monkeypatch.undo()
        other.extend_lock(key, in_days(30))
        return blob

    monkeypatch.setattr(storage, "_loaded", loaded_just_before)
    with pytest.raises(StorageUnavailable):  # so it is looked at anew
        storage.extend_lock("a", in_days(20))
    until = storage.locked_until("a")
    storage.extend_lock("a", in_days(20))
    assert storage.locked_until("a") == until


def test_a_lock_is_told_from_a_missing_right(server: GcsServer) -> None:
    storage = open_locking(server, 10)
    storage.put("locked", b"")
    open_locking(server, 0).put("plain", b"")
    server.forbidden = {"DELETE"}
    with pytest.raises(ObjectLocked):
        storage.delete("locked")
    with pytest.raises(StorageDenied):
        storage.delete("plain")
    server.forbidden = {"DELETE", "GET"}
    with pytest.raises(StorageDenied):
        storage.delete("locked")


def test_a_bucket_without_retention_is_told_at_init(server: GcsServer) -> None:
    server.make_bucket("plain")
    with pytest.raises(StorageError, match="gs://plain") as caught:
        GcsStorage.open(settings(server.url, bucket_name="plain", lock_days=10), create=True)
    assert "--enable-per-object-retention" in caught.value.hint
    with pytest.raises(StorageError) as caught:
        GcsStorage.open(settings(server.url, bucket_name="plain", lock_days=10)).put("a", b"")
    assert "--enable-per-object-retention" in caught.value.hint
    GcsStorage.open(settings(server.url, bucket_name="plain"), create=True).put("a", b"")
    GcsStorage.open(settings(server.url, lock_days=10), create=True).put("a", b"")
