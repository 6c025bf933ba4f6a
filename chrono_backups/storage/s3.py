"""A storage in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import base64
import builtins
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import ObjectLocked, StorageError
from chrono_backups.storage.base import ObjectInfo, Usage
from chrono_backups.storage.buffers import as_bytes
from chrono_backups.storage.byte_ranges import exactly, past_the_end, range_header
from chrono_backups.storage.keys import check_key, check_prefix, check_range, is_key
from chrono_backups.storage.lasting import is_lasting
from chrono_backups.storage.pacing import read_whole
from chrono_backups.storage.s3_client import Body, Refused, new_client, refusal_of, send_at_once, translated
from chrono_backups.storage.s3_errors import LOCKS_HINT, Asked, is_denied, is_without_lock
from chrono_backups.storage.s3_versions import Version, Versions, the_object

if TYPE_CHECKING:
    from datetime import datetime

    from mypy_boto3_s3 import S3Client

    from chrono_backups.storage.settings import AwsS3Settings

_ONE_REQUEST = 64 * 2**20
"""Larger objects go up in parts of half this size: a broken connection costs no more than that."""
_PARTS_MOST = 10_000
_PAGE = 1000
T = TypeVar("T")


class S3Storage:
    """Objects of a bucket, each under the prefix and its key.

    How it keeps the seam's duties:

    * ``put`` asks for ``If-None-Match: *``, so the service itself creates once. Up to 64 MiB it is one request;
      beyond, a multipart upload, which makes the same demand when it is completed and is aborted when it fails.
      The service compares a SHA-256 before the object exists: of AWS as a checksum that it keeps, elsewhere as
      part of the signature, because compatible servers know no other for certain.
    * ``get`` is one request. The length is compared with what the answer promises and, of AWS, a whole object
      with its checksum.
    * The service lists in key order, a thousand a page.
    * The library's own retries are off: ``RetryingStorage`` is around it.
    * ``delete`` removes all versions of a key. Where the bucket keeps versions and the account may not remove
      them, the object is gone from sight, and its space is left to the bucket's lifecycle rules.

    With ``lock_days`` each object that is to last is locked by Object Lock, and of each of them the *oldest* version is
    read, listed and kept: what was laid over it later, another version or a delete marker, was not laid by us.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        prefix: str = "",
        *,
        name: str = "aws_s3",
        location: str = "",
        storage_class: str = "STANDARD",
        keeps_checksums: bool = False,
        lock_days: int = 0,
        lock_mode: str = "COMPLIANCE",
        clock: Clock | None = None,
    ) -> None:
        """``client`` is the caller's to close. ``keeps_checksums`` is for AWS itself."""
        send_at_once(client)
        self._client = client
        self._bucket = bucket
        self._prefix = "".join(f"{part}/" for part in prefix.split("/") if part)
        self._name = name
        self._location = location or f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._storage_class = storage_class
        self._keeps_checksums = keeps_checksums
        self._lock_mode = lock_mode
        self._clock = clock or SystemClock()
        self._owns_client = False
        self._versions = Versions(client, bucket, self._prefix)
        self._removes_versions = True
        self.lock_days = lock_days
        self.paces = True

    @classmethod
    def open(
        cls,
        settings: AwsS3Settings,
        *,
        name: str = "aws_s3",
        create: bool = False,
        client: S3Client | None = None,
        clock: Clock | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
    ) -> S3Storage:
        """The bucket of the settings. ``create`` looks whether it can hold a repository; it makes no bucket.

        ``client``: a ready one, such as Dagster's ``S3Resource`` gives, in place of the settings' credentials.
        """
        bucket, endpoint = settings.bucket_name, settings.endpoint_url
        assert bucket is not None  # settings do not enable a storage without it
        elsewhere = f" at {urlsplit(endpoint).netloc.rpartition('@')[2]}" if endpoint else ""
        path = "/".join(part for part in (bucket, *settings.prefix.split("/")) if part)
        opened = cls(
            client or new_client(settings, name, connect_timeout, read_timeout),
            bucket,
            settings.prefix,
            name=name,
            location=f"s3://{path}{elsewhere}",
            storage_class=settings.storage_class,
            keeps_checksums=endpoint is None,
            lock_days=settings.lock_days,
            lock_mode=settings.lock_mode,
            clock=clock,
        )
        opened._owns_client = client is None
        if create:
            opened._check_bucket()
        return opened

    @property
    def name(self) -> str:
        return self._name

    @property
    def location(self) -> str:
        return self._location

    # Put

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        check_key(key)
        # Released on every way out: an exception's traceback must not keep the caller's buffer exported.
        with memoryview(data) as given, as_bytes(given) as view, self._translated("put", key):
            if view.nbytes > _ONE_REQUEST:
                self._put_in_parts(key, view)
            else:
                with closing(Body(view)) as body:
                    self._client.put_object(
                        **self._object(key),
                        **self._stored_as(key),
                        **self._proof(view, locked=self._locks(key)),
                        Body=cast("Any", body),
                        IfNoneMatch="*",
                    )

    def _put_in_parts(self, key: str, view: memoryview) -> None:
        size = max(_ONE_REQUEST // 2, -(-view.nbytes // _PARTS_MOST))
        upload = {
            **self._object(key),
            "UploadId": self._client.create_multipart_upload(**self._object(key), **self._stored_as(key))["UploadId"],
        }
        try:
            parts = []
            for number, begin in enumerate(range(0, view.nbytes, size), start=1):
                with view[begin : begin + size] as part, closing(Body(part)) as body:
                    sent = self._client.upload_part(
                        **upload, PartNumber=number, ContentMD5=_md5(part), Body=cast("Any", body)
                    )
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            self._client.complete_multipart_upload(
                **upload, MultipartUpload=cast("Any", {"Parts": parts}), IfNoneMatch="*"
            )
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                self._client.abort_multipart_upload(**upload)
            raise

    def _object(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _locks(self, key: str) -> bool:
        return self.lock_days > 0 and is_lasting(key)

    def _stored_as(self, key: str) -> dict[str, Any]:
        stored: dict[str, Any] = {"StorageClass": self._storage_class}
        if self._locks(key):
            stored["ObjectLockMode"] = self._lock_mode
            stored["ObjectLockRetainUntilDate"] = self._clock.now() + timedelta(days=self.lock_days)
        return stored

    def _proof(self, view: memoryview, *, locked: bool) -> dict[str, Any]:
        """What the service proves the body with, beyond the signature; a locked object must have such."""
        if self._keeps_checksums:
            return {
                "ChecksumAlgorithm": "SHA256",
                "ChecksumSHA256": base64.b64encode(hashlib.sha256(view).digest()).decode(),
            }
        return {"ContentMD5": _md5(view)} if locked else {}

    # Get

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        check_key(key)
        check_range(offset, length)
        if length == 0:  # HTTP knows no empty range
            return self._nothing(key, offset, length)
        wanted = range_header(offset, length)
        if self._keeps_checksums and not wanted:
            wanted["ChecksumMode"] = "ENABLED"
        with self._translated("get", key):
            try:
                answer = self._of_truth(key, lambda version: self._client.get_object(**version, **cast("Any", wanted)))
            except Refused as error:
                if refusal_of(error).status != 416:
                    raise
                return self._nothing(key, offset, length)
            content = read_whole(answer["Body"].read)
        return exactly(self, key, content, offset, length, answer.get("ContentRange"))

    def _nothing(self, key: str, offset: int, length: int | None) -> bytes:
        """The empty range at ``offset``, if the object reaches so far."""
        size = self._head(key, "get").size
        if offset + (length or 0) > size:
            raise past_the_end(self, key, offset, length, size)
        return b""

    def info(self, key: str) -> ObjectInfo:
        check_key(key)
        return self._head(key, "info")

    def _head(self, key: str, operation: str) -> ObjectInfo:
        with self._translated(operation, key):
            found = self._of_truth(key, lambda version: self._client.head_object(**version))
        return ObjectInfo(key, found["ContentLength"])

    def _of_truth(self, key: str, call: Callable[[dict[str, Any]], T]) -> T:
        """The answer of ``call`` for the version that is the object."""
        wanted = self._object(key)
        if not self._locks(key):
            return call(wanted)
        oldest = self._versions.oldest_where_overlaid(key)
        if oldest is not None:
            return call({**wanted, "VersionId": oldest})
        try:
            return call(wanted)
        except Refused as error:
            if refusal_of(error).status != 404:
                raise
            hidden = the_object(self._versions.of(key) or [_NO_VERSION])  # by a delete marker that has just come
            if hidden is None:
                raise
        return call({**wanted, "VersionId": hidden.version_id})

    # List

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, "list")

    def _list(self, prefix: str, operation: str) -> Iterator[ObjectInfo]:
        lasting = self.lock_days > 0 and is_lasting(prefix)
        pages = self._versions.pages(prefix) if lasting else self._pages(prefix)
        while True:
            with self._translated(operation, ""):
                page = next(pages, None)
            if page is None:
                return
            yield from page

    def _pages(self, prefix: str) -> Iterator[builtins.list[ObjectInfo]]:
        at: dict[str, Any] = {}
        while True:
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=_PAGE, **at)
            found = ((one["Key"].removeprefix(self._prefix), one["Size"]) for one in page.get("Contents", ()))
            yield [ObjectInfo(key, size) for key, size in found if is_key(key)]
            if not page.get("IsTruncated"):
                return
            at = {"ContinuationToken": page["NextContinuationToken"]}

    def usage(self) -> Usage:
        return Usage(used=sum(info.size for info in self._list("", "usage")), free=None)

    # Delete

    def delete(self, key: str) -> None:
        check_key(key)
        with self._translated("delete", key):
            if self.lock_days:
                self._delete_versions(key)
                return
            answer = self._client.delete_object(**self._object(key))
            if answer.get("DeleteMarker") and self._removes_versions:
                try:
                    self._delete_versions(key)
                except Refused as error:
                    if not is_denied(refusal_of(error)):
                        raise
                    self._removes_versions = False

    def _delete_versions(self, key: str) -> None:
        # The oldest one, which is the object, last: nothing of less worth may take its place.
        for version in self._versions.of(key):
            try:
                self._client.delete_object(**self._object(key), VersionId=version.version_id)
            except Refused as error:
                until = self._retention(key, version.version_id) if refusal_of(error).status in (400, 403) else None
                if until is None or until <= self._clock.now():
                    raise
                message = f"{self.name}: {key} is locked until {until:%Y-%m-%d %H:%M:%S} UTC"
                raise ObjectLocked(message, until=until, storage=self.name, operation="delete", key=key) from error

    # Locks

    def locked_until(self, key: str) -> datetime | None:
        check_key(key)
        with self._translated("locked_until", key):
            until = self._retention(key)
        return until if until is not None and until > self._clock.now() else None

    def _retention(self, key: str, version_id: str | None = None) -> datetime | None:
        """Until when that version, or the object, is locked. Told only to who has ``s3:GetObjectRetention``."""
        if version_id is not None:
            answer = self._client.head_object(**self._object(key), VersionId=version_id)
        else:
            answer = self._of_truth(key, lambda version: self._client.head_object(**version))
        return answer.get("ObjectLockRetainUntilDate")

    def extend_lock(self, key: str, until: datetime) -> None:
        check_key(key)
        with self._translated("extend_lock", key):
            # A server may take an earlier date for what it is: the wish to make the lock shorter.
            held = self._retention(key)
            if held is None or held < until:
                retention: Any = {"Mode": self._lock_mode, "RetainUntilDate": until}
                self._of_truth(key, lambda version: self._client.put_object_retention(**version, Retention=retention))

    def _check_bucket(self) -> None:
        with self._translated("init", ""):
            self._client.head_bucket(Bucket=self._bucket)
            if self.lock_days and not self._bucket_locks():
                message = f"{self.name}: the bucket {self._bucket} has no Object Lock"
                raise StorageError(message, storage=self.name, operation="init", hint=LOCKS_HINT)

    def _bucket_locks(self) -> bool:
        try:
            self._client.get_object_lock_configuration(Bucket=self._bucket)
        except Refused as error:
            if not is_denied(refusal_of(error)) and not is_without_lock(refusal_of(error)):
                raise
            return is_denied(refusal_of(error))  # a right that nothing else needs: the first put will tell
        return True

    def close(self) -> None:
        if self._owns_client:
            self._client.close()

    def _translated(self, operation: str, key: str) -> AbstractContextManager[None]:
        return translated(Asked(self.name, self._bucket, operation, key), self._clock)


_NO_VERSION = Version("-", "", None, newest=True)


def _md5(view: memoryview) -> str:
    return base64.b64encode(hashlib.md5(view, usedforsecurity=False).digest()).decode()
