"""The source ``postgres``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.base import Earlier, StreamedEntry
from chrono_backups.sources.postgres.physical import Effective, PhysicalCapture, base_backup
from chrono_backups.sources.settings import PostgresSettings


class PostgresSource:
    """A PostgreSQL cluster, over the network.

    A snapshot of it lists ``data/…``, the data directory, and ``tablespaces/OID/…``.
    """

    name: SourceName = "postgres"

    def __init__(self, settings: PostgresSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""
        return []

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: Effective, listener: Listener) -> Iterator[_Capture]:
        """Begin a capture. Raises ``SourceError``."""
        with base_backup(self._settings, earlier, asked, listener, self._clock) as physical:
            yield _Capture(self._settings, physical, listener)


class _Capture:
    def __init__(self, settings: PostgresSettings, physical: PhysicalCapture, listener: Listener) -> None:
        self._settings = settings
        self._physical = physical
        self._listener = listener
        self.effective: Effective = physical.effective
        self.reason = physical.reason
        self.expected_bytes = physical.expected_bytes

    def entries(self) -> Iterator[StreamedEntry]:
        yield from self._physical.entries()
        finding = self._physical.checksum_finding()
        if finding is not None:
            self._listener(finding)

    def facts(self) -> Mapping[str, Any]:
        return {"method": self._settings.method, **self._physical.facts()}
