"""S3 on a bad day: every fault of connection and server, through the retries as they are in use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups.storage.s3 import S3Storage
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import (
    Answer,
    Corrupt,
    Fault,
    LoseAnswer,
    Refuse,
    Reset,
    Slow,
    Stall,
    Truncate,
    busy,
    s3_error,
)
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY, MotoServer, s3_settings
from chrono_backups_tests.storage.s3_buckets import bucket_name, prefix_name
from chrono_backups_tests.undisturbed import once_undisturbed

SIZE = 3_000_000
TIMEOUT = 1.0


class Hasty(SystemClock):
    """Waits less than it is told to, and remembers. No attempt is the last while a fault keeps the door closed."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.waits: list[float] = []
        self._proxy = proxy

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().sleep(min(seconds, 0.1))
        if len(self.waits) > 2:
            self._proxy.wait_reopened()


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name())


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[FaultProxy]:
    with FaultProxy(moto.port) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    return prefix_name()


@pytest.fixture
def inner(proxy: FaultProxy, bucket: str, prefix: str) -> Iterator[S3Storage]:
    """It waits for as long as is usual: where a fault has to be sat out, ``impatient`` does not."""
    with closing(S3Storage.open(s3_settings(proxy.port, bucket, prefix=prefix))) as storage:
        yield storage


@pytest.fixture
def impatient(proxy: FaultProxy, bucket: str, prefix: str, clock: Hasty) -> Iterator[RetryingStorage]:
    settings = s3_settings(proxy.port, bucket, prefix=prefix)
    with closing(S3Storage.open(settings, connect_timeout=TIMEOUT, read_timeout=TIMEOUT)) as storage:
        yield RetryingStorage(storage, attempts=6, first_wait=0.2, clock=clock)


@pytest.fixture
def clock(proxy: FaultProxy) -> Hasty:
    return Hasty(proxy)


@pytest.fixture
def storage(inner: S3Storage, clock: Hasty) -> RetryingStorage:
    return RetryingStorage(inner, attempts=6, first_wait=0.2, clock=clock)


PASSING: dict[str, list[Fault]] = {
    "refused": [Refuse(0.3)],
    "reset before the body": [Reset("up")],
    "reset within what is sent": [Reset("up", 1000)],
    "reset within what comes": [Reset("down", 1000)],
    "reset three times": [Reset("up"), Reset("down", 10), LoseAnswer()],
    "answer lost": [LoseAnswer()],
    "answer stalled": [Stall(60)],
    "sending stalled": [Stall(60, "up", 2000)],
    "answer's body stalled": [Stall(60, "down", 5)],
    "cut short": [Truncate(5)],
    **{f"busy: {status}": [busy(status)] for status in (429, 500, 502, 503, 504)},
    "busy for long": [busy(times=4)],
    "an answer without a body": [Answer(503), Answer(500)],
    "not what S3 says": [Answer(502, b"<html>Bad gateway</html>")],
    "timed out on the server's side": [s3_error("RequestTimeout", 400)],
    "damaged on the way there": [s3_error("BadDigest", 400), s3_error("XAmzContentSHA256Mismatch", 400)],
    "two writers at once": [s3_error("ConditionalRequestConflict", 409)],
}


