"""What the answers of Google Cloud Storage's JSON API mean.

Reasons and messages are those of its "HTTP status and error codes for JSON".
"""

from __future__ import annotations

from typing import Any

from chrono_backups.errors import ObjectExists, ObjectMissing, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.storage.http_failures import kind_of_status

_PASSING_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "backendError", "internalError"}
_LONGEST_TEXT = 200


def told(response: Any) -> tuple[str, str]:
    """What an answer says, and the service's word for the reason."""
    try:
        error = response.json()["error"]
        reasons = [one.get("reason", "") for one in error.get("errors", [])]
        return str(error["message"]), reasons[0] if reasons else ""
    except (AttributeError, ValueError, KeyError, TypeError):
        text = str(getattr(response, "text", "")).strip().partition("\n")[0]
        return text[:_LONGEST_TEXT] or "the service gave no reason", ""


def meaning(status: int | None, text: str, reason: str, operation: str, bucket: str) -> tuple[type[StorageError], str]:
    """The kind of error, and what the operator can do."""
    said = text.lower()
    kind, hint = kind_of_status(status), ""
    if reason in _PASSING_REASONS or status in (409, 410) or _came_damaged(status, said):
        kind = StorageUnavailable
    elif status == 404 and "bucket" in said and "no such object" not in said:
        kind, hint = StorageError, f"Make the bucket {bucket}, or mend BACKUP_GCS_BUCKET_NAME."
    elif status == 404:
        kind = ObjectMissing
    elif status == 412:
        # A put's condition is that there is no object; any other call's, that nobody changed it meanwhile.
        kind = ObjectExists if operation == "put" else StorageUnavailable
    elif status == 401:
        hint = "See that the key in BACKUP_GCS_CREDENTIALS_PATH is valid and this machine's clock right."
    elif status == 403:
        hint = f"Give the account a role that allows it on {bucket} (docs/operations.md lists them)."
    elif status == 400 and "retention" in said:
        hint = "BACKUP_GCS_LOCK_DAYS needs a bucket made with --enable-per-object-retention."
    return kind, hint


def _came_damaged(status: int | None, said: str) -> bool:
    return status == 400 and ("crc32c" in said or "md5" in said) and "match" in said


def login_failure(error: Exception) -> tuple[type[StorageError], str, str]:
    """The kind of error, the reason and the hint of a login that failed. The error itself may quote the key."""
    said = str(error)
    if getattr(error, "retryable", False):
        return StorageUnavailable, "the login service is busy", ""
    if "short-lived token" in said or "iat and exp" in said:
        reason = "the login was refused: this machine's clock is wrong"
        return StorageDenied, reason, "Set the clock, and keep it right by NTP."
    hint = "See that the key in BACKUP_GCS_CREDENTIALS_PATH is valid and not deleted, and this machine's clock right."
    return StorageDenied, "the login was refused", hint
