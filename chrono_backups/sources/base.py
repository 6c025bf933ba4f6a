"""The seam between what is protected and the rest: sources, their captures and what those yield."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

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
    """One thing that is protected, as a tree that is walked."""

    name: SourceName

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""

    def capture(self, listener: Listener) -> AbstractContextManager[Capture]:
        """Begin a capture. Raises ``SourceError`` where there is nothing to capture.

        ``listener`` is told of every finding that is not about an entry being read.
        """


# What can't be walked comes as a stream.


@dataclass(frozen=True, slots=True)
class Changes:
    """A file of which only what changed comes: its content is the changed blocks, one after another."""

    block_size: int
    blocks: Sequence[int]
    """Numbers of the changed blocks within the file, ascending."""
    size: int
    """Bytes of the whole file. What is neither changed nor in the earlier file reads as zero."""
    kept: int
    """Bytes from the start that may be taken over from the earlier file, where they are not changed."""


class Stretches:
    """Of a file of which only what is new comes: the whole, as stretches of the earlier file and of what comes.

    The source notes them in order while its content is read. Offsets in the earlier file ascend.
    """

    __slots__ = ("_rows", "kept", "new")

    def __init__(self) -> None:
        self._rows = array("q")
        self.kept = 0
        """Bytes that the earlier file holds."""
        self.new = 0
        """Bytes that come."""

    def keep(self, offset: int, length: int) -> None:
        """The next ``length`` bytes are those at ``offset`` of the earlier file."""
        self.kept += length
        rows = self._rows
        if rows and rows[-2] >= 0 and rows[-2] + rows[-1] == offset:
            rows[-1] += length
        else:
            rows.extend((offset, length))

    def add(self, length: int) -> None:
        """The next ``length`` bytes are the next of those that come."""
        self.new += length
        rows = self._rows
        if rows and rows[-2] < 0:
            rows[-1] += length
        else:
            rows.extend((-1, length))

    def __len__(self) -> int:
        return len(self._rows) // 2

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Offset in the earlier file, or -1 for what comes; length."""
        rows = iter(self._rows)
        return zip(rows, rows, strict=True)


@dataclass(frozen=True, slots=True)
class StreamedEntry:
    """One entry of a stream. Its content is to be read before the next entry is asked for."""

    path: bytes
    """Relative to the source's root, without a leading ``/``."""
    mode: int
    """``st_mode``: a regular file, a directory or a symbolic link."""
    size: int = 0
    """Bytes of content that come. Where the source can't know it before: -1."""
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    link_target: bytes | None = None
    block_size: int | None = None
    """Cut a large file into aligned blocks of this many bytes; None: where the content says."""
    changes: Changes | None = None
    stretches: Stretches | None = None
    """What the whole file is made of, where not all of its content comes; complete once that was read."""
    again: bool = False
    """It stands in for the entry of this path that came before."""
    read_into: Callable[[memoryview], int] = lambda _view: 0
    """Fill the start of a view with what comes next of the content; bytes read, 0 at the end."""


@dataclass(frozen=True)
class Earlier:
    """What an earlier snapshot offers to a capture that builds on it."""

    snapshot_id: str
    facts: Mapping[str, Any]
    read: Callable[[bytes], bytes]
    """The content of one of its files. Raises ``Damaged``, ``EntryMissing``."""
    stream: Callable[[bytes], Iterable[bytes | memoryview]]
    """The same, piece by piece."""


class StreamedCapture(Protocol):
    """One consistent reading of a source that comes in an order of the source's own."""

    @property
    def effective(self) -> Literal["full", "incremental", "differential"]:
        """What is really captured: ``full`` where the earlier snapshot can't be built on."""

    @property
    def reason(self) -> str:
        """Why ``effective`` is not what was asked for; empty otherwise."""

    @property
    def expected_bytes(self) -> int | None:
        """About how many bytes of content there are; None where the source can't tell."""

    def entries(self) -> Iterator[StreamedEntry]:
        """All entries, each path once; a directory without entry of its own is made where one lies in it."""

    def facts(self) -> Mapping[str, Any]:
        """What only the source knows; complete once ``entries`` is exhausted."""


@runtime_checkable
class StreamedSource(Protocol):
    """One thing that is protected, as a stream that the source pours out."""

    name: SourceName

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""

    def stream(
        self, earlier: Earlier | None, asked: Literal["full", "incremental", "differential"], listener: Listener
    ) -> AbstractContextManager[StreamedCapture]:
        """Begin a capture, upon ``earlier`` where that is given and can be built on. Raises ``SourceError``.

        ``listener`` is told of every finding.
        """


@runtime_checkable
class ComparingSource(Protocol):
    """A ``StreamedSource`` that reads everything in every capture, and finds what did not change by itself.

    So an earlier snapshot is offered for a full capture too: what it holds already need not come once more.
    """

    compares: Literal[True]


AnySource = Source | StreamedSource
