"""Restore drills: a backup is restored to a throwaway directory and found to be what was captured.

``drill_table.py`` says how each source is drilled: files and configuration are read back and held against the listing,
a cluster is started on its own, recovered, asked and shut down. Whatever comes, everything is torn down, and what was
found is kept in the repository as evidence.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chrono_backups import __version__
from chrono_backups.errors import ChronoBackupsError, InsufficientSpace, StorageError, UsageError
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport, SourceDrill
from chrono_backups.recovery.drill_table import DRILLS, Drilling
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
    _check_room(place, known)
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
    )
    for one in chosen:
        if one not in known:
            report.findings.append(Finding("drill-not-drilled", "warning", one.source, "it is not drilled yet"))
    with scratch(place, listener) as folder:
        for summary in known:
            drilling = Drilling(repository, manifest, summary, folder / summary.source, options)
            report.sources.append(_drill_source(drilling, listener))
    report.finished_at = repository.clock.now()
    _keep(repository, report, listener)
    return report


def _check_room(place: Path, snapshots: Sequence[SnapshotSummary]) -> None:
    """The largest source must fit; they are restored one after another."""
    needed = max(one.statistics.bytes_total for one in snapshots)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InsufficientSpace(
            f"the drill needs {needed} bytes and {place} has {free} free",
            hint="Set BACKUP_DRILL_DIR to a place with more room.",
        )


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
    details = {**report.to_json(), "host": platform.node(), "program": f"chrono-backups {__version__}"}
    found = Evidence(report.backup_id, report.started_at, report.finished_at, report.proven, details)
    try:
        put_evidence(repository, found)
        report.evidence = found.name
    except StorageError as error:
        lost = Finding("drill-evidence-not-stored", "warning", found.name, error.message, error.hint)
        report.findings.append(lost)
        listener(lost)
