"""The seam between what is protected and the rest: sources, their captures and what those yield."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.pipeline.attributes import Attributes


class Unreadable(Exception):
    """One entry can't be read; the capture goes on without it. ``finding`` says which and why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Description:
    """What few entries have, beside their attributes."""

    link_target: bytes | None = None
    device: int | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


PLAIN = Description()
"""Of most entries."""


class Content(Protocol):
    """An open entry's content, read once from start to end."""

    block_size: int | None
    """Cut into aligned blocks of this many bytes; None: where the content says."""

    def parts(self) -> Sequence[tuple[int, int]]:
        """``(offset, length)`` of what is stored, ascending; between the parts are holes."""

    def size(self) -> int:
        """Bytes in all, holes with them."""

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill the start of ``view`` from ``offset``; bytes read, 0 at the end. Raises ``Unreadable``."""

    def close(self) -> Finding | None:
        """Let go; what is to be said of the content, as that it changed while it was read."""


class Directory(Protocol):
    """The entries of one directory, or a stretch of one that has very many."""

    path: bytes
    """Relative to the source's root, without a leading ``/``; the root is empty."""
    attributes: Attributes
    """Brought up to date, for its entry, when an entry's content is read."""
    leading: bool
    """It only leads to what is protected: its attributes change with things that are not."""
    linked: Mapping[int, tuple[int, int]]
    """Position → device and inode, of regular files that have several names."""

    def read_ahead(self, positions: Sequence[int]) -> None:
        """Small regular files that ``read_small`` will soon be asked for, in this order."""

    def describe(self, position: int) -> Description:
        """An entry's link target, device number and extended attributes. Raises ``Unreadable``."""

    def read_small(self, position: int, view: memoryview) -> tuple[int, Description, Finding | None]:
        """A whole small regular file into the start of ``view``, and its description, in one visit.

        Its size, or -1 where it does not fit after all. Raises ``Unreadable``.
        """

    def open(self, position: int) -> Content:
        """A regular file's content. Raises ``Unreadable``."""

    def close(self) -> None:
        """Nothing more is asked of it."""


class Capture(Protocol):
    """One consistent reading of a source, while it lasts."""

    def directories(self) -> Iterator[Directory]:
        """All directories, in the order of their paths with ``/`` below every other byte.

        Several may be in use at once; each is to be closed.
        """

    def facts(self) -> Mapping[str, Any]:
        """What only the source knows; complete once ``directories`` is exhausted."""


class Source(Protocol):
    """One thing that is protected."""

    name: SourceName

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""

    def capture(self, listener: Listener) -> AbstractContextManager[Capture]:
        """Begin a capture. Raises ``SourceError`` where there is nothing to capture.

        ``listener`` is told of every finding that is not about an entry being read.
        """
