"""A storage in a container of Azure Blob Storage, or of a server that speaks its REST API."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    BlobServiceClient,
    ContentSettings,
    ImmutabilityPolicy,
    StandardBlobTier,
)

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import (
    ObjectLocked,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from chrono_backups.storage.azure_answers import age, check_tagged, policy_mode, protected_until
from chrono_backups.storage.azure_failures import meaning
from chrono_backups.storage.base import ObjectInfo, Usage
from chrono_backups.storage.buffers import as_bytes
from chrono_backups.storage.byte_ranges import exactly, past_the_end
from chrono_backups.storage.http_failures import NO_ANSWER_HINT, NO_ANSWER_OF_ITS, innermost_reason, retry_after
from chrono_backups.storage.http_sessions import TIMEOUT, new_session
from chrono_backups.storage.keys import check_key, check_prefix, check_range, is_key
from chrono_backups.storage.lasting import is_lasting
from chrono_backups.storage.lock_times import from_now, whole_seconds

if TYPE_CHECKING:
    from chrono_backups.storage.settings import AzureBlobSettings

# The library warns of what comes out as an error anyway; without a handler that would end up on standard error.
logging.getLogger("azure").addHandler(logging.NullHandler())

_ONE_REQUEST = 64 * 2**20
"""Larger objects go up in blocks of half this size: a broken connection costs no more than that."""
_ONE_ANSWER = 2**32
_PAGE = 1000
_NO_SUCH_RANGE = 416
_ERRORS_FROM = 400
_ANSWER_PIECE = 2**20
_FLAT = "Use a storage account without a hierarchical namespace: with one, names are not listed in order."
_CONTENT_TYPE = "application/octet-stream"


class AzureBlobStorage:
    """Block blobs of a container, each under its key.

    How it keeps the seam's duties:

    * ``put`` says ``If-None-Match: *``, so the service itself creates once, and sends the MD5 along, which the
      service compares before the blob exists. Up to 64 MiB it is one request; beyond, blocks of names that no
      other writer uses, and the blob exists when their list is committed, under the same condition.
    * ``get`` is one request. The length is compared with what the answer promises, and a whole object with the
      MD5 that the service keeps of it. Bytes that are not those are ``StorageUnavailable``.
    * The service lists in key order, a thousand a page. With a hierarchical namespace it does not, which is noticed.
    * The library's own retries are off, but for two of a body that breaks off, which it can't do without.

    With ``lock_days`` each blob that is to last gets an immutability policy of its own. Such a container keeps
    versions, and what can't be deleted is the version: somebody else's delete or overwriting only lays another one on
    top. So a listing shows the first version of each key, a key that somebody deleted is read from it, and ``delete``
    removes all versions, or none where one is locked.
    """

    def __init__(
        self,
        client: BlobServiceClient,
        container: str,
        *,
        name: str = "azure_blob",
        tier: str = "Hot",
        lock_days: int = 0,
        lock_mode: str = "Locked",
        clock: Clock | None = None,
    ) -> None:
        """``client`` is closed with this storage."""
        self._client = client
        self._container_name = container
        self._container = client.get_container_client(container)
        self._name = name
        self._tier = StandardBlobTier(tier)
        self._lock_mode = lock_mode
        self._clock = clock or SystemClock()
        self.lock_days = lock_days
        self.paces = True

    @classmethod
    def open(
        cls,
        settings: AzureBlobSettings,
        *,
        name: str = "azure_blob",
        create: bool = False,
        client: BlobServiceClient | None = None,
        timeout: tuple[float, float] = TIMEOUT,
        clock: Clock | None = None,
    ) -> AzureBlobStorage:
        """The container of the settings. ``create`` looks whether it can hold a repository; it makes no container.

        ``client``: a ready one, such as Dagster's ``AzureBlobStorageResource`` gives. Its address and credential are
        used, on connections of this storage's own. ``timeout``: as ``http_sessions.TIMEOUT``.
        """
        assert settings.container_name is not None  # settings do not enable a storage without it
        opened = cls(
            _new_client(settings, name, timeout) if client is None else _client(client.url, client.credential, timeout),
            settings.container_name,
            name=name,
            tier=settings.tier,
            lock_days=settings.lock_days,
            lock_mode=settings.lock_mode,
            clock=clock,
        )
        if create:
            opened._check_the_account()
        return opened

    @property
    def name(self) -> str:
        return self._name

    @property
    def location(self) -> str:
        parts = urlsplit(self._client.url)
        path = f"{parts.path.rstrip('/')}/{self._container_name}"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"

    # Put

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        check_key(key)
        # Released on every way out: an exception's traceback must not keep the caller's buffer exported.
        with memoryview(data) as given, as_bytes(given) as view, self._translated("put", key):
            if view.nbytes > _ONE_REQUEST:
                self._put_in_blocks(key, view)
            else:
                answer = self._container.get_blob_client(key).upload_blob(
                    data if isinstance(data, bytes) else bytes(view),
                    overwrite=False,
                    validate_content=True,
                    content_settings=ContentSettings(content_type=_CONTENT_TYPE),
                    standard_blob_tier=self._tier,
                    **self._policy(key),
                )
                check_tagged(answer)

    def _policy(self, key: str) -> dict[str, Any]:
        if not (self.lock_days and is_lasting(key)):
            return {}
        until = from_now(self._clock, self.lock_days)
        return {"immutability_policy": ImmutabilityPolicy(expiry_time=until, policy_mode=self._lock_mode)}

    def _put_in_blocks(self, key: str, view: memoryview) -> None:
        # Not by the library: it names blocks by their place, and two writers would lay theirs into one another's blob.
        blob = self._container.get_blob_client(key)
        ours = self._clock.random_bytes(16).hex()
        digest = hashlib.md5(usedforsecurity=False)
        blocks = []
        for number, begin in enumerate(range(0, view.nbytes, _ONE_REQUEST // 2)):
            part = bytes(view[begin : begin + _ONE_REQUEST // 2])
            digest.update(part)
            blocks.append(BlobBlock(f"{ours}-{number:06d}"))
            blob.stage_block(blocks[-1].id, part, validate_content=True)
        answer = blob.commit_block_list(
            blocks,
            match_condition=MatchConditions.IfMissing,
            validate_content=True,
            content_settings=ContentSettings(content_type=_CONTENT_TYPE, content_md5=bytearray(digest.digest())),
            standard_blob_tier=self._tier,
            **self._policy(key),
        )
        check_tagged(answer)

    # Get

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        check_key(key)
        check_range(offset, length)
        if length == 0:
            return self._nothing(key, offset)
        try:
            return self._get(key, offset, length)
        except ObjectMissing:
            version = self._first_version(key)
            if version is None:
                raise
            return self._get(key, offset, length, version_id=version.version_id)

    def _get(self, key: str, offset: int, length: int | None, **which: Any) -> bytes:
        given: dict[str, Any] = {} if (offset, length) == (0, None) else {"offset": offset, "length": length}
        try:
            with self._translated("get", key):
                answer = self._container.get_blob_client(key).download_blob(**given, **which)
                content = answer.readall()
        except StorageError as error:
            if getattr(error.__cause__, "status_code", None) != _NO_SUCH_RANGE:
                raise
            return self._nothing(key, offset, length, **which)
        # "bytes BEGIN-END/SIZE": the size is the service's, begin and end the library repeats from the question.
        size = int(str(answer.properties.content_range).rpartition("/")[2])
        self._check_md5(key, content, size, answer.properties.content_settings.content_md5)
        came = f"bytes {offset}-{offset + answer.size - 1}/{size}" if size else None
        return exactly(self, key, content, offset, length, came)

    def _check_md5(self, key: str, content: bytes, size: int, kept: bytes | bytearray | None) -> None:
        if kept is None or len(content) != size:
            return  # the service has one of the whole object only
        if hashlib.md5(content, usedforsecurity=False).digest() != bytes(kept):
            raise self._error(StorageUnavailable, "get", key, "the bytes that came do not have the object's MD5")

    def _nothing(self, key: str, offset: int, length: int | None = 0, **which: Any) -> bytes:
        """An answer without a byte: the end of the object, unless it ends before."""
        size = self._info(key, **which).size if which else self.info(key).size
        if offset + (length or 0) > size:
            raise past_the_end(self, key, offset, length, size)
        return b""

    def _first_version(self, key: str) -> BlobProperties | None:
        """What was put here first, where locks keep it although somebody deleted it."""
        return next(iter(self._versions(key)), None) if self.lock_days else None

    # Info, list, delete

    def info(self, key: str) -> ObjectInfo:
        check_key(key)
        try:
            return self._info(key)
        except ObjectMissing:
            version = self._first_version(key)
            if version is None:
                raise
            return ObjectInfo(key, int(version.size))

    def _info(self, key: str, **which: Any) -> ObjectInfo:
        return ObjectInfo(key, int(self._properties(key, "info", **which).size))

    def _properties(self, key: str, operation: str, **which: Any) -> BlobProperties:
        with self._translated(operation, key):
            found = self._container.get_blob_client(key).get_blob_properties(**which)
            check_tagged(found)
            return found

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        last = ""
        # Versions of one name come one after the other, the oldest first.
        for key, versions in groupby(self._blobs("list", prefix), key=lambda blob: blob.name):
            if key <= last:
                raise self._error(StorageError, "list", prefix, "names do not come in order", _FLAT)
            last = key
            if is_key(key):
                yield ObjectInfo(key, int(min(versions, key=age).size))

    def _blobs(self, operation: str, prefix: str) -> Iterator[BlobProperties]:
        include = ["versions", "immutabilitypolicy"] if self.lock_days else None
        with self._translated(operation, prefix):
            pages = self._container.list_blobs(name_starts_with=prefix or None, include=include, results_per_page=_PAGE)
            by_page = pages.by_page()
        while True:
            with self._translated(operation, prefix):
                page = next(by_page, None)
                blobs = [] if page is None else list(page)
            if page is None:
                return
            yield from blobs

    def _versions(self, key: str) -> Sequence[BlobProperties]:
        """All versions of the key, the oldest first."""
        return sorted((blob for blob in self._blobs("info", key) if blob.name == key), key=age)

    def delete(self, key: str) -> None:
        check_key(key)
        versions = self._versions(key) if self.lock_days else []
        until = max((until for until in map(protected_until, versions) if until is not None), default=None)
        if until is not None and until > self._clock.now():
            raise self._locked(key, until)
        try:
            if not versions or any(version.is_current_version for version in versions):
                self._delete(key)
            for version in versions:
                if version.version_id is not None:
                    self._delete(key, version_id=version.version_id)
        except StorageDenied:
            until = self._lock_in_the_way(key)
            if until is None:
                raise
            raise self._locked(key, until) from None

    def _delete(self, key: str, **which: Any) -> None:
        with suppress(ObjectMissing), self._translated("delete", key):
            self._container.get_blob_client(key).delete_blob(**which)

    def _lock_in_the_way(self, key: str) -> datetime | None:
        try:
            return self.locked_until(key)
        except StorageError:  # may not even be read: then it is the right that is missing
            return None

    def _locked(self, key: str, until: datetime) -> ObjectLocked:
        message = f"{self.name} ({self.location}): {key} is locked until {until:%Y-%m-%d %H:%M:%S} UTC"
        return ObjectLocked(message, until=until, storage=self.name, operation="delete", key=key)

    def usage(self) -> Usage:
        return Usage(used=sum(info.size for info in self.list()), free=None)

    def close(self) -> None:
        self._client.close()

    # Locks

    def locked_until(self, key: str) -> datetime | None:
        check_key(key)
        until = protected_until(self._truth(key, "locked_until"))
        return until if until is not None and until > self._clock.now() else None

    def extend_lock(self, key: str, until: datetime) -> None:
        check_key(key)
        found = self._truth(key, "extend_lock")
        present = protected_until(found)
        if present is not None and present >= until:
            return
        mode = policy_mode(found) or self._lock_mode
        policy = ImmutabilityPolicy(expiry_time=whole_seconds(until), policy_mode=mode)
        which = {"version_id": found.version_id} if found.version_id else {}
        with self._translated("extend_lock", key):
            self._container.get_blob_client(key).set_immutability_policy(policy, **which)

    def _truth(self, key: str, operation: str) -> BlobProperties:
        """The properties of the version that counts."""
        version = self._first_version(key)
        return version if version is not None else self._properties(key, operation)

    def _check_the_account(self) -> None:
        try:
            with self._translated("open"):
                account = self._container.get_account_information()
                allowed = True
                if self.lock_days:
                    allowed = self._container.get_container_properties().immutable_storage_with_versioning_enabled
        except StorageDenied:
            return  # an account for blobs only may not look at them; the first put will tell
        if account.get("is_hns_enabled"):
            raise self._error(StorageError, "open", "", "the account has a hierarchical namespace", _FLAT)
        if not allowed:
            hint = "BACKUP_AZURE_LOCK_DAYS needs a container with version-level immutability (docs/operations.md)."
            raise self._error(StorageError, "open", "", "the container does not let blobs be locked", hint)

    # Errors

    @contextmanager
    def _translated(self, operation: str, key: str = "") -> Iterator[None]:
        try:
            yield
        except HttpResponseError as error:
            if error.response is not None and error.status_code is not None and error.status_code >= _ERRORS_FROM:
                raise self._refused(error, operation, key) from error
            raise self._failed(error, operation, key) from None
        # Without `from`: these name URLs, which may hold a signature.
        except (AzureError, OSError) as error:
            raise self._failed(error, operation, key) from None
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(StorageUnavailable, operation, key, NO_ANSWER_OF_ITS, NO_ANSWER_HINT) from error

    def _failed(self, error: Exception, operation: str, key: str) -> StorageError:
        if isinstance(error, ClientAuthenticationError):
            hint = "Set BACKUP_AZURE_ACCOUNT_KEY or BACKUP_AZURE_SAS_TOKEN, or run where an identity is attached."
            return self._error(StorageDenied, operation, key, "there is no login that works", hint)
        hint = f"See that {urlsplit(self._client.url).netloc.rpartition('@')[2]} can be reached from here."
        return self._error(StorageUnavailable, operation, key, innermost_reason(error), hint)

    def _refused(self, error: HttpResponseError, operation: str, key: str) -> StorageError:
        code = str(getattr(error.error_code, "value", error.error_code) or "")  # type: ignore[attr-defined]
        found = meaning(error.status_code, code, error.message, operation, self._container_name)
        refused = self._error(found.kind, operation, key, f"{found.reason} ({error.status_code})", found.hint)
        seconds = retry_after(getattr(error.response, "headers", {}), self._clock.now())
        if isinstance(refused, StorageUnavailable) and seconds is not None:
            refused.retry_after = seconds
        return refused

    def _error(self, kind: type[StorageError], operation: str, key: str, reason: str, hint: str = "") -> StorageError:
        subject = f"{operation} {key}".rstrip()
        message = f"{self._name} ({self.location}): {subject} failed: {reason}"
        return kind(message, storage=self._name, operation=operation, key=key, hint=hint)


def _new_client(settings: AzureBlobSettings, name: str, timeout: tuple[float, float]) -> BlobServiceClient:
    url = settings.endpoint_url or f"https://{settings.account_name}.blob.core.windows.net"
    credential: Any
    try:
        if settings.sas_token is not None:
            credential = AzureSasCredential(settings.sas_token.get_secret_value().lstrip("?"))
        elif settings.account_key is not None:
            key = settings.account_key.get_secret_value()
            base64.b64decode(key, validate=True)
            credential = AzureNamedKeyCredential(settings.account_name or "", key)
        else:
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - takes long, and a key does without

            credential = DefaultAzureCredential()
        return _client(url, credential, timeout)
    except ValueError:
        # Without `from`: the error may quote the key.
        raise StorageDenied(
            f"{name}: the credentials can't be used with {settings.endpoint_url or 'Azure'}",
            storage=name,
            operation="open",
            hint="BACKUP_AZURE_ACCOUNT_KEY is base64, as the portal shows it; an identity needs an https:// endpoint.",
        ) from None


def _client(url: str, credential: Any, timeout: tuple[float, float]) -> BlobServiceClient:
    times: dict[str, Any] = dict(zip(("connection_timeout", "read_timeout"), timeout, strict=True))
    return BlobServiceClient(
        url,
        credential=credential,
        transport=RequestsTransport(session=new_session(), connection_data_block_size=_ANSWER_PIECE, **times),
        retry_total=0,
        max_single_put_size=_ONE_REQUEST,
        max_single_get_size=_ONE_ANSWER,
        **times,
    )
