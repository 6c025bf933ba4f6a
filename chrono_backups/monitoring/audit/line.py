"""One line of the audit log, to the byte.

::

    {"n":7,"log":"16 hex","prev":"64 hex","at":"2026-01-04T02:00:00.000000Z","act":"backup",…,"hash":"64 hex"}⏎

========== =====================================================================================
``n``      the line's number, from 1, going on over rotated files
``log``    the log's own name, drawn at its first line
``prev``   the hash of the line before; 64 zeros in the first
``at``     when it was written, UTC
``act``    ``backup``, ``restore``, …; of the log itself ``log-begun``, ``log-continued``, ``lines-removed``,
           ``torn-line``
``hash``   BLAKE3 of the line's bytes before ``,"hash"``
========== =====================================================================================

Between ``act`` and ``hash``, as they apply: ``phase`` (``begin``, ``end``), ``run``, ``who``, ``from``, ``on``,
``result``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blake3 import blake3

from chrono_backups.clock import from_text, to_text

FIRST = "0" * 64
LONGEST = 16384
"""Bytes; a reader of the last line looks no further back."""
_TAIL = len(b',"hash":""}') + 64
_HEAD = re.compile(rb'\{"n":([0-9]{1,18}),"log":"([0-9a-f]{16})","prev":"([0-9a-f]{64})","at":"([0-9TZ:.-]{20,32})",')
_END = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_TEXT_MOST = 1000


@dataclass(frozen=True)
class Line:
    """What the chain is made of. ``body`` is the whole line without its newline."""

    number: int
    log: str
    previous: str
    at: str
    hash: str
    body: bytes

    @property
    def moment(self) -> datetime:
        return from_text(self.at)

    def is_sound(self) -> bool:
        """Whether the line is what was written."""
        return digest(self.body[:-_TAIL]) == self.hash

    def content(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        found: dict[str, Any] = json.loads(self.body)
        return found


def parse(body: bytes) -> Line | None:
    """The line of those bytes; None where they are none."""
    head, end = _HEAD.match(body), _END.fullmatch(body, max(0, len(body) - _TAIL))
    if head is None or end is None:
        return None
    number, log, previous, at = head.groups()
    return Line(int(number), log.decode(), previous.decode(), at.decode(), end[1].decode(), body)


def digest(data: bytes) -> str:
    """64 hexadecimal digits."""
    return blake3(data).hexdigest()


def make(number: int, log: str, previous: str, at: datetime, content: Mapping[str, Any]) -> Line:
    """A line that goes on after the one whose hash is ``previous``."""
    moment = to_text(at)
    head = {"n": number, "log": log, "prev": previous, "at": moment}
    said = {name: _short(value) for name, value in content.items() if value not in (None, "", {}, [])}
    open_end = json.dumps({**head, **said}, ensure_ascii=True, separators=(",", ":"))[:-1].encode("ascii")
    if len(open_end) > LONGEST - 2 * _TAIL:
        said = {name: value for name, value in said.items() if name in {"act", "phase", "run"}} | {"cut": True}
        open_end = json.dumps({**head, **said}, separators=(",", ":"))[:-1].encode("ascii")
    hashed = digest(open_end)
    return Line(number, log, previous, moment, hashed, open_end + f',"hash":"{hashed}"}}'.encode("ascii"))


def _short(value: Any) -> Any:
    """Long texts are cut, so that no line is longer than a reader looks."""
    if isinstance(value, str):
        return value if len(value) <= _TEXT_MOST else value[:_TEXT_MOST] + "…"
    if isinstance(value, Mapping):
        return {str(name): _short(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value[:100]]
    return value
