"""What an answer of an S3 server means: its error code and status, as one of our errors. Knows no SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.http_failures import kind_of_status, retry_after

_ROOM_HINT = "Make room, or raise the quota."
_EXPIRED_HINT = "Renew the credentials; BACKUP_AWS_SESSION_TOKEN belongs to temporary ones only."
_UNKNOWN_HINT = "Check BACKUP_AWS_ACCESS_KEY_ID and, for temporary credentials, BACKUP_AWS_SESSION_TOKEN."
_SECRET_HINT = "Check BACKUP_AWS_SECRET_ACCESS_KEY: it is not the one of that key id."  # noqa: S105 - no secret
_CLOCK_HINT = "Set this machine's clock: requests are refused once it is 15 minutes off."
_RIGHTS_HINT = "Grant the right; docs/operations.md lists what a writer and a pruner need."
_REGION_HINT = "Set BACKUP_AWS_REGION to the bucket's region."
_BUCKET_HINT = "Make the bucket, or check BACKUP_AWS_BUCKET_NAME, BACKUP_AWS_REGION and BACKUP_AWS_ENDPOINT_URL."
LOCKS_HINT = "Object Lock is switched on when a bucket is made. Use one that has it, or unset BACKUP_AWS_LOCK_DAYS."
_ARCHIVED_HINT = "Bring it back from the archive, and keep lifecycle rules from archiving this prefix."
_CREATE_ONCE_HINT = "The server must know conditional writes (If-None-Match): without them writers destroy each other."


_MEANINGS: tuple[tuple[str, type[StorageError], str, str], ...] = (
    # Busy, or the bytes were damaged or cut on their way: the same call may succeed.
    ("BadDigest BandwidthLimitExceeded ConditionalRequestConflict IncompleteBody InternalError OperationAborted "
     "RequestLimitExceeded RequestTimeout RequestTimeoutException ServiceUnavailable SlowDown SlowDownRead "
     "SlowDownWrite Throttling ThrottlingException TooManyRequests XAmzContentChecksumMismatch "
     "XAmzContentSHA256Mismatch", StorageUnavailable, "{told}", ""),
    ("InsufficientStorage QuotaExceeded StorageFull XMinioAdminBucketQuotaExceeded XMinioStorageFull",
     StorageFull, "{told}", _ROOM_HINT),
    ("RequestTimeTooSkewed", StorageDenied, "{skew}", _CLOCK_HINT),
    ("ExpiredToken ExpiredTokenException TokenRefreshRequired RequestExpired",
     StorageDenied, "the credentials have expired: {told}", _EXPIRED_HINT),
    ("InvalidAccessKeyId InvalidClientTokenId InvalidToken UnrecognizedClientException",
     StorageDenied, "the server does not know these credentials: {code}", _UNKNOWN_HINT),
    ("SignatureDoesNotMatch", StorageDenied, "the server does not accept the signature: {code}", _SECRET_HINT),
    ("PreconditionFailed 412", ObjectExists, "the object exists already", ""),
    ("NoSuchBucket", StorageError, "there is no bucket {bucket}", _BUCKET_HINT),
    ("NoSuchKey NoSuchVersion NotFound", ObjectMissing, "no such object", ""),
    ("AuthorizationHeaderMalformed IllegalLocationConstraintException PermanentRedirect TemporaryRedirect 301 307",
     StorageError, "the bucket is in another region: {told}", _REGION_HINT),
    ("InvalidObjectState", StorageError, "the object is in an archive: {told}", _ARCHIVED_HINT),
    ("NotImplemented 501", StorageError, "the server can't do this: {told}", _CREATE_ONCE_HINT),
)  # fmt: skip
"""Error codes (of a HEAD, whose answer has no body, statuses): what they are, and what to do."""
_BY_CODE = {code: (kind, text, hint) for codes, kind, text, hint in _MEANINGS for code in codes.split()}
_NO_LOCKS = "Bucket is missing Object Lock Configuration"
_NOT_LOCKED = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})

_RIGHTS = {
    "put": "s3:PutObject",
    "get": "s3:GetObject",
    "info": "s3:GetObject",
    "list": "s3:ListBucket",
    "usage": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "extend_lock": "s3:PutObjectRetention",
    "locked_until": "s3:GetObjectRetention",
}


@dataclass(frozen=True)
class Asked:
    """What was asked for, as errors name it."""

    storage: str
    bucket: str
    operation: str
    key: str = ""

    @property
    def text(self) -> str:
        return f"{self.storage}: {self.operation} {self.key or f'in the bucket {self.bucket}'}"

    def error(self, kind: type[StorageError], message: str, hint: str = "") -> StorageError:
        """An error of that kind, which names all this."""
        return kind(f"{self.text}: {message}", storage=self.storage, operation=self.operation, key=self.key, hint=hint)


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error."""

    code: str
    status: int
    message: str
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        return f"{self.code or 'no code'} (HTTP {self.status}){': ' if self.message else ''}{self.message}"


def meaning(refusal: Refusal, asked: Asked, now: datetime) -> StorageError:
    """The error to raise for that answer."""
    kind, text, hint = _BY_CODE.get(refusal.code) or _BY_CODE.get(str(refusal.status)) or _by_status(refusal, asked)
    if kind is ObjectMissing and not asked.key:
        kind, text, hint = StorageError, "there is no bucket {bucket}, or no server of S3's kind", _BUCKET_HINT
    if _NO_LOCKS in refusal.message:
        text, hint = "the bucket {bucket} has no Object Lock", LOCKS_HINT
    facts = {"told": refusal.text, "code": refusal.code, "bucket": asked.bucket, "skew": _skew(refusal, now)}
    error = asked.error(kind, text.format(**facts), hint)
    if isinstance(error, StorageUnavailable):
        error.retry_after = retry_after(refusal.headers, now)
    return error


def _by_status(refusal: Refusal, asked: Asked) -> tuple[type[StorageError], str, str]:
    """What is left to tell by where the code says nothing."""
    kind = kind_of_status(refusal.status)
    if refusal.status == 404:
        return ObjectMissing, "no such object", ""
    if kind is StorageDenied or refusal.code == "400":  # a HEAD's 400: expired credentials, most of all
        right = _RIGHTS.get(asked.operation, "a right")
        return StorageDenied, f"refused, {right} is needed: {{told}}", _RIGHTS_HINT
    return kind, "{told}", _ROOM_HINT if kind is StorageFull else ""


def is_denied(refusal: Refusal) -> bool:
    """Whether the account lacks the right, or the server knows no such request."""
    return refusal.status in (401, 403, 405, 501)


def is_without_lock(refusal: Refusal) -> bool:
    """Whether the answer says that the object, or its whole bucket, has no lock."""
    return refusal.code in _NOT_LOCKED or _NO_LOCKS in refusal.message


def _skew(refusal: Refusal, now: datetime) -> str:
    there = refusal.headers.get("date", "")
    try:
        seconds = (now - parsedate_to_datetime(there)).total_seconds()
    except (TypeError, ValueError):
        return "the server's clock and this machine's differ too much"
    way = "ahead of" if seconds > 0 else "behind"
    return f"this machine's clock is {abs(seconds):.0f} seconds {way} the server's"
