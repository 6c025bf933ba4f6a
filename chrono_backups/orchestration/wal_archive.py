"""The archive of PostgreSQL's log (WAL), as an asset that is observed, with the check ``wal_continuous``.

The receiver is a service of its own (``chrono-backups wal-receive``); Dagster only looks at what it stored. A sensor
looks every few minutes and starts no run: it puts the observation and the check's verdict straight into the history.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from chrono_backups import settings as settings_module
from chrono_backups.assembly import Application
from chrono_backups.clock import SystemClock, to_text
from chrono_backups.errors import ChronoBackupsError, SourceError
from chrono_backups.events import Finding
from chrono_backups.identifiers import lsn_text
from chrono_backups.monitoring.wal import WalState, lag_seconds, wal
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.metadata import Metadata, findings_table, in_words, table
from chrono_backups.orchestration.names import WAL_ARCHIVE, WAL_CHECK
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.repository.recovery_points import Gap, RecoverableRange, recovery_points
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import Contents, WalArchive
from chrono_backups.settings import Settings

LOOK_SECONDS = 300
"""Between two looks of the sensor."""
_SLOT = ("postgres-slot-lost", "postgres-slot-unreserved", "postgres-slot-idle")
_ROWS = 20


def archives_wal(settings: Settings) -> bool:
    """Whether there is a cluster whose WAL can be archived."""
    return "postgres" in settings.sources and settings.postgres.method != "logical"


def build_wal_archive() -> dg.AssetSpec:
    """The asset: Dagster does not make it."""
    return dg.AssetSpec(
        WAL_ARCHIVE,
        deps=[dg.AssetKey("postgres_database")],
        group_name="backups",
        kinds={"postgres"},
        description="PostgreSQL's log (WAL) as `chrono-backups wal-receive` stores it, from a base backup to any"
        " moment since.",
    )


@dataclass(frozen=True)
class Look:
    """What was seen of the archive, and what is wrong with it."""

    metadata: Metadata
    findings: Sequence[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [one for one in self.findings if one.severity == "error"]

    @property
    def description(self) -> str:
        """One line: the worst that was found, or how far the archive goes."""
        worst = self.errors or [one for one in self.findings if one.severity == "warning"]
        if worst:
            return "; ".join(one.message for one in worst)
        newest = self.metadata.get("newest_lsn")
        return f"WAL without a gap up to {newest.value}." if newest is not None else "Nothing was archived yet."


@dataclass(frozen=True)
class _Server:
    position: int
    now: datetime
    system_identifier: str


def look(application: Application) -> Look:
    """Read names, histories and the last object of the archive, and ask the server. Raises ``StorageError``."""
    server = _ask(application)
    with application.open_repository() as repository:
        seen = _Archive(repository, server)
    settings, now = application.settings, application.clock.now()
    findings = list(wal(seen.state, settings.health, now))
    findings += [one for one in application.probe_source("postgres") if one.code in _SLOT]
    findings += [one for one in seen.damage if one.code == "damaged"]
    lag = lag_seconds(seen.state, now)
    return Look({**seen.metadata, **_now(seen.state, lag), **_findings(findings)}, findings)


def _ask(application: Application) -> _Server | None:
    from chrono_backups.sources.postgres.wal import server_wal  # noqa: PLC0415 - its driver is large

    settings = application.settings.postgres
    try:
        found = server_wal(settings, settings.slot)
    except SourceError:  # the source's own observation says so
        return None
    return _Server(found.position, found.now, found.system_identifier)


class _Archive:
    """One cluster's archive: the server's, or that of the newest base backup."""

    def __init__(self, repository: Repository, server: _Server | None) -> None:
        self.damage: list[Finding] = []
        points = recovery_points(repository, self._hear)
        systems = WalArchive.systems(repository)
        system = server.system_identifier if server is not None else ""
        if system not in systems and points.ranges:
            system = max(points.ranges, key=lambda one: one.start_time).system_identifier
        contents = systems.get(system, Contents())
        ranges = [one for one in points.ranges if one.system_identifier == system]
        gaps = [one for one in points.gaps if one.system_identifier == system]
        newest = max(ranges, key=lambda one: (one.timeline, one.end), default=None)
        open_gaps = [gap for gap in gaps if newest and gap.timeline == newest.timeline and gap.start >= newest.end]
        same = server is not None and server.system_identifier == system
        self.state = WalState(
            archived=contents.newest is not None,
            end=newest.end if newest else 0,
            end_time=newest.end_time if newest else None,
            gaps=tuple(map(str, open_gaps)),
            server_end=server.position if server is not None and same else None,
            server_now=server.now if server is not None else None,
        )
        self.metadata = _stored(system, contents, ranges, gaps)

    def _hear(self, event: object) -> None:
        if isinstance(event, Finding):
            self.damage.append(event)


def _stored(system: str, contents: Contents, ranges: Sequence[RecoverableRange], gaps: Sequence[Gap]) -> Metadata:
    pieces = sum(map(len, contents.pieces.values()))
    rows = [
        (one.timeline, to_text(one.start_time), to_text(one.end_time) if one.end_time else "not known",
         lsn_text(one.start), lsn_text(one.end), len(one.backups))
        for one in sorted(ranges, key=lambda one: one.start_time, reverse=True)[:_ROWS]
    ]  # fmt: skip
    heads = ("timeline#", "from", "to", "from LSN", "to LSN", "base backups#")
    shown: Metadata = {
        "system_identifier": dg.MetadataValue.text(system or "none"),
        "segments": dg.MetadataValue.int(len(contents.segments)),
        "pieces": dg.MetadataValue.int(pieces),
        "bytes_stored": dg.MetadataValue.int(sum(contents.sizes.values())),
        "gaps": dg.MetadataValue.int(len(gaps)),
        "recoverable": dg.MetadataValue.md(table(heads, rows) if rows else "nothing: there is no base backup"),
    }
    if contents.newest is not None:
        shown["newest_segment"] = dg.MetadataValue.text(contents.newest.upper())
    if gaps:
        shown["missing"] = dg.MetadataValue.md("\n".join(f"- {gap}" for gap in gaps[-_ROWS:]))
    return shown


def _now(state: WalState, lag: float | None) -> Metadata:
    """How far it is, and what would be lost were the server lost this moment."""
    shown: Metadata = {}
    if state.archived and state.end:
        shown["newest_lsn"] = dg.MetadataValue.text(lsn_text(state.end))
    if state.archived and state.end_time is not None:
        shown["newest_time"] = dg.MetadataValue.timestamp(state.end_time)
    if lag is not None:
        shown["rpo_seconds"] = dg.MetadataValue.float(round(lag, 3))
    if state.behind_bytes is not None and state.archived:
        shown["behind_bytes"] = dg.MetadataValue.int(state.behind_bytes)
        shown["behind"] = dg.MetadataValue.text(in_words(state.behind_bytes))
    return shown


def _findings(findings: Sequence[Finding]) -> Metadata:
    shown: Metadata = {"findings": dg.MetadataValue.int(len(findings))}
    if findings:
        shown["what_was_found"] = dg.MetadataValue.md(findings_table(findings))
    return shown


def judged(found: Look) -> dg.AssetCheckResult:
    """The verdict of ``wal_continuous``: errors fail it, and so do warnings, less loudly."""
    worth = [one for one in found.findings if one.severity != "info"]
    return dg.AssetCheckResult(
        passed=not worth,
        severity=dg.AssetCheckSeverity.ERROR if found.errors else dg.AssetCheckSeverity.WARN,
        description=found.description,
        metadata=found.metadata,
    )


def build_wal_check() -> dg.AssetChecksDefinition:
    """Is WAL archived without a hole, and does the slot keep what is not stored yet?"""

    @dg.asset_check(
        asset=WAL_ARCHIVE,
        name=WAL_CHECK,
        description="WAL leads on from the newest base backup without a gap, up to the server's end; the slot is well.",
    )
    def wal_continuous(context: dg.AssetCheckExecutionContext, backups: BackupsResource) -> dg.AssetCheckResult:
        with explained(context):
            return judged(look(backups.application()))

    return wal_continuous


def build_wal_sensor() -> dg.SensorDefinition:
    """Looks every few minutes."""

    @dg.sensor(
        name="wal_watch",
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Observes the WAL archive and evaluates wal_continuous, without a run.",
    )
    def wal_watch(context: dg.SensorEvaluationContext) -> Iterator[dg.SensorResult | dg.SkipReason]:
        try:
            # A storage is asked once: the next look comes soon.
            found = look(Application(settings_module.load(), clock=SystemClock(), attempts=1))
        except ChronoBackupsError as error:
            yield dg.SkipReason(str(error))
            return
        for finding in found.errors:
            context.log.error(str(finding))
        yield dg.SensorResult(asset_events=watched(found))

    return wal_watch


def watched(found: Look) -> list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """An observation, and an evaluation of the check."""
    verdict = judged(found)
    return [
        dg.AssetObservation(WAL_ARCHIVE, metadata=found.metadata),
        dg.AssetCheckEvaluation(
            asset_key=WAL_ARCHIVE,
            check_name=WAL_CHECK,
            passed=verdict.passed,
            severity=verdict.severity,
            description=verdict.description,
            metadata=found.metadata,
        ),
    ]
