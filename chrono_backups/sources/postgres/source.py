"""The source ``postgres``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.base import Earlier, StreamedCapture, StreamedEntry
from chrono_backups.sources.postgres.facts import Sampler
from chrono_backups.sources.postgres.logical import LogicalCapture, check_programs, dumps
from chrono_backups.sources.postgres.physical import Effective, PhysicalCapture, base_backup
from chrono_backups.sources.postgres.probe import probe
from chrono_backups.sources.settings import PostgresSettings


class PostgresSource:
    """A PostgreSQL cluster, over the network.

    A snapshot of it lists ``data/…``, the data directory, and ``tablespaces/OID/…``; and ``dump/…`` where dumps are
    asked for.
    """

    name: SourceName = "postgres"

    def __init__(self, settings: PostgresSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""
        return probe(self._settings)

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: Effective, listener: Listener) -> Iterator[StreamedCapture]:
        """Begin a capture. Raises ``SourceError``."""
        if self._settings.method == "logical":
            with dumps(self._settings, listener) as logical:
                yield _Dumps(logical, asked)
            return
        if self._settings.method == "both":
            check_programs(self._settings)  # before the base backup, not hours later
        sampler = Sampler(self._settings, listener)
        sampler.before()
        with base_backup(self._settings, earlier, asked, listener, self._clock) as physical:
            yield _Cluster(self._settings, physical, sampler, listener)


class _Dumps:
    """Dumps alone."""

    def __init__(self, logical: LogicalCapture, asked: Effective) -> None:
        self._logical = logical
        self.effective: Effective = "full"
        self.reason = "" if asked == "full" else "dumps are always whole: BACKUP_POSTGRES_METHOD=logical"
        self.expected_bytes: int | None = logical.expected_bytes
        self.entries = logical.entries

    def facts(self) -> Mapping[str, Any]:
        return {"method": "logical", **self._logical.facts()}


class _Cluster:
    """A base backup, with dumps behind it where ``both`` are asked for: a dump that fails fails the capture."""

    def __init__(
        self, settings: PostgresSettings, physical: PhysicalCapture, sampler: Sampler, listener: Listener
    ) -> None:
        self._settings = settings
        self._physical = physical
        self._sampler = sampler
        self._listener = listener
        self._recorded: Mapping[str, Any] = {}
        self._dumped: Mapping[str, Any] = {}
        self.effective: Effective = physical.effective
        self.reason = physical.reason
        self.expected_bytes = physical.expected_bytes

    def entries(self) -> Iterator[StreamedEntry]:
        yield from self._physical.entries()
        finding = self._physical.checksum_finding()
        if finding is not None:
            self._listener(finding)
        self._recorded = self._sampler.after()
        if self._settings.method == "both":
            with dumps(self._settings, self._listener) as logical:
                yield from logical.entries()
                self._dumped = {"dump": logical.facts()["dump"]}

    def facts(self) -> Mapping[str, Any]:
        return {"method": self._settings.method, **self._physical.facts(), **self._recorded, **self._dumped}
