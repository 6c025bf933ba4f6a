"""Where Dagster's runs are recorded: begun when their resource is made, ended when it is let go, before the run ends.

The audit log and the log file know of each run that works with the application, whoever launched it: the UI, a
schedule, a sensor, a backfill. Where the beginning of a change can't be recorded, the run fails before its first step.
"""

import os
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import dagster as dg

from chrono_backups.clock import SystemClock
from chrono_backups.errors import ChronoBackupsError, SettingsError
from chrono_backups.events import Finding, Progress
from chrono_backups.monitoring.audit.log import AuditLog
from chrono_backups.monitoring.journal import Act, Journal, Result
from chrono_backups.monitoring.log_file import LogFile
from chrono_backups.orchestration.names import BACKUP_ID_TAG, BACKUP_TYPE_TAG, KIND_TAG
from chrono_backups.orchestration.runs import trigger_of
from chrono_backups.redaction import redactor
from chrono_backups.settings import Settings

READING = frozenset({"observation", "verification", "history", "health"})
"""Kinds of runs that change nothing that is stored, unless `repair` is asked for."""
_OF_ASSETS = {"verification": "verification", "backup_replica": "replicate"}
"""What a launch from an asset's page is, which has no job's tags."""
_OF_DAGSTER = frozenset({"resources", "execution", "loggers"})


class RunRecord:
    """The records of one run, and what may be said in it."""

    def __init__(self, run: dg.DagsterRun, settings: Settings) -> None:
        clock = SystemClock()
        self.redact = redactor(settings, os.environ)
        self.error: ChronoBackupsError | None = None
        """The last one that failed a step."""
        self.partial = False
        """The run made a backup that lacks a source."""
        self.journal = Journal(
            _act(run),
            audit=AuditLog.of(settings.audit, clock),
            log=LogFile.of(settings.log, clock),
            all_operations=settings.audit.log_all_operations,
            redact=self.redact,
        )


_current: ContextVar[RunRecord | None] = ContextVar("run record", default=None)


def begin(run: dg.DagsterRun, load: Callable[[], Settings]) -> None:
    """Record that the run begins. Raises ``AuditUnwritable``, which must end it."""
    try:
        settings = load()
    except SettingsError:  # the first step says so, in a way that is shown better
        return
    record = RunRecord(run, settings)
    _current.set(record)
    record.journal.begin()


def end(instance: dg.DagsterInstance, run_id: str) -> None:
    """Record how the run ended, as far as its steps tell. Raises ``AuditUnwritable`` of a change."""
    record = _current.get()
    _current.set(None)
    run = instance.get_run_by_id(run_id)
    if record is None or run is None or record.journal.act.run != run_id:
        return
    record.journal.backup_id = record.journal.backup_id or run.tags.get(BACKUP_ID_TAG, "")
    failures = [] if run.status is dg.DagsterRunStatus.CANCELING else _failures(instance, run_id)
    result: Result = "done"
    if run.status is dg.DagsterRunStatus.CANCELING:
        result = "cancelled"
    elif record.partial:
        result = "partial"
    elif failures:
        result = "failed"
    told = "" if record.error is not None else "; ".join(failures[:3])
    record.journal.end(result, error=record.error if failures else None, detail=told)


def _failures(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What each failed step said, in a line."""
    said = []
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = entry.get_dagster_event().step_failure_data
        own = data.user_failure_data.description if data.user_failure_data is not None else None
        said.append(str(own or data.error_display_string).strip().partition("\n")[0])
    return said


def about(backup_id: str) -> None:
    """The run works on that backup."""
    if (record := _current.get()) is not None:
        record.journal.backup_id = backup_id


def made_in_part() -> None:
    """The run has made a backup that lacks a source."""
    if (record := _current.get()) is not None:
        record.partial = True


def failed(error: ChronoBackupsError) -> None:
    """A step ends by that error."""
    if (record := _current.get()) is not None:
        record.error = error


def tell(event: Progress | Finding) -> None:
    """A listener: findings go to the log file."""
    if (record := _current.get()) is not None:
        record.journal.tell(event)


def redact(text: str) -> str:
    """``text`` without any secret that the run knows."""
    record = _current.get()
    return record.redact(text) if record is not None else redactor(None, os.environ)(text)


def _act(run: dg.DagsterRun) -> Act:
    name = _name(run)
    # What the launch form says. Resources are left out: who types a secret into the launchpad has it in Dagster only.
    asked = {name: value for name, value in run.run_config.items() if name not in _OF_DAGSTER}
    changes = (name not in READING or _says(asked, "repair")) and not _says(asked, "dry_run")
    selected = sorted(key.to_user_string() for key in run.asset_selection or ())
    on = {"job": run.job_name, "partition": run.tags.get("dagster/partition", ""), "assets": selected, "asked": asked}
    return Act(name, {word: value for word, value in on.items() if value}, changes, trigger_of(run), run.run_id)


def _name(run: dg.DagsterRun) -> str:
    """``backup``, ``replicate``, ``restore``, … as the command line's verbs are called."""
    if BACKUP_TYPE_TAG in run.tags:
        return "backup"
    if kind := run.tags.get(KIND_TAG):
        return kind
    names = [key.to_user_string() for key in run.asset_selection or ()]
    if run.asset_check_selection and not names:
        return "verification"  # checks alone
    if any(name.endswith("_backup") for name in names):
        return "backup"
    return next((_OF_ASSETS[name] for name in names if name in _OF_ASSETS), names[0] if names else run.job_name)


def _says(asked: Any, option: str) -> bool:
    """Whether a launch form has that option on, wherever it stands in it."""
    if isinstance(asked, Mapping):
        return any(value is True if name == option else _says(value, option) for name, value in asked.items())
    return False


def fit_to_show(error: BaseException) -> BaseException | None:
    """The error, for a traceback in the UI; None where its text, or that of one behind it, holds a secret."""
    text = "".join(traceback.format_exception(error))
    return error if redact(text) == text else None
