"""What Azure's answers tell of a blob, and whether they are Azure's."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties


def check_tagged(answer: Any) -> None:
    """Raise ``ValueError`` for an answer without the blob's tag: something on the way gave it."""
    if not answer.get("etag"):
        raise ValueError("an answer without an ETag")


def age(blob: BlobProperties) -> str:
    """What versions of a blob are sorted by: their ids are times. What is older than versions has none."""
    return blob.version_id or ""


def policy_mode(blob: BlobProperties) -> str:
    """``Locked`` or ``Unlocked``, however the service spells it; empty where the blob has no policy of its own."""
    mode = getattr(blob.immutability_policy, "policy_mode", None)
    spelled = str(getattr(mode, "value", mode) or "").title()
    return spelled if spelled in ("Locked", "Unlocked") else ""


def protected_until(blob: BlobProperties) -> datetime | None:
    """Until when the blob's own policy keeps it; None where it has none."""
    return blob.immutability_policy.expiry_time if policy_mode(blob) else None
