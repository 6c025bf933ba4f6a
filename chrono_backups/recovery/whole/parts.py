"""The parts of a whole restore: into a directory, or trees and running stores in place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chrono_backups.clock import Clock
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SOURCE_NAMES, SourceName
from chrono_backups.recovery.in_place import StorePlan
from chrono_backups.recovery.plan import RestorePlan
from chrono_backups.recovery.postgres.arrangement import ClusterArrangement
from chrono_backups.recovery.postgres.replay import Reached
from chrono_backups.recovery.postgres.restore import SOURCE, ClusterPlan, check_way, start_cluster
from chrono_backups.recovery.postgres.server import Server
from chrono_backups.recovery.restore import restore
from chrono_backups.repository.repository import Repository


@dataclass
class PartReport:
    """What the restore of one part did."""

    source: SourceName
    items: int = 0
    """Files, keys or documents."""
    bytes: int = 0
    seconds: float = 0.0
    damaged: int = 0
    """Files left out, because what is stored of them is damaged or missing."""
    details: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "items": self.items,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "damaged": self.damaged,
            "details": self.details,
            "findings": [finding.to_json() for finding in self.findings],
        }


class Part(Protocol):
    """One source of a whole restore, computed and not yet carried out."""

    @property
    def source(self) -> SourceName:
        """Which."""

    @property
    def sources(self) -> Sequence[SourceName]:
        """All of it, where more than one source is restored together; ``source`` is the first."""

    @property
    def backup_id(self) -> str:
        """Whose capture is restored."""

    @property
    def overwrites(self) -> bool:
        """Whether something that is there is overwritten: of that a safety backup is taken."""

    @property
    def when_stopped(self) -> str:
        """The state that it is left in where ``execute`` does not come to its end, in words."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What is to be known before it is carried out."""

    def facts(self) -> Sequence[tuple[str, str]]:
        """What people are shown of the plan: a word, and what it is; an empty one is left out."""

    def to_json(self) -> dict[str, Any]:
        """The plan, fit for JSON."""

    def check(self, listener: Listener) -> None:
        """Raises ``RestoreError``, ``Damaged`` and their like where it would be refused. Changes nothing."""

    def execute(self, listener: Listener) -> PartReport:
        """Carry it out. Raises what is raised by it."""


@dataclass
class StorePart:
    """A running store, in place."""

    plan: StorePlan
    overwrites: bool = True

    @property
    def source(self) -> SourceName:
        return self.plan.source

    @property
    def sources(self) -> Sequence[SourceName]:
        return (self.source,)

    @property
    def backup_id(self) -> str:
        return self.plan.backup_id

    @property
    def when_stopped(self) -> str:
        return self.plan.when_cancelled

    @property
    def findings(self) -> Sequence[Finding]:
        return self.plan.findings

    def facts(self) -> Sequence[tuple[str, str]]:
        return self.plan.facts()

    def to_json(self) -> dict[str, Any]:
        return self.plan.to_json()

    def check(self, listener: Listener) -> None:
        del listener
        self.plan.check()

    def execute(self, listener: Listener) -> PartReport:
        done = self.plan.execute(listener)
        return PartReport(done.source, done.items, done.bytes, done.seconds, 0, done.details, done.findings)


@dataclass
class TreePart:
    """Files or configuration, in place: each file is either old or new."""

    repository: Repository
    source: SourceName
    plan: RestorePlan
    overwrites: bool = True
    findings: Sequence[Finding] = ()
    when_stopped: str = "each file holds either its old or its new content"

    @property
    def sources(self) -> Sequence[SourceName]:
        return (self.source,)

    @property
    def backup_id(self) -> str:
        return self.plan.backup_id

    def facts(self) -> Sequence[tuple[str, str]]:
        plan = self.plan
        return [
            ("to", "the original places, over what is there"),
            ("paths", ", ".join(plan.patterns)),
            ("holds", f"{plan.files:,} files, {plan.bytes:,} bytes"),
            ("space", f"{plan.bytes_needed:,} bytes needed, {plan.bytes_free:,} free"),
            ("in the way", ", ".join(plan.conflicts)),
        ]

    def to_json(self) -> dict[str, Any]:
        return self.plan.to_json()

    def check(self, listener: Listener) -> None:
        del listener
        self.plan.check()

    def execute(self, listener: Listener) -> PartReport:
        done = restore(self.repository, self.plan, listener=listener)
        return PartReport(self.source, done.files, done.bytes, done.seconds, done.damaged, {}, done.findings)


