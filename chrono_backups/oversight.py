"""Where the application is watched: health and its kin, wired to live objects for the command line and for Dagster."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

from chrono_backups.assembly import Application
from chrono_backups.backup.due import last_due
from chrono_backups.clock import Clock
from chrono_backups.errors import ChronoBackupsError, Damaged, ObjectMissing, SourceError
from chrono_backups.events import Finding, silent
from chrono_backups.identifiers import (
    BACKUP_TYPES,
    SOURCES_OF_TYPE,
    BackupType,
    StorageName,
    lsn_text,
    parse_backup_id,
)
from chrono_backups.monitoring import health
from chrono_backups.monitoring.audit.log import AuditLog
from chrono_backups.monitoring.audit.runs import Run, runs
from chrono_backups.monitoring.bounded import Bounded
from chrono_backups.monitoring.figures import WINDOW, Figures, figures
from chrono_backups.monitoring.health import HealthReport, Subjects
from chrono_backups.monitoring.record_files import probe_records
from chrono_backups.monitoring.stored import Room, Stored, look
from chrono_backups.monitoring.wal import WalState
from chrono_backups.notifications.alerts import Alerts
from chrono_backups.notifications.building import build_alerts, check_notifications
from chrono_backups.notifications.incidents import Incident, Sighting
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.outcome import type_in
from chrono_backups.notifications.rendering import age, amount
from chrono_backups.notifications.standing import standing_of
from chrono_backups.redaction import redactor
from chrono_backups.repository.evidence import Evidence, evidence
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.recovery_points import Archived, Base, bases
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.settings import Settings
from chrono_backups.variables import secret_values

_HEALTH = "health: "
"""What the operation of an incident begins with that health found; the check follows."""
_SILENCE = "-hangs"
_ON_THIS_MACHINE = ("local", "local_mirror")


def check_health(
    settings: Settings, clock: Clock, bounded: Bounded | None = None, *, began: float | None = None
) -> HealthReport:
    """Everything that ``monitoring/health.py`` looks at, within BACKUP_HEALTH_CHECK_TIMEOUT from ``began`` on.

    A service hands in the same ``bounded`` each time. Raises nothing of ours: what fails is a finding.
    """
    # A storage is asked once: there is no time for more, and the next look comes soon.
    application = Application(settings, clock=clock, attempts=1)
    report = health.check(subjects(application), settings.health, clock, bounded, began)
    return report.masked(redactor(settings, os.environ))


def alerts(settings: Settings, clock: Clock) -> Alerts:
    """Those who are told what goes wrong, and what they were told of. Opens nothing yet."""
    return build_alerts(settings.notifications, settings.state_dir, secret_values(settings), clock)


def probe_channels(settings: Settings, clock: Clock) -> list[Finding]:
    """What is wrong with how people are told, as far as that shows without sending anything."""
    return check_notifications(settings.notifications, settings.state_dir, clock)


def tell_health(telling: Alerts, report: HealthReport) -> tuple[Message, ...]:
    """Have people hear of what health found, and of what is well again; what to say now.

    What a check could not find out is neither begun nor over. Silence is believed the second time: one slow answer is
    no incident.
    """
    best = report.best
    if best is not None:
        telling.note_standing(standing_of(best.newest, best.drills, report.at))
    seen = [
        Sighting(finding, operation=f"{_HEALTH}{check}", backup_type=type_in(finding.subject))
        for check, found in report.by_check.items()
        for finding in found
        if finding.severity != "info"
    ]
    believed = telling.believed([one for one in seen if one.finding.code.endswith(_SILENCE)])
    seen = [one for one in seen if not one.finding.code.endswith(_SILENCE) or one.key in believed]
    return telling.observe(seen, partial(_would_be_seen, report))


def _would_be_seen(report: HealthReport, incident: Incident) -> bool:
    """Whether this look would have found the incident, were it still there."""
    finding = incident.last.finding
    check = incident.last.operation.removeprefix(_HEALTH)
    if check != incident.last.operation:
        return report.checks.get(check) != "unknown"
    # A run failed for want of the storage, and here it answered.
    answered = any(one.storage == finding.subject for one in report.stored)
    return finding.code in {"storage-unavailable", "storage-denied"} and answered


def digest_rows(settings: Settings, clock: Clock, since: datetime) -> list[tuple[str, str, str]]:
    """For a digest: what each backup begun since then is called, how it ended, and how much it was. Newest first."""
    application = Application(settings, clock=clock, attempts=1)
    rows: list[tuple[str, str, str]] = []
    with application.open_repository() as repository:
        forgotten = set(repository.forgotten())
        for name in sorted(repository.names("manifest"), key=_moment_of, reverse=True):
            if name in forgotten or _moment_of(name) < since:
                continue
            with suppress(ObjectMissing, Damaged):
                made = repository.manifest(name)
                took, stored = made.finished_at - made.started_at, made.statistics.bytes_stored
                rows.append((name, made.status, f"{amount(stored)} stored anew, in {age(took)}"))
    return rows


def _moment_of(name: str) -> datetime:
    parsed = parse_backup_id(name)
    return parsed[1] if parsed else datetime.min.replace(tzinfo=UTC)


def subjects(application: Application) -> Subjects:
    """What there is to look at. Opens nothing yet."""
    settings = application.settings
    storages = settings.storages
    # The use of a storage in a cloud is told by a listing of all objects: done for the primary one only.
    measured = [name for name in storages if name in (*_ON_THIS_MACHINE, "sftp", storages[0])]
    points = "postgres" in settings.sources and settings.postgres.method != "logical" and bool(storages)
    return Subjects(
        storages,
        {name: partial(_stored, application, name) for name in storages},
        {name: partial(_room, application, name) for name in measured},
        {name: partial(application.probe_source, name) for name in settings.sources},
        partial(_wal, application) if points else None,
        partial(_permissions, settings),
        due_backups(settings, application.clock.now()),
        timedelta(hours=settings.retention.prune_grace_hours),
        settings.findings(),
    )


def due_backups(settings: Settings, now: datetime) -> dict[BackupType, datetime]:
    """When each scheduled type that has something to capture was to begin last."""
    found: dict[BackupType, datetime] = {}
    for backup_type in BACKUP_TYPES:
        cron = settings.schedules.cron(backup_type)
        if settings.enabled and cron is not None and not set(SOURCES_OF_TYPE[backup_type]).isdisjoint(settings.sources):
            moment = last_due(cron, now, settings.timezone)
            if moment is not None:
                found[backup_type] = moment
    return found


def _stored(application: Application, name: StorageName, enough: Callable[[], bool]) -> Stored:
    with application.open_repository(name) as repository:
        return look(repository, enough=enough)


def _room(application: Application, name: StorageName) -> Room:
    storage = application.storage(name)
    try:
        usage = storage.usage()
    finally:
        storage.close()
    local = application.settings.local
    limit = local.max_size if name == "local" else None
    if limit is not None and usage.free is not None and usage.used + usage.free >= limit:
        return Room(usage.used, usage.free, limit)
    path = {"local": local.path, "local_mirror": local.mirror_path}.get(name)
    whole = shutil.disk_usage(path).total if path is not None else None
    return Room(usage.used, usage.free, whole)


def _permissions(settings: Settings) -> list[Finding]:
    """What holds backups or secrets, and others may read."""
    local, found = settings.local, []
    private = (
        (local.path if "local" in settings.storages else None, "0700"),
        (local.mirror_path, "0700"),
        (settings.encryption.key_file, "0600"),
    )
    for path, wanted in private:
        if path is not None:
            with suppress(OSError):  # that it is not there, or hidden, others say
                mode = stat.S_IMODE(path.stat().st_mode)
                if mode & 0o077:
                    found.append(_readable(path, mode, wanted))
    return [*found, *probe_records(settings.audit, settings.log)]


def _readable(path: Path, mode: int, wanted: str) -> Finding:
    message = f"mode {mode:04o} lets others in"
    return Finding("readable-by-others", "warning", str(path), message, f"chmod {wanted} {path}")


def _wal(application: Application) -> WalState:
    with application.open_repository() as repository:
        base = _newest_base(repository)
        if base is None:
            return WalState(archived=False)
        archive = WalArchive(repository, base.system_identifier)
        contents = archive.contents()
        end, now = _server(application, base.system_identifier)
        if contents.newest is None:
            return WalState(archived=False, server_now=now)
        one = Archived.read(archive, contents, silent)
        way = max(one.ways(base), key=lambda way: (way.timeline, way.end))
        try:
            moment = one.end_time(way)
        except (Damaged, ObjectMissing):
            moment = None
        behind = one.stored_behind(way)
        gaps = () if behind is None else (f"LSN {lsn_text(way.end)} to {lsn_text(behind * base.segment_size)}",)
        return WalState(True, way.end, moment, gaps, end, now)


def _server(application: Application, system_identifier: str) -> tuple[int | None, datetime | None]:
    """The end of the server's log and its clock; None where it can't be asked, or is another cluster."""
    from chrono_backups.sources.postgres.wal import server_wal  # noqa: PLC0415 - its driver is large

    settings = application.settings.postgres
    try:
        server = server_wal(settings, settings.slot)
    except SourceError:  # the source's own check says so
        return None, None
    same = server.system_identifier == system_identifier
    return (server.position if same else None), server.now


def _newest_base(repository: Repository) -> Base | None:
    """The newest base backup, by as few records as it takes."""
    forgotten = set(repository.forgotten())
    dated = [(parsed[1], name) for name in repository.names("manifest") if (parsed := parse_backup_id(name))]
    for _, name in sorted(dated, reverse=True):
        if name not in forgotten:
            with suppress(ObjectMissing, Damaged):
                found = bases([repository.manifest(name)])
                if found:
                    return found[0]
    return None


def measure(settings: Settings, clock: Clock, warn: Callable[[str], None]) -> Figures:
    """All figures, from whichever storage answers. ``warn`` hears of what could not be read."""
    report = check_health(settings, clock)
    now = clock.now()
    backups: list[Manifest] = []
    drills: list[Evidence] = []
    if report.best is not None:
        try:
            name = cast("StorageName", report.best.storage)
            with Application(settings, clock=clock, attempts=2).open_repository(name) as repository:
                backups, _ = repository.readable_backups()
                drills = evidence(repository)
        except ChronoBackupsError as error:
            warn(error.message)
    return figures(now, report, backups, drills, _runs(settings, clock, now, warn))


def _runs(settings: Settings, clock: Clock, now: datetime, warn: Callable[[str], None]) -> list[Run] | None:
    """The runs that the audit log tells of; None where none is kept."""
    log = AuditLog.of(settings.audit, clock)
    if log is None:
        return None
    try:
        return runs(log.files(), now - WINDOW, now, _may_be_alive)
    except OSError as error:
        warn(f"the audit log can't be read: {error}")
        return None


def _may_be_alive(host: str, pid: int) -> bool:
    """Of another machine's process nothing is known."""
    return host != socket.gethostname() or Path(f"/proc/{pid}").exists()
