"""What the answers of Azure Blob Storage mean: the codes of its "Blob service error codes"."""

from __future__ import annotations

from dataclasses import dataclass

from chrono_backups.errors import ObjectExists, ObjectMissing, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.storage.http_failures import kind_of_status

_LONGEST_TEXT = 200
_PASSING = {
    "ServerBusy", "InternalError", "OperationTimedOut", "Md5Mismatch", "Crc64Mismatch", "ContainerBeingDeleted",
    # Another writer's commit threw our blocks away: the next attempt meets its object.
    "InvalidBlockList", "InvalidBlobOrBlock",
}  # fmt: skip
_NO_CONTAINER = {"ContainerNotFound", "ContainerDisabled"}
_EXISTS = {"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet", "UnauthorizedBlobOverwrite"}
_CLOCK = ("request date header too old", "not valid in the specified time frame", "signature not valid in the")


@dataclass(frozen=True)
class Meaning:
    """The kind of error, what to tell of it, and what the operator can do."""

    kind: type[StorageError]
    reason: str
    hint: str = ""


def meaning(status: int | None, code: str, text: str, operation: str, container: str) -> Meaning:
    """Of an answer with that status and error code; ``text`` is all that the service said."""
    reason = code or _first_line(text)
    if code in _PASSING:
        return Meaning(StorageUnavailable, reason)
    if code in _NO_CONTAINER:
        return Meaning(StorageError, reason, f"Make the container {container}, or mend BACKUP_AZURE_CONTAINER_NAME.")
    if operation == "put" and (code in _EXISTS or status == 412):
        return Meaning(ObjectExists, reason)
    if status == 404:
        return Meaning(ObjectMissing, reason)
    return _others(status, code, reason, text.lower(), container)


def _others(status: int | None, code: str, reason: str, said: str, container: str) -> Meaning:
    kind, hint = kind_of_status(status), ""
    if code == "BlobImmutableDueToPolicy":
        kind, hint = StorageDenied, "A policy or a legal hold keeps it."
    elif kind is StorageDenied and any(sign in said for sign in _CLOCK):
        reason, hint = (
            f"{reason}, because of the time",
            ("Set this machine's clock, and keep it right by NTP; or the shared access signature has run out."),
        )
    elif code in ("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation") or status == 401:
        hint = "See that BACKUP_AZURE_ACCOUNT_NAME and _KEY (or _SAS_TOKEN) belong together, and this machine's clock."
    elif code == "AuthorizationFailure":
        hint = "See that BACKUP_AZURE_ACCOUNT_NAME and _KEY belong together, and that the account lets this network in."
    elif kind is StorageDenied:
        hint = f"Give the identity a role that allows it on {container} (docs/operations.md lists them)."
    elif code == "BlobArchived":
        hint = "Rehydrate the blob to the tier Hot or Cool: what is archived can't be read."
    elif "immutab" in said:
        hint = "BACKUP_AZURE_LOCK_DAYS needs a container with version-level immutability (docs/operations.md)."
    return Meaning(kind, reason, hint)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:_LONGEST_TEXT] or "the service gave no reason"
