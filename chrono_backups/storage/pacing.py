"""How content moves while a bandwidth holds: piece by piece, each in its time.

A limit that is kept only over whole objects would let a pack of 16 MiB through at once, and then be silent for as long
as it should have taken: right on average, and a line that is full half of the time. So a driver asks for leave before
each piece that it sends or asks for, or after each that came. Without a limit ``leave`` costs nothing, and pieces are
as large as the driver likes them.

The pace belongs to the thread that ``paced_by`` was entered in: drivers move content in their caller's thread. A driver
that asks for leave says so by an attribute, ``paces = True``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Pace(Protocol):
    """What a transfer keeps to."""

    @property
    def piece(self) -> int:
        """Bytes to move at a time, at most."""

    def take(self, size: int) -> None:
        """Return when so many bytes may move."""


_pace: ContextVar[Pace | None] = ContextVar("pace", default=None)


@contextmanager
def paced_by(pace: Pace) -> Iterator[None]:
    """Have what this thread moves keep to ``pace``."""
    token = _pace.set(pace)
    try:
        yield
    finally:
        _pace.reset(token)


def is_paced() -> bool:
    """Whether there is a limit."""
    return _pace.get() is not None


def piece(usual: int) -> int:
    """Bytes to move at a time, where a driver would take ``usual``."""
    pace = _pace.get()
    return usual if pace is None else min(usual, pace.piece)


def leave(size: int) -> None:
    """Wait until so many bytes may move, or, where they have come already, until the next may."""
    pace = _pace.get()
    if pace is not None and size:
        pace.take(size)


def read_whole(read: Callable[..., bytes]) -> bytes:
    """All that a stream gives. ``read`` takes a number of bytes, or nothing for the rest; it gives none at the end."""
    pace = _pace.get()
    if pace is None:
        return read()
    parts = []
    while part := read(pace.piece):
        parts.append(part)
        pace.take(len(part))
    return b"".join(parts)
