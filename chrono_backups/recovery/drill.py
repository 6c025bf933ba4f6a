"""Restore drills: a recovery point is restored to a throwaway directory and found to be what was captured.

``drill_table.py`` says how each source is drilled: files and configuration are read back and held against the listing,
a cluster is started on its own, recovered, asked and shut down. With checks of the operator's (``checks/``) each goes
on standing while the next is drilled, until all do and can be asked together. Whatever comes, everything is torn down,
and what was found is kept in the repository as evidence.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from chrono_backups import __version__
from chrono_backups.errors import ChronoBackupsError, InsufficientSpace, StorageError, UsageError
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.checks.judge import Ask, judge
from chrono_backups.recovery.checks.syntax import Asked, Check
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport, SourceDrill
from chrono_backups.recovery.drill_table import DRILLS, Drilling
from chrono_backups.recovery.point import RecoveryPoint, plan_point
from chrono_backups.recovery.postgres.restore import SOURCE
from chrono_backups.recovery.scratch import PREFIX, scratch
from chrono_backups.repository.evidence import Evidence, put_evidence
from chrono_backups.repository.records import Manifest, SnapshotSummary
from chrono_backups.repository.repository import Repository


def drill(
    repository: Repository, manifest: Manifest, options: DrillOptions, *, listener: Listener = silent
) -> DrillReport:
    """Drill a backup. What is wrong with it is in the report.

    Raises ``UsageError``, ``InsufficientSpace`` and, for a target that can't be reached or want of server programs,
    ``RestoreError``, before anything is written; ``StorageUnavailable``. They leave no evidence, as they say nothing
    of the backup.
    """
    chosen = [one for one in manifest.snapshots if not options.sources or one.source in options.sources]
    known = [one for one in chosen if one.source in DRILLS]
    if not known:
        held = ", ".join(one.source for one in manifest.snapshots)
        raise UsageError(f"nothing of {manifest.backup_id} can be drilled: it has {held}")
    place = options.place or Path(tempfile.gettempdir())
    if not place.is_dir():
        raise UsageError(f"{place} is no directory", hint="Set BACKUP_DRILL_DIR to one with room for a restore.")
    _check_room(place, known, together=bool(options.checks))
    point = _point(repository, manifest, known, options, listener)
    options = replace(options, target=point.target)
    for one in known:
        DRILLS[one.source].check(Drilling(repository, manifest, one, place / PREFIX, options))
    started_at = repository.clock.now()
    report = DrillReport(
        manifest.backup_id,
        started_at,
        started_at,
        str(options.target),
        whole=len(known) == len(manifest.snapshots) and manifest.status == "complete",
        sources=[],
        point=point,
    )
    for one in chosen:
        if one not in known:
            report.findings.append(Finding("drill-not-drilled", "warning", one.source, "it is not drilled yet"))
    with scratch(place, listener) as folder:
        every = [Drilling(repository, manifest, one, folder / one.source, options) for one in known]
        _Together(report, options.checks, listener).drill(every)
    report.finished_at = repository.clock.now()
    _keep(repository, report, listener)
    return report


def _point(
    repository: Repository,
    manifest: Manifest,
    known: Sequence[SnapshotSummary],
    options: DrillOptions,
    listener: Listener,
) -> RecoveryPoint:
    """What is restored together: PostgreSQL goes where it meets the other stores, unless another target is named."""
    names = [one.source for one in known]
    point = plan_point(repository, manifest.backup_id, options.target, names, listener=listener)
    if point.note and point.target.kind == "end":
        listener(Finding("drill-not-met", "info", SOURCE, point.note))
    return point


def _check_room(place: Path, snapshots: Sequence[SnapshotSummary], *, together: bool) -> None:
    """The largest source must fit, as they are restored one after another; all of them where they stand together."""
    sizes = [one.statistics.bytes_total for one in snapshots]
    needed = sum(sizes) if together else max(sizes)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InsufficientSpace(
            f"the drill needs {needed} bytes and {place} has {free} free",
            hint="Set BACKUP_DRILL_DIR to a place with more room.",
        )


class _Together:
    """Drills sources so that all stand while the checks are asked; without checks one after another."""

    def __init__(self, report: DrillReport, checks: Sequence[Check], listener: Listener) -> None:
        self._report = report
        self._checks = checks
        self._listener = listener
        self._stores: dict[Asked, Ask] = {}
        self._within = 0.0
        """Seconds that went by while one that stands was waiting for the others."""

    def drill(self, every: Sequence[Drilling]) -> None:
        """All of them; what is found goes into the report, in their order."""
        self._next(every)
        order = [one.summary.source for one in every]
        self._report.sources.sort(key=lambda one: order.index(cast("SourceName", one.source)))

    def _next(self, every: Sequence[Drilling]) -> None:
        if not every:
            self._judge()
            return
        stood = False

        def standing(asked: Asked, ask: Ask) -> None:
            nonlocal stood
            stood = True
            began = time.monotonic()
            self._stores[asked] = ask
            try:
                self._next(every[1:])
            finally:
                del self._stores[asked]
                self._within += time.monotonic() - began

        first, before = every[0], self._within
        done = _drill_source(replace(first, standing=standing) if self._checks else first, self._listener)
        # What went by within it has been counted by those that it waited for.
        waited, self._within = self._within - before, before
        done.seconds -= waited
        self._report.sources.append(done)
        if not stood:
            self._next(every[1:])

    def _judge(self) -> None:
        for result in judge(self._checks, self._stores):
            self._report.checks.append(result)
            if result.finding is not None:
                self._listener(result.finding)


def _drill_source(drilling: Drilling, listener: Listener) -> SourceDrill:
    source = drilling.summary.source
    done = SourceDrill(source)
    began = time.monotonic()
    try:
        DRILLS[source].run(drilling, done, listener)
    except (StorageError, UsageError, InsufficientSpace):
        raise
    except ChronoBackupsError as error:
        code = f"drill-{type(error).__name__.lower()}"
        found = Finding(code, "error", source, error.message, error.hint)
        done.findings.append(found)
        listener(found)
    finally:
        shutil.rmtree(drilling.directory, ignore_errors=True)
    done.seconds = time.monotonic() - began
    return done


def _keep(repository: Repository, report: DrillReport, listener: Listener) -> None:
    where = {"storage": repository.storage.name, "host": platform.node(), "program": f"chrono-backups {__version__}"}
    details = {**report.to_json(), **where}
    found = Evidence(report.backup_id, report.started_at, report.finished_at, report.proven, details)
    try:
        put_evidence(repository, found)
        report.evidence = found.name
    except StorageError as error:
        lost = Finding("drill-evidence-not-stored", "warning", found.name, error.message, error.hint)
        report.findings.append(lost)
        listener(lost)
