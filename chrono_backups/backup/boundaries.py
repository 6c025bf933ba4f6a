"""The boundary of a capture: from what the source says of it, and from when its content came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal

from chrono_backups.boundary import Boundary, PostgresPosition
from chrono_backups.clock import Clock, from_text
from chrono_backups.events import Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.base import Capture, Directory, StreamedCapture, StreamedEntry

FACT = "boundary"
"""Where a source's facts have what only it knows: ``first`` and ``last``, ISO 8601, and its own marks."""
_MARKS: Mapping[SourceName, tuple[str, ...]] = {
    "postgres": ("end_lsn", "timeline"),
    "redis": ("replication_id", "replication_offset"),
    "meilisearch": ("task_uid",),
    "files": ("listing_digest",),
    "configuration": ("listing_digest",),
}
"""Facts that are the store's own name for its boundary."""
AskPosition = Callable[[], PostgresPosition | None]
Positions = Callable[[Listener], AbstractContextManager[AskPosition]]
"""Opens a connection to ask over. ``listener`` is told where that can't be had."""


class Moments:
    """When a capture began, when its first content came and when its last had come; and PostgreSQL's position then."""

    def __init__(self, clock: Clock, position: AskPosition | None) -> None:
        self._clock = clock
        self._ask = position
        self._began = clock.now()
        self._came = self._ended = self._began
        self._at_first: PostgresPosition | None = None
        self._at_last: PostgresPosition | None = None

    def first(self) -> None:
        """The first content is about to come."""
        self._came = self._clock.now()
        if self._ask is not None:
            self._at_first = self._ask()

    def last(self) -> None:
        """All content has come."""
        self._ended = self._clock.now()
        if self._ask is not None:
            self._at_last = self._ask()

    def boundary(self, source: SourceName, facts: Mapping[str, Any]) -> Boundary:
        """The source knows better than we where the capture's own beginning and end are not its boundary."""
        told = facts.get(FACT, {})
        first, last = (_moment(told, name) for name in ("first", "last"))
        marks = {name: facts[name] for name in _MARKS[source] if name in facts}
        marks |= {name: value for name, value in told.items() if name not in {"first", "last"}}
        first, last = first or self._began, last or self._ended
        # A store that is captured as of one moment gives its content from then on: its first content is nearest.
        at_first = abs(last - self._came) < abs(self._ended - last)
        return Boundary(first, last, marks, self._at_first if at_first else self._at_last)


def _moment(told: Mapping[str, Any], name: Literal["first", "last"]) -> datetime | None:
    return from_text(told[name]) if name in told else None


class TreeWatched:
    """A capture of a tree that tells ``Moments`` of its ends."""

    def __init__(self, capture: Capture, moments: Moments) -> None:
        self._capture = capture
        self._moments = moments
        self.facts = capture.facts

    def directories(self) -> Iterator[Directory]:
        self._moments.first()
        yield from self._capture.directories()
        self._moments.last()


class StreamWatched:
    """A capture that is a stream, which tells ``Moments`` of its ends."""

    def __init__(self, capture: StreamedCapture, moments: Moments) -> None:
        self._capture = capture
        self._moments = moments
        self.facts = capture.facts

    @property
    def effective(self) -> Literal["full", "incremental", "differential"]:
        return self._capture.effective

    @property
    def reason(self) -> str:
        return self._capture.reason

    @property
    def expected_bytes(self) -> int | None:
        return self._capture.expected_bytes

    def entries(self) -> Iterator[StreamedEntry]:
        for number, entry in enumerate(self._capture.entries()):
            if number == 0:
                self._moments.first()
            yield entry
        self._moments.last()