@pytest.mark.parametrize("name", PASSING)
class TestPassingFaults:
    @pytest.fixture
    def storage(self, name: str, storage: RetryingStorage, impatient: RetryingStorage) -> RetryingStorage:
        return impatient if any(isinstance(fault, Stall) for fault in PASSING[name]) else storage

    def test_a_put_is_done_and_done_once(self, name: str, storage: RetryingStorage, proxy: FaultProxy) -> None:
        data = os.urandom(SIZE)
        proxy.script(*PASSING[name])
        buffer = bytearray(data)
        with memoryview(buffer) as view:
            storage.put("packs/a", view)
        buffer.extend(b"let go of")  # BufferError if a view of it were still held
        assert storage.get("packs/a") == data
        proxy.clear()  # an answer to a put has no body for a fault to strike
        with pytest.raises(ObjectExists):
            storage.put("packs/a", b"other")
        assert [info.size for info in storage.list()] == [SIZE]

    def test_a_get_gives_all_or_asks_again(
        self, name: str, storage: RetryingStorage, inner: S3Storage, proxy: FaultProxy
    ) -> None:
        data = os.urandom(SIZE)
        inner.put("packs/a", data)
        faults = [fault for fault in PASSING[name] if getattr(fault, "direction", "down") == "down"]
        proxy.script(*faults)
        assert storage.get("packs/a") == data
        proxy.script(*faults)
        assert storage.get("packs/a", 1_000_000, 1_000_000) == data[1_000_000:2_000_000]

    def test_a_listing_is_complete(
        self, name: str, storage: RetryingStorage, inner: S3Storage, proxy: FaultProxy
    ) -> None:
        for number in range(3):
            inner.put(f"a/{number}", b"x")
        proxy.script(*(fault for fault in PASSING[name] if getattr(fault, "direction", "down") == "down"))
        assert [info.key for info in storage.list("a/")] == ["a/0", "a/1", "a/2"]
        assert storage.info("a/1").size == 1

    def test_a_delete_is_done(self, name: str, storage: RetryingStorage, inner: S3Storage, proxy: FaultProxy) -> None:
        inner.put("a", b"x")
        proxy.script(
            *(fault for fault in PASSING[name] if not getattr(fault, "after", 0) and not hasattr(fault, "keep"))
        )
        storage.delete("a")
        assert list(storage.list()) == []


def test_a_storage_that_does_not_come_back_is_named(
    inner: S3Storage, storage: RetryingStorage, proxy: FaultProxy, clock: Hasty
) -> None:
    with proxy.refusing():
        for call in (lambda: storage.put("a", b"x"), lambda: storage.get("a"), lambda: list(storage.list())):
            with pytest.raises(StorageUnavailable, match=r"aws_s3: .*connection refused") as caught:
                call()
            assert caught.value.storage == "aws_s3"
    assert len(clock.waits) == 15
    inner.put("a", b"x")


def test_retry_after_is_waited_for(storage: RetryingStorage, proxy: FaultProxy, clock: Hasty) -> None:
    proxy.script(busy(retry_after=17), busy(429, retry_after="Wed, 21 Oct 2115 07:28:00 GMT"))
    storage.put("a", b"x")
    assert clock.waits == [17, 60]


def test_slow_is_not_broken(impatient: RetryingStorage, proxy: FaultProxy) -> None:
    """A body takes longer than the time that is meant for a server that takes, or gives, nothing at all."""
    data = os.urandom(24_000_000)

    def moved() -> None:
        impatient.delete("a")
        proxy.clear()
        proxy.script(Slow(12_000_000, "up"), Slow(12_000_000, "down"))
        began = time.monotonic()
        impatient.put("a", data)
        assert impatient.get("a") == data
        assert time.monotonic() - began > 3.5 * TIMEOUT
        assert proxy.count("PUT") == proxy.count("GET") == 1

    once_undisturbed(moved)


def test_latency(storage: RetryingStorage, proxy: FaultProxy) -> None:
    proxy.latency = 0.05
    storage.put("a", b"x" * SIZE)
    assert storage.get("a", 5, 5) == b"xxxxx"
    assert proxy.count() == 2


