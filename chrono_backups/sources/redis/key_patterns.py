"""Patterns of keys, as the server's ``KEYS`` has them: ``*``, ``?``, ``[abc]``, ``[^a]``, ``[a-z]``, ``\\x``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Whether a key matches any of them; every key where there are none."""
    if not patterns:
        return lambda _key: True
    joined = b"|".join(b"(?:" + _regex(pattern.encode("utf-8", "surrogateescape")) + b")" for pattern in patterns)
    found = re.compile(joined, re.DOTALL)
    return lambda key: found.fullmatch(key) is not None


def _regex(pattern: bytes) -> bytes:
    out = bytearray()
    position = 0
    while position < len(pattern):
        one = pattern[position : position + 1]
        position += 1
        if one == b"*":
            out += b".*"
        elif one == b"?":
            out += b"."
        elif one == b"[" and (end := pattern.find(b"]", position + 1)) > 0:
            inside = pattern[position:end]
            negated = inside[:1] == b"^"
            escaped = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", inside[negated:])
            out += b"[" + (b"^" if negated else b"") + escaped + b"]"
            position = end + 1
        elif one == b"\\" and position < len(pattern):
            out += re.escape(pattern[position : position + 1])
            position += 1
        else:
            out += re.escape(one)
    return bytes(out)
