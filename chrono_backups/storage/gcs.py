"""A storage in a bucket of Google Cloud Storage, or of a server that speaks its JSON API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import google.api_core.exceptions as api_errors
import google.auth.exceptions as auth_errors
import google_crc32c
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as sdk

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import (
    ObjectLocked,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from chrono_backups.storage.base import ObjectInfo, Usage
from chrono_backups.storage.buffers import BufferReader, as_bytes
from chrono_backups.storage.byte_ranges import exactly, past_the_end, range_header
from chrono_backups.storage.gcs_failures import login_failure, meaning, told
from chrono_backups.storage.http_failures import NO_ANSWER_HINT, NO_ANSWER_OF_ITS, innermost_reason, retry_after
from chrono_backups.storage.http_sessions import CONNECTION_ERRORS, TIMEOUT, Body, mount
from chrono_backups.storage.keys import check_key, check_prefix, check_range, is_key
from chrono_backups.storage.lasting import is_lasting
from chrono_backups.storage.lock_times import from_now, whole_seconds
from chrono_backups.storage.pacing import read_whole

if TYPE_CHECKING:
    import requests

    from chrono_backups.storage.settings import GcsSettings

_ONE_REQUEST = 64 * 2**20
"""Larger objects go up in parts of half this size: a broken connection costs no more than that."""
_PAGE = 1000
_CHECKSUM_PIECE = 2**20
_CONTENT_TYPE = "application/octet-stream"


class GcsStorage:
    """Objects of a bucket, each under its key.

    How it keeps the seam's duties:

    * ``put`` asks for generation 0 (``ifGenerationMatch=0``), so the service itself creates once, and sends the
      CRC32C along, which the service compares before the object exists. Up to 64 MiB it is one request; beyond, a
      resumable upload, whose object exists only when its last part has come.
    * ``get`` is one request. The length is compared with what the answer promises, and a whole object with
      the CRC32C that the service keeps of it. Bytes that are not those are ``StorageUnavailable``.
    * The service lists in key order, a thousand a page.
    * The library's own retries are off: ``RetryingStorage`` is around it.

    With ``lock_days`` each object that is to last gets a retention of its own, which the bucket has to allow since its
    creation. In the mode ``Locked`` nobody can take it back before its time.

    Deleting frees space at once only where the bucket has neither soft delete nor versions (docs/operations.md).
    """

    def __init__(
        self,
        client: sdk.Client,
        bucket: str,
        *,
        name: str = "gcs",
        storage_class: str = "STANDARD",
        lock_days: int = 0,
        lock_mode: str = "Locked",
        timeout: tuple[float, float] = TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        """``client`` is the caller's to close. ``timeout``: as ``http_sessions.TIMEOUT``."""
        self._client = client
        # From 3.11 on the library asks for the bucket itself in a thread of its own, to label traces: a request
        # that nobody ordered, and that an account for objects only has no right to.
        client._bucket_metadata_cache = None
        self._session: requests.Session = client._http
        mount(self._session)
        self._bucket_name = bucket
        self._bucket = client.bucket(bucket)
        self._endpoint = client.api_endpoint.rstrip("/")
        self._name = name
        self._storage_class = storage_class
        self._lock_mode = lock_mode
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._owns_client = False
        self.lock_days = lock_days
        self.paces = True

    @classmethod
    def open(
        cls,
        settings: GcsSettings,
        *,
        name: str = "gcs",
        create: bool = False,
        client: sdk.Client | None = None,
        timeout: tuple[float, float] = TIMEOUT,
        clock: Clock | None = None,
    ) -> GcsStorage:
        """The bucket of the settings. ``create`` looks whether it can hold a repository; it makes no bucket.

        ``client``: a ready one, such as Dagster's ``GCSResource`` gives, in place of the settings' credentials.
        """
        assert settings.bucket_name is not None  # settings do not enable a storage without it
        opened = cls(
            client or _new_client(settings, name),
            settings.bucket_name,
            name=name,
            storage_class=settings.storage_class,
            lock_days=settings.lock_days,
            lock_mode=settings.lock_mode,
            timeout=timeout,
            clock=clock,
        )
        opened._owns_client = client is None
        if create and settings.lock_days:
            opened._check_that_it_locks()
        return opened

    @property
    def name(self) -> str:
        return self._name

    @property
    def location(self) -> str:
        host = urlsplit(self._endpoint).netloc.rpartition("@")[2]
        elsewhere = "" if host.endswith(".googleapis.com") else f" at {host}"
        return f"gs://{self._bucket_name}{elsewhere}"

    # Put

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        check_key(key)
        # Released on every way out: an exception's traceback must not keep the caller's buffer exported.
        with memoryview(data) as given, as_bytes(given) as view, self._translated("put", key):
            if view.nbytes > _ONE_REQUEST:
                self._put_in_parts(key, view)
            else:
                self._put_at_once(key, view)

    def _put_at_once(self, key: str, view: memoryview) -> None:
        # Not by the library: from 8 MiB on it takes a second request, just to begin, and copies twice.
        boundary = self._clock.random_bytes(16).hex()
        head = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{json.dumps(self._description(key, view))}\r\n"
            f"--{boundary}\r\nContent-Type: {_CONTENT_TYPE}\r\n\r\n"
        )
        body = Body([head.encode(), view, f"\r\n--{boundary}--\r\n".encode()])
        try:
            answer = self._session.request(
                "POST",
                f"{self._endpoint}/upload/storage/v1/b/{quote(self._bucket_name, safe='')}/o",
                params={"uploadType": "multipart", "ifGenerationMatch": "0", "fields": "generation"},
                data=body,
                headers={"Content-Type": f"multipart/related; boundary={boundary}"},
                timeout=self._timeout,
            )
            if answer.status_code != HTTPStatus.OK:
                raise api_errors.from_http_response(answer)
            answer.json()["generation"]  # it is the service that says so, and no portal on the way
        finally:
            body.close()

    def _locks(self, key: str) -> bool:
        return self.lock_days > 0 and is_lasting(key)

    def _description(self, key: str, view: memoryview) -> dict[str, Any]:
        described: dict[str, Any] = {
            "name": key,
            "crc32c": _crc32c(view),
            "contentType": _CONTENT_TYPE,
            "storageClass": self._storage_class,
        }
        if self._locks(key):
            until = from_now(self._clock, self.lock_days)
            described["retention"] = {"mode": self._lock_mode, "retainUntilTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return described

    def _put_in_parts(self, key: str, view: memoryview) -> None:
        blob = self._bucket.blob(key, chunk_size=_ONE_REQUEST // 2)
        blob.storage_class = self._storage_class
        blob.crc32c = _crc32c(view)
        if self._locks(key):
            blob.retention.mode = self._lock_mode
            blob.retention.retain_until_time = from_now(self._clock, self.lock_days)
        with BufferReader(view) as reader:
            blob.upload_from_file(
                reader,
                size=view.nbytes,
                content_type=_CONTENT_TYPE,
                if_generation_match=0,
                checksum=None,  # ours stands in the description, and is compared before the object exists
                timeout=self._timeout,
                retry=None,
            )

    # Get

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        check_key(key)
        check_range(offset, length)
        if length == 0:
            return self._nothing(key, offset)
        with self._translated("get", key):
            headers = {"Accept-Encoding": "identity", **range_header(offset, length)}
            url = f"{self._endpoint}/download/storage/v1/b/{quote(self._bucket_name, safe='')}/o/{quote(key, safe='')}"
            with self._session.request(
                "GET", url, params={"alt": "media"}, headers=headers, stream=True, timeout=self._timeout
            ) as answer:
                if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    content = None
                elif answer.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    raise api_errors.from_http_response(answer)
                else:
                    content = read_whole(partial(answer.raw.read, decode_content=False))
                    self._check_crc32c(key, content, answer)
        if content is None:
            return self._nothing(key, offset, length)
        is_part = answer.status_code == HTTPStatus.PARTIAL_CONTENT
        return exactly(self, key, content, offset, length, answer.headers.get("Content-Range", "") if is_part else None)

    def _nothing(self, key: str, offset: int, length: int | None = 0) -> bytes:
        """An answer without a byte: the end of the object, unless it ends before."""
        size = self.info(key).size
        if offset + (length or 0) > size:
            raise past_the_end(self, key, offset, length, size)
        return b""

    def _check_crc32c(self, key: str, content: bytes, answer: requests.Response) -> None:
        if answer.status_code != HTTPStatus.OK:
            return  # the service has one of the whole object only
        kept = dict(part.strip().partition("=")[::2] for part in answer.headers.get("x-goog-hash", "").split(","))
        if "crc32c" in kept and kept["crc32c"] != _crc32c(memoryview(content)):
            raise self._error(StorageUnavailable, "get", key, "the bytes that came do not have the object's CRC32C")

    # Info, list, delete

    def info(self, key: str) -> ObjectInfo:
        check_key(key)
        with self._translated("info", key):
            return ObjectInfo(key, int(self._loaded(key).size))

    def _loaded(self, key: str) -> sdk.Blob:
        blob = self._bucket.blob(key)
        blob.reload(timeout=self._timeout, retry=None)
        return blob

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._translated("list", prefix):
            pages = self._client.list_blobs(
                self._bucket,
                prefix=prefix or None,
                page_size=_PAGE,
                fields="items(name,size),nextPageToken",
                timeout=self._timeout,
                retry=None,
            ).pages
        while True:
            with self._translated("list", prefix):
                page = next(pages, None)
            if page is None:
                return
            yield from (ObjectInfo(blob.name, int(blob.size)) for blob in page if is_key(blob.name))

    def delete(self, key: str) -> None:
        check_key(key)
        try:
            with self._translated("delete", key):
                self._bucket.blob(key).delete(timeout=self._timeout, retry=None)
        except ObjectMissing:
            pass
        except StorageDenied:
            until = self._lock_in_the_way(key)
            if until is None:
                raise
            message = f"{self.name} ({self.location}): {key} is locked until {until:%Y-%m-%d %H:%M:%S} UTC"
            raise ObjectLocked(message, until=until, storage=self.name, operation="delete", key=key) from None

    def _lock_in_the_way(self, key: str) -> datetime | None:
        """A lock answers as a missing right does, so the object itself is asked."""
        try:
            return self.locked_until(key)
        except StorageError:  # may not even be read: then it is the right that is missing
            return None

    def usage(self) -> Usage:
        return Usage(used=sum(info.size for info in self.list()), free=None)

    def close(self) -> None:
        if self._owns_client:
            self._client.close()

    # Locks

    def locked_until(self, key: str) -> datetime | None:
        check_key(key)
        with self._translated("locked_until", key):
            until = _retained_until(self._loaded(key))
        return until if until is not None and until > self._clock.now() else None

    def extend_lock(self, key: str, until: datetime) -> None:
        check_key(key)
        with self._translated("extend_lock", key):
            blob = self._loaded(key)
            present = _retained_until(blob)
            if present is not None and present >= until:
                return
            # An object keeps its mode: to lock an unlocked one takes a right that extending does not.
            if blob.retention.mode is None:
                blob.retention.mode = self._lock_mode
            blob.retention.retain_until_time = whole_seconds(until)
            # Where somebody extended it meanwhile, the conflict is StorageUnavailable, and it is looked at anew.
            blob.patch(if_metageneration_match=blob.metageneration, timeout=self._timeout, retry=None)

    def _check_that_it_locks(self) -> None:
        try:
            with self._translated("open"):
                bucket = self._client.get_bucket(self._bucket_name, timeout=self._timeout, retry=None)
        except StorageDenied:
            return  # an account for objects only may not look at the bucket; the first put will tell
        if bucket.object_retention_mode != "Enabled":
            raise StorageError(
                f"{self.name} ({self.location}): the bucket does not let objects be retained",
                storage=self.name,
                operation="open",
                hint="BACKUP_GCS_LOCK_DAYS needs a bucket with object retention, which is enabled when it is made: "
                f"gcloud storage buckets create gs://{self._bucket_name} --enable-per-object-retention.",
            )

    # Errors

    @contextmanager
    def _translated(self, operation: str, key: str = "") -> Iterator[None]:
        try:
            yield
        except api_errors.GoogleAPICallError as error:
            raise self._refused(error, operation, key) from error
        except auth_errors.TransportError as error:
            raise self._error(StorageUnavailable, operation, key, innermost_reason(error)) from None
        except auth_errors.GoogleAuthError as error:
            kind, reason, hint = login_failure(error)
            raise self._error(kind, operation, key, reason, hint) from None
        # Without `from`: these name URLs, which hold the tokens of uploads.
        except CONNECTION_ERRORS as error:
            hint = f"See that {urlsplit(self._endpoint).netloc.rpartition('@')[2]} can be reached from here."
            raise self._error(StorageUnavailable, operation, key, innermost_reason(error), hint) from None
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(StorageUnavailable, operation, key, NO_ANSWER_OF_ITS, NO_ANSWER_HINT) from error

    def _refused(self, error: api_errors.GoogleAPICallError, operation: str, key: str) -> StorageError:
        status = int(error.code) if error.code is not None else None
        text, reason = told(error.response)
        kind, hint = meaning(status, text, reason, operation, self._bucket_name)
        refused = self._error(kind, operation, key, f"{text} ({status})", hint)
        seconds = retry_after(getattr(error.response, "headers", {}), self._clock.now())
        if isinstance(refused, StorageUnavailable) and seconds is not None:
            refused.retry_after = seconds
        return refused

    def _error(self, kind: type[StorageError], operation: str, key: str, reason: str, hint: str = "") -> StorageError:
        subject = f"{operation} {key}".rstrip()
        message = f"{self._name} ({self.location}): {subject} failed: {reason}"
        return kind(message, storage=self._name, operation=operation, key=key, hint=hint)


def _new_client(settings: GcsSettings, name: str) -> sdk.Client:
    options = {"api_endpoint": settings.endpoint_url} if settings.endpoint_url else None
    path = settings.credentials_path
    try:
        if path is not None:
            return sdk.Client.from_service_account_json(str(path), project=settings.project_id, client_options=options)
        local = settings.endpoint_url is not None and settings.endpoint_url.startswith("http://")
        return sdk.Client(
            project=settings.project_id,
            credentials=AnonymousCredentials() if local else None,
            client_options=options,
        )
    except (auth_errors.GoogleAuthError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        # Without `from`: the error may quote the file, and that is a secret.
        where = "the ambient account" if path is None else f"the key file {path}"
        reason = error.strerror if path is not None and isinstance(error, OSError) else "it gives no valid credentials"
        raise StorageDenied(
            f"{name}: {where} can't be used: {reason}",
            storage=name,
            operation="open",
            hint="Name a service account's key file in BACKUP_GCS_CREDENTIALS_PATH, or run where one is attached.",
        ) from None


def _crc32c(view: memoryview) -> str:
    """As the service writes it: base64 of the big-endian value."""
    checksum = google_crc32c.Checksum()
    for begin in range(0, view.nbytes, _CHECKSUM_PIECE):
        checksum.update(bytes(view[begin : begin + _CHECKSUM_PIECE]))  # it takes nothing that could change
    return base64.b64encode(checksum.digest()).decode()


def _retained_until(blob: sdk.Blob) -> datetime | None:
    """The later one of the object's own retention and its bucket's."""
    times = [time for time in (blob.retention.retain_until_time, blob.retention_expiration_time) if time is not None]
    return max(times, default=None)
