"""The names objects may have: checked by every driver before it touches anything.

A key is ``/``-separated segments of ``[a-z0-9._-]``, at most 200 characters in all. No segment is empty
or begins with a dot: so ``.`` and ``..`` are none, drivers have a place for temporary files that no key
can name (``.tmp``), and what file servers put between the objects (``.nfs0000…`` of a file deleted while
open, ``.snapshot``, ``.Trash-1000``) is never taken for one.
"""

from __future__ import annotations

import re

MAX_KEY_LENGTH = 200

_SEGMENT = r"[a-z0-9_-][a-z0-9._-]*"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_PREFIX = re.compile(rf"(?:{_SEGMENT}/)*(?:{_SEGMENT})?")

is_segment = re.compile(_SEGMENT).fullmatch
"""Truthy for a name that may be one segment of a key."""


def is_key(name: str) -> bool:
    """Whether ``name`` may name an object; a listing leaves out what others stored under other names."""
    return len(name) <= MAX_KEY_LENGTH and _KEY.fullmatch(name) is not None


def check_key(key: str) -> None:
    """Raise ``ValueError`` if ``key`` may not name an object."""
    if not is_key(key):
        raise ValueError(
            f"not a storage key: {key!r}; expected at most {MAX_KEY_LENGTH} characters, segments of "
            "[a-z0-9._-] separated by '/', none empty or beginning with '.'"
        )


def check_prefix(prefix: str) -> None:
    """Raise ``ValueError`` if no key can start with ``prefix``; the empty prefix is every key's."""
    if len(prefix) > MAX_KEY_LENGTH or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not the beginning of any storage key: {prefix!r}")


def check_range(offset: int, length: int | None) -> None:
    """Raise ``ValueError`` for a range of bytes that no object can have."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range of an object: offset {offset}, length {length}")
