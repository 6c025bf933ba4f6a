"""Ranges of an object as HTTP asks for them, and the proof that an answer holds exactly what was asked for."""

from __future__ import annotations

import re

from chrono_backups.errors import StorageError, StorageUnavailable
from chrono_backups.storage.base import Storage

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def range_header(offset: int, length: int | None) -> dict[str, str]:
    """The header that asks for that range; none for a whole object. HTTP knows no empty range."""
    if length is None:
        return {} if offset == 0 else {"Range": f"bytes={offset}-"}
    return {"Range": f"bytes={offset}-{offset + length - 1}"}


def exactly(
    storage: Storage, key: str, content: bytes, offset: int, length: int | None, content_range: str | None
) -> bytes:
    """The bytes asked for, out of an answer's body and its ``Content-Range`` (None: the body is the whole object).

    Raises ``StorageError`` where the object ends before, ``StorageUnavailable`` where the answer is not whole.
    """
    begin, end, size = 0, len(content), len(content)
    if content_range is not None:
        found = _CONTENT_RANGE.fullmatch(content_range.strip())
        if found is None:
            raise _torn(storage, key, f"its range reads {content_range!r}")
        begin, end, size = int(found[1]), int(found[2]) + 1, int(found[3])
    if offset + (length or 0) > size:
        raise past_the_end(storage, key, offset, length, size)
    until = size if length is None else offset + length
    if len(content) != end - begin or begin > offset or end < until:
        raise _torn(storage, key, f"{len(content)} bytes of bytes {begin} to {end}, asked for were {offset} to {until}")
    return content if (begin, end) == (offset, until) else content[offset - begin : until - begin]


def past_the_end(storage: Storage, key: str, offset: int, length: int | None, size: int) -> StorageError:
    """The error of a range that the object does not have."""
    until = "the end" if length is None else str(offset + length)
    message = f"{storage.name}: {key}: expected bytes {offset} to {until}, the object has {size}"
    return StorageError(message, storage=storage.name, operation="get", key=key)


def _torn(storage: Storage, key: str, what: str) -> StorageUnavailable:
    message = f"{storage.name} ({storage.location}): get {key} failed: the answer is not whole: {what}"
    return StorageUnavailable(message, storage=storage.name, operation="get", key=key)
