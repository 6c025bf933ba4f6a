"""What long work tells, in the run's log: progress now and then, findings as they come."""

import logging

from chrono_backups.clock import Clock, SystemClock
from chrono_backups.events import Finding, Progress
from chrono_backups.orchestration import recording
from chrono_backups.orchestration.metadata import in_words

PROGRESS_SECONDS = 10.0
"""Every log line is a row in Dagster's database and in the browser: one in ten seconds is plenty."""

FINDINGS_SHOWN = 50


class RunLog:
    """A ``Listener`` that writes to a run's log; counts what it leaves out."""

    def __init__(self, log: logging.Logger, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self._last_line = self._clock.monotonic()
        self._findings = 0

    def __call__(self, event: Progress | Finding) -> None:
        if isinstance(event, Finding):
            recording.tell(event)
            self._findings += 1
            if self._findings <= FINDINGS_SHOWN:
                self._log.warning(recording.redact(str(event)))
            elif self._findings == FINDINGS_SHOWN + 1:
                self._log.warning("More findings follow; they are counted and stored, not logged.")
            return
        now = self._clock.monotonic()
        if now - self._last_line >= PROGRESS_SECONDS:
            self._last_line = now
            self._log.info(progress_line(event))


def progress_line(progress: Progress) -> str:
    """``capture files: 1.2 GiB of 4.0 GiB (30 %), 3,400 items``."""
    done = in_words(progress.done_bytes)
    if progress.total_bytes:
        share = 100 * progress.done_bytes // progress.total_bytes
        done += f" of {in_words(progress.total_bytes)} ({share} %)"
    items = f"{progress.done_items:,}" + (f" of {progress.total_items:,}" if progress.total_items else "")
    return f"{progress.operation} {progress.subject}: {done}, {items} items"