def test_a_large_object_is_put_whole_or_not_at_all(
    moto: MotoServer,
    bucket: str,
    inner: S3Storage,
    storage: RetryingStorage,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In parts, created once at their completion, aborted where a part fails."""
    monkeypatch.setattr("chrono_backups.storage.s3._ONE_REQUEST", 12 * 2**20)
    data = os.urandom(13 * 2**20)
    proxy.script(Reset("up", 100_000, method="PUT", path="partNumber=2"), LoseAnswer(method="POST", path="uploadId"))
    storage.put("large", data)
    assert inner.info("large").size == len(data)
    assert proxy.count("PUT", "partNumber=3") == 2
    assert inner.get("large", 6 * 2**20 - 5, 10) == data[6 * 2**20 - 5 :][:10]
    with pytest.raises(ObjectExists):
        storage.put("large", data[::-1])
    assert inner.get("large", 0, 100) == data[:100]
    assert "Uploads" not in moto.client.list_multipart_uploads(Bucket=bucket)
    assert [info.size for info in storage.list()] == [len(data)]


def test_wrong_bytes_are_noticed_where_the_service_keeps_checksums(
    inner: S3Storage, proxy: FaultProxy, bucket: str
) -> None:
    settings = s3_settings(proxy.port, bucket, prefix=prefix_name()).model_copy(update={"endpoint_url": None})
    aws = S3Storage.open(settings, client=inner._client)
    aws.put("a", b"content")
    for fault in (Corrupt(position=3), Truncate(3, lying=True)):
        proxy.script(fault)
        with pytest.raises(StorageUnavailable):
            aws.get("a")
    assert aws.get("a") == b"content"


def test_a_shortened_answer_is_never_taken_for_the_object(inner: S3Storage, proxy: FaultProxy) -> None:
    inner.put("a", b"content" * 1000)
    proxy.script(Truncate(50, lying=True))
    with pytest.raises(StorageUnavailable):
        inner.get("a", 1000, 2000)


REFUSALS = {
    "wrong key id": (s3_error("InvalidAccessKeyId", 403), StorageDenied, "does not know these credentials"),
    "wrong secret": (s3_error("SignatureDoesNotMatch", 403), StorageDenied, "SECRET_ACCESS_KEY"),
    "expired": (s3_error("ExpiredToken", 400), StorageDenied, "expired"),
    "no right": (s3_error("AccessDenied", 403), StorageDenied, "s3:"),
    "clock": (s3_error("RequestTimeTooSkewed", 403), StorageDenied, "clock"),
    "no bucket": (s3_error("NoSuchBucket", 404), StorageError, "BACKUP_AWS_BUCKET_NAME"),
    "another region": (s3_error("AuthorizationHeaderMalformed", 400), StorageError, "BACKUP_AWS_REGION"),
    "quota": (s3_error("QuotaExceeded", 403), StorageFull, "quota"),
    "full": (Answer(507), StorageFull, "room"),
    "archived": (s3_error("InvalidObjectState", 403), StorageError, "archive"),
    "no conditional writes": (s3_error("NotImplemented", 501), StorageError, "If-None-Match"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_not_retried_and_says_what_to_do(
    name: str, storage: RetryingStorage, proxy: FaultProxy, clock: Hasty
) -> None:
    answer, kind, words = REFUSALS[name]
    proxy.script(answer)
    with pytest.raises(kind) as caught:
        storage.put("packs/a", b"x")
    error = caught.value
    assert type(error) is kind
    assert words in f"{error.message} {error.hint}"
    assert (error.storage, error.operation, error.key) == ("aws_s3", "put", "packs/a")
    assert "aws_s3" in error.message and "packs/a" in error.message
    assert clock.waits == []
    seen: BaseException | None = error
    while seen is not None:
        assert SECRET_KEY not in f"{seen!r} {seen}" and ACCESS_KEY not in f"{seen!r} {seen}"
        seen = seen.__cause__ or seen.__context__


def test_how_far_the_clocks_differ(inner: S3Storage, proxy: FaultProxy) -> None:
    headers = (("Content-Type", "application/xml"), ("Date", "Fri, 01 Jan 2021 00:00:00 GMT"))
    body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>m</Message></Error>"
    proxy.script(Answer(403, body, headers=headers))
    with pytest.raises(StorageDenied, match=r"clock is \d+ seconds ahead of the server's"):
        inner.get("a")
    assert datetime.now(UTC).year >= 2021


def test_expired_credentials_of_a_head(inner: S3Storage, proxy: FaultProxy) -> None:
    """A HEAD's answer has no body, so no error code."""
    for status in (400, 403):
        proxy.script(Answer(status, method="HEAD", times=2 if status == 400 else 1))  # once to look for the region
        with pytest.raises(StorageDenied, match="GetObject"):
            inner.info("a")
    with pytest.raises(ObjectMissing):
        inner.info("a")
