"""What HTTP answers mean for a storage, whoever gives them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chrono_backups.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable

NO_ANSWER_OF_ITS = "the answer is none that this service gives"
NO_ANSWER_HINT = "See that nothing else answers in its place: a proxy, a portal, another kind of server."

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_DENIED = {401, 403, 407}
_FULL = {507}


def kind_of_status(status: int | None) -> type[StorageError]:
    """The error that a status stands for where nothing more is known of it; ``None``: no answer came."""
    if status is None or status in _PASSING:
        return StorageUnavailable
    if status in _DENIED:
        return StorageDenied
    return StorageFull if status in _FULL else StorageError


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for (RFC 9110, 10.2.3: seconds or a date); None where there is none."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())


def innermost_reason(error: BaseException) -> str:
    """What the operating system said. The errors around it name URLs, and those may carry signatures."""
    seen: dict[int, BaseException] = {}
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen[id(one)] = one
            waiting += [one.__cause__, one.__context__, *one.args]
            waiting += [getattr(one, "reason", None), getattr(one, "inner_exception", None)]
    said = [one.strerror for one in seen.values() if isinstance(one, OSError) and one.strerror]
    if said:
        return said[-1].lower()
    names = " ".join(type(one).__name__ for one in seen.values())
    if "Timeout" in names:
        return "no answer in time"
    return "the answer broke off" if "Incomplete" in names or "Chunked" in names else "the connection broke off"
