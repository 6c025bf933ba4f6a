"""S3 beyond the contract: settings, versions, locks, what others left in the bucket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ObjectLocked, ObjectMissing, StorageDenied, StorageError
from chrono_backups.storage import s3_client
from chrono_backups.storage.base import ObjectInfo
from chrono_backups.storage.s3 import S3Storage
from chrono_backups.storage.settings import AwsS3Settings
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import s3_error
from chrono_backups_tests.servers.moto_server import SECRET_KEY, MotoServer, s3_settings
from chrono_backups_tests.storage.s3_buckets import bucket_name, prefix_name


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def plain(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name())


@pytest.fixture(scope="module")
def versioned(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name(), versions=True)


@pytest.fixture(scope="module")
def locking(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name(), locks=True)


def versions(moto: MotoServer, bucket: str, key: str) -> list[str]:
    found = moto.client.list_object_versions(Bucket=bucket, Prefix=key)
    return [one["VersionId"] for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ()))]


@pytest.mark.parametrize(
    "text",
    ["2026-11-28T20:42:16.000Z", "2026-11-28T20:42:16Z", "Sat, 28 Nov 2026 20:42:16 GMT", "1795898536", 1795898536],
)
def test_times_are_read_however_they_are_written(text: Any) -> None:
    assert s3_client._moment(text) == datetime(2026, 11, 28, 20, 42, 16, tzinfo=UTC)


class TestSettings:
    @pytest.mark.parametrize("prefix", ["a/b", "a/b/", "/a/b", "a//b/"])
    def test_a_prefix_is_the_same_place_however_it_is_written(self, moto: MotoServer, prefix: str) -> None:
        bucket = moto.make_bucket(bucket_name())
        storage = S3Storage.open(moto.settings(bucket, prefix=prefix))
        storage.put("packs/x", b"content")
        assert [one["Key"] for one in moto.client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b/packs/x"]
        assert storage.location == f"s3://{bucket}/a/b at 127.0.0.1:{moto.port}"

    def test_class_and_no_more_is_said_of_an_object(self, moto: MotoServer, plain: str) -> None:
        prefix = prefix_name()
        S3Storage.open(moto.settings(plain, prefix=prefix, storage_class="STANDARD_IA")).put("a", b"x")
        head = moto.client.head_object(Bucket=plain, Key=f"{prefix}/a")
        assert head["StorageClass"] == "STANDARD_IA"
        assert head["Metadata"] == {}

    @pytest.mark.parametrize("ambient", [False, True])
    def test_credentials(self, ambient: bool, moto: MotoServer, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
        keys: dict[str, Any] = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SecretStr(SECRET_KEY)}
        keys["session_token"] = SecretStr("token-of-the-moment")
        if ambient:
            for name, value in zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"), keys.values(), strict=True):
                text = value.get_secret_value() if isinstance(value, SecretStr) else value
                monkeypatch.setenv(f"AWS_{name}", text)
            keys = dict.fromkeys(keys)
        settings = moto.settings(plain, **keys)
        storage = S3Storage.open(settings)
        seen: dict[str, str] = {}
        storage._client.meta.events.register(
            "before-send.s3", lambda request, **_: seen.update({k.lower(): v for k, v in request.headers.items()})
        )
        assert list(storage.list("nothing/")) == []
        raw: dict[str, Any] = dict(seen)
        shown = {name: value.decode() if isinstance(value, bytes) else value for name, value in raw.items()}
        assert "Credential=AKIDEXAMPLE/" in shown["authorization"]
        assert "/us-east-1/s3/" in shown["authorization"]
        assert shown["x-amz-security-token"] == "token-of-the-moment"
        assert SECRET_KEY not in repr(settings) + repr(storage) + storage.location

    def test_no_credentials(
        self, moto: MotoServer, plain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        storage = S3Storage.open(moto.settings(plain, access_key_id=None, secret_access_key=None))
        with pytest.raises(StorageDenied, match="aws_s3") as caught:
            storage.get("a")
        assert "BACKUP_AWS_ACCESS_KEY_ID" in caught.value.hint

    def test_of_aws_the_bucket_is_in_the_hosts_name_and_bodies_are_not_signed(self) -> None:
        settings = AwsS3Settings(enabled=True, bucket_name="my-bucket", region="eu-central-1")
        client: Any = S3Storage.open(settings)._client
        assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
        assert client.meta.config.s3["payload_signing_enabled"] is False
        assert client.meta.config.retries["total_max_attempts"] == 1


class TestBuckets:
    def test_a_bucket_that_is_not_there(self, moto: MotoServer) -> None:
        settings = moto.settings("no-such-bucket")
        for call in (
            lambda: S3Storage.open(settings, create=True),
            lambda: S3Storage.open(settings).get("a"),
            lambda: S3Storage.open(settings).put("a", b""),
            lambda: list(S3Storage.open(settings).list()),
        ):
            with pytest.raises(StorageError, match="no bucket no-such-bucket") as caught:
                call()
            assert "BACKUP_AWS_BUCKET_NAME" in caught.value.hint

    def test_a_bucket_that_can_not_lock(self, moto: MotoServer, plain: str) -> None:
        settings = moto.settings(plain, prefix=prefix_name(), lock_days=1)
        with pytest.raises(StorageError, match="no Object Lock") as caught:
            S3Storage.open(settings, create=True)
        assert "BACKUP_AWS_LOCK_DAYS" in caught.value.hint
        with pytest.raises(StorageError):
            S3Storage.open(settings).put("a", b"")

    def test_what_others_left_there_is_no_object(self, moto: MotoServer, plain: str) -> None:
        prefix = prefix_name()
        for key in (f"{prefix}/", f"{prefix}/packs/", f"{prefix}/Read me.txt", f"{prefix}-other/packs/b", "packs/c"):
            moto.client.put_object(Bucket=plain, Key=key, Body=b"x")
        storage = S3Storage.open(moto.settings(plain, prefix=prefix))
        storage.put("packs/a", b"content")
        assert list(storage.list()) == [ObjectInfo("packs/a", 7)]
        assert storage.usage().used == 7

    def test_a_server_that_knows_no_ranges(self, moto: MotoServer, plain: str) -> None:
        storage = S3Storage.open(moto.settings(plain, prefix=prefix_name()))
        storage.put("a", b"0123456789")
        events = storage._client.meta.events
        events.register("before-sign.s3.GetObject", lambda request, **_: request.headers.__delitem__("Range"))
        assert storage.get("a", 3, 4) == b"3456"


class TestVersions:
    def test_a_delete_frees_the_space_of_all_versions(self, moto: MotoServer, versioned: str) -> None:
        prefix = prefix_name()
        storage = S3Storage.open(moto.settings(versioned, prefix=prefix))
        storage.put("a", b"content")
        storage.put("a-neighbour", b"content")
        moto.client.put_object(Bucket=versioned, Key=f"{prefix}/a", Body=b"another")
        storage.delete("a")
        storage.delete("a")
        assert versions(moto, versioned, f"{prefix}/a") == versions(moto, versioned, f"{prefix}/a-neighbour") != []

    def test_who_may_not_remove_versions_removes_from_sight(self, moto: MotoServer, versioned: str) -> None:
        prefix = prefix_name()
        with FaultProxy(moto.port) as proxy:
            storage = S3Storage.open(s3_settings(proxy.port, versioned, prefix=prefix))
            storage.put("a", b"content")
            storage.put("b", b"content")
            proxy.script(s3_error("AccessDenied", 403, path="versions"))
            storage.delete("a")
            proxy.clear()
            storage.delete("b")
            assert proxy.count() == 1  # it is not tried again
            assert list(storage.list()) == []
        assert len(versions(moto, versioned, f"{prefix}/a")) == 2


class TestLocks:
    def storage(self, moto: MotoServer, bucket: str, prefix: str, **more: Any) -> S3Storage:
        return S3Storage.open(moto.settings(bucket, prefix=prefix, lock_days=30, **more), clock=more.pop("clock", None))

    @pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
    def test_the_mode_is_that_of_the_settings(self, moto: MotoServer, locking: str, mode: str) -> None:
        prefix = prefix_name()
        storage = S3Storage.open(moto.settings(locking, prefix=prefix, lock_days=30, lock_mode=mode))
        storage.put("packs/a", b"x")
        assert moto.client.head_object(Bucket=locking, Key=f"{prefix}/packs/a")["ObjectLockMode"] == mode

    def test_what_passes_is_not_locked(self, moto: MotoServer, locking: str) -> None:
        storage = self.storage(moto, locking, prefix_name())
        for key in ("leases/a", "condemned/a", "forgotten/a", "pins/a"):
            storage.put(key, b"x")
            assert storage.locked_until(key) is None
            storage.delete(key)
            storage.put(key, b"again")
            assert storage.get(key) == b"again"
            storage.delete(key)
        assert list(storage.list()) == []

    def test_what_is_laid_over_an_object_does_not_change_it(self, moto: MotoServer, locking: str) -> None:
        prefix = prefix_name()
        mine = self.storage(moto, locking, prefix)
        for key in ("repository", "packs/a", "packs/b", "packs/c"):
            mine.put(key, key.encode() * 10)
        for key in ("repository", "packs/a"):
            moto.client.put_object(Bucket=locking, Key=f"{prefix}/{key}", Body=b"ransom")
        moto.client.delete_object(Bucket=locking, Key=f"{prefix}/packs/b")

        for listed_first in (True, False):
            storage = self.storage(moto, locking, prefix)
            if listed_first:
                infos = {info.key: info.size for info in storage.list()}
                assert infos == {"packs/a": 70, "packs/b": 70, "packs/c": 70, "repository": 100}
            for key in ("repository", "packs/a", "packs/b", "packs/c"):
                assert storage.get(key) == key.encode() * 10
                assert storage.get(key, 5, 5) == (key.encode() * 10)[5:10]
                assert storage.info(key).size == len(key) * 10
                assert storage.locked_until(key) is not None
        assert self.storage(moto, locking, prefix).usage().used == 310

    def test_what_is_hidden_while_a_run_goes_on(self, moto: MotoServer, locking: str) -> None:
        prefix = prefix_name()
        storage = self.storage(moto, locking, prefix)
        storage.put("packs/a", b"content")
        assert storage.get("packs/a") == b"content"
        moto.client.delete_object(Bucket=locking, Key=f"{prefix}/packs/a")
        assert storage.get("packs/a") == b"content"
        with pytest.raises(ObjectMissing):
            storage.get("packs/b")

    def test_a_lock_of_what_lies_below_is_extended_and_ends(self, moto: MotoServer, locking: str) -> None:
        prefix = prefix_name()
        self.storage(moto, locking, prefix).put("packs/a", b"content")
        moto.client.put_object(Bucket=locking, Key=f"{prefix}/packs/a", Body=b"ransom")
        storage = self.storage(moto, locking, prefix)
        until = (datetime.now(UTC) + timedelta(days=90)).replace(microsecond=0)
        storage.extend_lock("packs/a", until)
        assert storage.locked_until("packs/a") == until
        with pytest.raises(ObjectLocked) as caught:
            storage.delete("packs/a")
        assert caught.value.until == until
        assert storage.get("packs/a") == b"content"

    def test_a_lock_that_is_over(self, moto: MotoServer, locking: str) -> None:
        prefix = prefix_name()
        past = FrozenClock(datetime.now(UTC) - timedelta(days=30, seconds=-2))
        storage = S3Storage.open(moto.settings(locking, prefix=prefix, lock_days=30), clock=past)
        storage.put("packs/a", b"content")
        later = S3Storage.open(
            moto.settings(locking, prefix=prefix, lock_days=30),
            clock=FrozenClock(datetime.now(UTC) + timedelta(days=1)),
        )
        assert later.locked_until("packs/a") is None
        until = datetime.now(UTC) + timedelta(seconds=4)
        while datetime.now(UTC) < until:  # the server's lock runs out by its own clock
            time.sleep(0.05)
        later.delete("packs/a")
        assert versions(moto, locking, f"{prefix}/packs/a") == []

    def test_many_versions_over_several_pages(self, moto: MotoServer, locking: str, monkeypatch: Any) -> None:
        monkeypatch.setattr("chrono_backups.storage.s3_versions._PAGE", 3)
        prefix = prefix_name()
        storage = self.storage(moto, locking, prefix)
        for number in range(4):
            storage.put(f"packs/{number}", b"0123456789"[: number + 1])
        for _ in range(5):
            moto.client.put_object(Bucket=locking, Key=f"{prefix}/packs/1", Body=b"ransom")
        moto.client.delete_object(Bucket=locking, Key=f"{prefix}/packs/3")
        storage = self.storage(moto, locking, prefix)
        assert [(info.key, info.size) for info in storage.list("packs/")] == [
            (f"packs/{number}", number + 1) for number in range(4)
        ]
        assert storage.get("packs/1") == b"01"
        assert storage.get("packs/3") == b"0123"
