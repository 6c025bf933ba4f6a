"""S3 held to the contracts: over moto, and over a real server where the program of one is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from chrono_backups.storage.s3 import S3Storage
from chrono_backups_tests.contracts.locking_storage_contract import LOCK_DAYS, LockingStorageContract
from chrono_backups_tests.contracts.storage_contract import SharedStorageContract
from chrono_backups_tests.servers.moto_server import MotoServer, s3_client, s3_settings
from chrono_backups_tests.servers.s3_binary import program, s3_server
from chrono_backups_tests.storage.s3_buckets import Opener, bucket_name, prefix_name


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name())


@pytest.fixture(scope="module")
def bucket_of_versions(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name(), versions=True)


@pytest.fixture(scope="module")
def real_server() -> Iterator[tuple[int, str]]:
    """Port and bucket."""
    found = program()
    if found is None:
        pytest.skip("no versitygw and no minio on the PATH: moto alone stands for S3")
    with s3_server(found) as port, closing(s3_client(port)) as client:
        client.create_bucket(Bucket="bucket")
        yield port, "bucket"


class TestS3Storage(SharedStorageContract):
    @pytest.fixture
    def opener(self, moto: MotoServer, bucket: str) -> Opener:
        return Opener(moto.settings(bucket, prefix=f"backups/{prefix_name()}/"))


class TestS3StorageOfVersionsThatKeepsChecksums(SharedStorageContract):
    @pytest.fixture
    def opener(self, moto: MotoServer, bucket_of_versions: str) -> Opener:
        return Opener(moto.settings(bucket_of_versions, prefix=prefix_name()), as_aws=True)


class TestS3StorageOfARealServer(SharedStorageContract):
    @pytest.fixture
    def opener(self, real_server: tuple[int, str]) -> Opener:
        port, bucket = real_server
        return Opener(s3_settings(port, bucket, prefix=prefix_name()))


class TestLockingS3StorageOfARealServer(LockingStorageContract):
    @pytest.fixture
    def storage(self, real_server: tuple[int, str]) -> Iterator[S3Storage]:
        port, _ = real_server
        bucket = bucket_name()
        with closing(s3_client(port)) as client:
            client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        settings = s3_settings(port, bucket, prefix="locked", lock_days=LOCK_DAYS)
        with closing(S3Storage.open(settings, create=True)) as storage:
            yield storage


class TestLockingS3Storage(LockingStorageContract):
    @pytest.fixture
    def storage(self, moto: MotoServer) -> Iterator[S3Storage]:
        settings = moto.settings(moto.make_bucket(bucket_name(), locks=True), prefix="locked", lock_days=LOCK_DAYS)
        storage = S3Storage.open(settings, create=True)
        yield storage
        storage.close()
