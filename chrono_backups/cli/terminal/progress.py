"""Progress on standard error: one redrawn line on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import printable
from chrono_backups.cli.terminal.output import Output, say
from chrono_backups.clock import Clock
from chrono_backups.events import Finding, Listener, Progress

REDRAW_SECONDS = 0.1
QUIET_LINE_SECONDS = 30.0
RATE_WINDOW_SECONDS = 10.0
FINDINGS_SHOWN = 20
"""Of one code; a tree of a million unreadable files is not a million lines."""
_SHORTER = ((24, True), (12, True), (24, False), (12, False), (0, False))
"""Width of the bar, and whether items are counted: the first that fits is shown."""


class Reporter:
    """A ``Listener`` that shows progress and findings. Call ``finish`` at the end, whatever the end."""

    def __init__(self, output: Output, clock: Clock, *, terminal: bool, width: int = 80) -> None:
        self._output = output
        self._clock = clock
        self._terminal = terminal
        self._width = width
        self._phase: Phase | None = None
        self._operation = ""
        self._drawn_at = float("-inf")
        self._line_shown = False
        self._findings: dict[str, int] = {}

    def __call__(self, event: Progress | Finding) -> None:
        if isinstance(event, Finding):
            self._show_finding(event)
        elif not self._output.quiet:
            self._show_progress(event)

    def clear(self) -> None:
        """Wipe the redrawn line; the next progress draws it again."""
        if self._line_shown:
            say("\r\x1b[K")
            self._line_shown = False
            self._drawn_at = float("-inf")

    def finish(self, *, whole: bool = True) -> None:
        """End the phase under way, ``whole`` or not, and say how many findings were left out."""
        if not whole:
            self._phase = None
        self._end_phase()
        for code, count in self._findings.items():
            if count > FINDINGS_SHOWN:
                self._output.warning(f"{count - FINDINGS_SHOWN:,} more of the kind {code}")
        self._findings.clear()

    def _show_finding(self, finding: Finding) -> None:
        count = self._findings[finding.code] = self._findings.get(finding.code, 0) + 1
        if count > FINDINGS_SHOWN:
            return
        if finding.severity == "info":
            self._output.message(finding_line(finding))
        else:
            self._output.error(finding_line(finding))

    def _show_progress(self, event: Progress) -> None:
        now = self._clock.monotonic()
        if self._phase is None or not self._phase.continues(event):
            self._end_phase()
            self._phase = Phase(event, now)
            if not self._terminal:
                self._drawn_at = now
                if event.operation != self._operation:
                    self._output.message(f"{self._phase.title}: started")
            self._operation = event.operation
        wait = REDRAW_SECONDS if self._terminal else QUIET_LINE_SECONDS
        if now - self._drawn_at < wait:
            self._phase.latest = event
            return
        self._drawn_at = now
        self._phase.sample(event, now)
        if self._terminal:
            say("\r" + self._phase.line(now, max(self._width - 1, 1)) + "\x1b[K")
            self._line_shown = True
        else:
            self._output.message(self._phase.line(now))

    def _end_phase(self) -> None:
        phase, self._phase = self._phase, None
        self.clear()
        if phase is not None and not self._terminal:
            self._output.message(phase.summary(self._clock.monotonic()))


class Phase:
    """One operation on one source while it lasts, with what is needed for its rate."""

    def __init__(self, event: Progress, now: float) -> None:
        self.title = f"{event.operation} {printable(event.subject)}".strip()
        self.latest = event
        self._started = now
        self._samples: deque[tuple[float, int, int]] = deque([(now, event.done_bytes, event.done_items)])

    def continues(self, event: Progress) -> bool:
        """Whether ``event`` belongs to this phase: same operation and subject, and no step back."""
        latest = self.latest
        return (event.operation, event.subject) == (latest.operation, latest.subject) and (
            event.done_bytes >= latest.done_bytes and event.done_items >= latest.done_items
        )

    def sample(self, event: Progress, now: float) -> None:
        """Take ``event`` into the rate, and drop what is older than the window."""
        self.latest = event
        self._samples.append((now, event.done_bytes, event.done_items))
        while now - self._samples[0][0] > RATE_WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()

    def line(self, now: float, width: int | None = None) -> str:
        """Title, share, amount, rate and time left, as far as they are known; with ``width`` a bar, and no longer."""
        share = self._share()
        if width is None:
            return self._composed(now, share, bar=0)
        shorter = (self._composed(now, share, bar=bar, items=items) for bar, items in _SHORTER)
        return next((line for line in shorter if len(line) <= width), self._composed(now, share, items=False)[:width])

    def _composed(self, now: float, share: float | None, *, bar: int = 0, items: bool = True) -> str:
        parts = [self.title + ("" if bar else ":")]
        if share is not None:
            filled = int(share * bar)
            parts += ["[" + "#" * filled + "-" * (bar - filled) + "]" if bar else "", f"{int(share * 100):3d} %"]
        else:
            parts.append(quantities.duration(now - self._started))
        parts += [self._amount(items=items), *self._speed(share)]
        return "  ".join(part for part in parts if part)

    def summary(self, now: float) -> str:
        """The phase's last line where nothing is redrawn."""
        seconds = now - self._started
        amount = self._amount(totals=False)
        return f"{self.title}: {f'{amount} in' if amount else 'done in'} {quantities.duration(seconds)}"

    def _share(self) -> float | None:
        latest = self.latest
        if latest.total_bytes:
            return min(latest.done_bytes / latest.total_bytes, 1.0)
        if latest.total_items:
            return min(latest.done_items / latest.total_items, 1.0)
        return None

    def _amount(self, *, totals: bool = True, items: bool = True) -> str:
        latest, parts = self.latest, []
        if latest.done_bytes or latest.total_bytes:
            total = f" of {quantities.size(latest.total_bytes)}" if totals and latest.total_bytes else ""
            parts.append(quantities.size(latest.done_bytes) + total)
        if latest.done_items and (items or not parts):
            total = f" of {latest.total_items:,}" if totals and latest.total_items else ""
            parts.append(f"{latest.done_items:,}{total} items")
        return ", ".join(parts)

    def _speed(self, share: float | None) -> list[str]:
        (first, first_bytes, first_items), (last, last_bytes, last_items) = self._samples[0], self._samples[-1]
        elapsed = last - first
        if elapsed <= 0:
            return []
        parts = [quantities.rate(last_bytes - first_bytes, elapsed)] if last_bytes > first_bytes else []
        latest = self.latest
        if latest.total_bytes:
            left, speed = latest.total_bytes - last_bytes, (last_bytes - first_bytes) / elapsed
        elif latest.total_items:
            left, speed = latest.total_items - last_items, (last_items - first_items) / elapsed
        else:
            return parts
        if share is not None and share < 1 and speed > 0:
            parts.append(f"{quantities.duration(left / speed)} left")
        return parts


def finding_line(finding: Finding) -> str:
    """``warning: /srv/a: it vanished while it was read (hint)`` on one line."""
    subject = f"{printable(finding.subject)}: "
    text = f"{finding.severity}: {subject}{finding.message.removeprefix(subject)}"
    return f"{text} ({finding.hint})" if finding.hint else text


@contextmanager
def reported(output: Output, clock: Clock) -> Iterator[Listener]:
    """A listener for one piece of long work, shown on standard error while it lasts."""
    terminal, width = _terminal()
    reporter = Reporter(output, clock, terminal=terminal, width=width)
    output.before_message = reporter.clear
    whole = False
    try:
        yield reporter
        whole = True
    finally:
        reporter.finish(whole=whole)
        output.before_message = _nothing


def _nothing() -> None:
    pass


def _terminal() -> tuple[bool, int]:
    """Whether standard error can redraw a line, and its width in columns."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return False, 80
    try:
        return True, os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return True, 80
