"""Every storage and wrapper of this room that needs no server, held to the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from chrono_backups.storage.base import Storage
from chrono_backups.storage.faulty import FaultyStorage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import EventuallyConsistentStorage, MemoryStorage
from chrono_backups.storage.metered import MeteredStorage
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups.storage.throttled import Bandwidth, ThrottledStorage
from chrono_backups_tests.contracts.storage_contract import Opener, SharedStorageContract, StorageContract
from chrono_backups_tests.storage.without_hard_links import LocalStorageWithoutHardLinks


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def opener(self) -> Opener:
        storage = MemoryStorage()
        return lambda: storage


class TestLocalStorage(SharedStorageContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(LocalStorage, tmp_path)


class TestLocalStorageWithASizeLimit(SharedStorageContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(LocalStorage, tmp_path, max_size=10**9)


class TestLocalStorageWithoutHardLinks(SharedStorageContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(LocalStorageWithoutHardLinks, tmp_path)


class WrapperContract(StorageContract):
    """A wrapper must hold what the storage in it holds."""

    @pytest.fixture(params=["memory", "local"])
    def opener(self, request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
        memory = MemoryStorage()
        return lambda: self.wrap(memory if request.param == "memory" else LocalStorage(tmp_path))

    def wrap(self, inner: Storage) -> Storage:
        raise NotImplementedError


class TestRetryingStorage(WrapperContract):
    def wrap(self, inner: Storage) -> Storage:
        return RetryingStorage(inner)


class TestThrottledStorage(WrapperContract):
    def wrap(self, inner: Storage) -> Storage:
        return ThrottledStorage(inner, Bandwidth(100_000))


class TestMeteredStorage(WrapperContract):
    def wrap(self, inner: Storage) -> Storage:
        return MeteredStorage(inner)


class TestFaultyStorage(WrapperContract):
    def wrap(self, inner: Storage) -> Storage:
        return FaultyStorage(inner)


class TestEventuallyConsistentStorage(WrapperContract):
    def wrap(self, inner: Storage) -> Storage:
        return EventuallyConsistentStorage(inner, lag=0)


class TestAllWrappersTogether(WrapperContract):
    def wrap(self, inner: Storage) -> Storage:
        return MeteredStorage(RetryingStorage(ThrottledStorage(FaultyStorage(inner), Bandwidth(100_000))))