@dataclass
class DirectoryPart:
    """Into a directory, where nothing is overwritten: a PostgreSQL cluster, alone or with everything else.

    It is started there where that is asked for.
    """

    repository: Repository
    plan: RestorePlan
    cluster: ClusterPlan | None
    clock: Clock
    overwrites: bool = False
    findings: Sequence[Finding] = ()
    started: tuple[Server, Reached] | None = None
    """The server that runs now, and what it reached."""
    _moved: bool = False

    @property
    def source(self) -> SourceName:
        return self.sources[0]

    @property
    def sources(self) -> Sequence[SourceName]:
        return tuple(name for name in SOURCE_NAMES if any(one.source == name for one in self.plan.sources))

    @property
    def backup_id(self) -> str:
        return self.plan.backup_id

    @property
    def when_stopped(self) -> str:
        if self._moved:
            return f"what was restored is in {self.plan.target}, and no server runs"
        return f"nothing was left in {self.plan.target}"

    def facts(self) -> Sequence[tuple[str, str]]:
        cluster, plan = self.cluster, self.plan
        told = [("to", ", ".join(str(one.destination) for one in plan.sources))]
        if cluster is not None:
            wal = f"{len(cluster.path.files):,} archived files" if cluster.path.files else "what the base backup holds"
            told += [
                ("PostgreSQL", str(cluster.facts["server_version"])),
                ("recover to", f"{cluster.options.target}, timeline {cluster.path.timeline}"),
                ("WAL", wal),
                ("start", "once it is restored" if cluster.options.start else "left to you"),
            ]
        return [
            *told,
            ("holds", f"{plan.files:,} files, {plan.bytes:,} bytes"),
            ("space", f"{plan.bytes_needed:,} bytes needed, {plan.bytes_free:,} free"),
            ("in the way", ", ".join(plan.conflicts)),
        ]

    def to_json(self) -> dict[str, Any]:
        return {**self.plan.to_json(), **({"postgres": self.cluster.to_json()} if self.cluster is not None else {})}

    def check(self, listener: Listener) -> None:
        self.plan.check()
        if self.cluster is not None and not self.cluster.options.start and self.cluster.path.files:
            check_way(self.repository, self.cluster, listener=listener)

    def execute(self, listener: Listener) -> PartReport:
        began = time.monotonic()
        cluster = self.cluster
        arrangement = (
            cluster.arrangement() if cluster is not None else ClusterArrangement.of_files(self.plan.target, None)
        )
        done = restore(self.repository, self.plan, listener=listener, arrangements={SOURCE: arrangement})
        self._moved = True
        report = PartReport(self.source, done.files, done.bytes, 0.0, done.damaged, {}, done.findings)
        report.findings += configuration_findings(arrangement)
        if cluster is not None:
            self._start(cluster, report, listener)
        report.seconds = time.monotonic() - began
        return report

    def _start(self, cluster: ClusterPlan, report: PartReport, listener: Listener) -> None:
        report.details["data_directory"] = str(cluster.data)
        if cluster.options.start:
            server, supply, reached = start_cluster(self.repository, cluster, clock=self.clock, listener=listener)
            if reached.state != "paused":  # a paused server still takes WAL when its operator lets it go on
                supply.remove()
            self.started = server, reached
            report.details["started"] = started_document(server, reached)


def configuration_findings(arrangement: ClusterArrangement) -> list[Finding]:
    """What was changed in the configuration of a restored cluster, for people."""
    configured = arrangement.configured
    off = "ALTER SYSTEM RESET of it turns it on again."
    found = [Finding("postgres-switched-off", "info", "postgres", one, off) for one in configured.switched_off]
    return [*found, *(Finding("postgres-configuration", "info", "postgres", note) for note in configured.notes)]


def started_document(server: Server, reached: Reached) -> dict[str, Any]:
    """A restored server that runs, fit for JSON."""
    return {
        **reached.to_json(),
        "pid": server.pid if server.running else None,
        "socket_directory": str(server.sockets) if server.running else None,
        "superuser": server.superuser if server.running else None,
        "log": str(server.log),
    }
