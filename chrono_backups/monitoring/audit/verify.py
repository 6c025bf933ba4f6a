"""Verifying the chain: every line that was changed, dropped, put elsewhere or added is named. Bounded memory.

The chain alone proves that what is there is one unbroken log. Heads that backups carry prove that it is the one that
was there then: a log that was cut at its end, or written anew from some line on, has another line, or none, at such a
head's number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrono_backups.events import Finding
from chrono_backups.monitoring.audit.line import FIRST, Line, digest, parse
from chrono_backups.repository.records import AuditHead

MOST = 100
"""Findings told; more are counted."""
_CHANGED = "Compare with a copy of the log kept elsewhere. Who could write to it?"
_BUFFER = 1 << 20


@dataclass
class AuditReport:
    """What a verification read and found."""

    log: str = ""
    first: int = 0
    last: int = 0
    lines: int = 0
    head: str = ""
    """The hash of the last line."""
    heads_checked: int = 0
    """Of backups' heads, those of this log that are among its lines."""
    heads_elsewhere: int = 0
    """Those of other logs, and of lines that were removed for their age."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, code: str, subject: str, message: str, hint: str = _CHANGED) -> None:
        """Note what is wrong."""
        if len(self.findings) < MOST:
            self.findings.append(Finding(code, "error", subject, message, hint))
        else:
            self.more += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "log": self.log,
            "first_line": self.first,
            "last_line": self.last,
            "lines": self.lines,
            "head": self.head,
            "heads_checked": self.heads_checked,
            "heads_elsewhere": self.heads_elsewhere,
            "findings": [one.to_json() for one in self.findings],
            "more_findings": self.more,
        }


def verify(files: Iterable[Path], heads: Mapping[str, AuditHead] | None = None) -> AuditReport:
    """The files of one log, the oldest first, against themselves and ``heads`` of backups, by backup's id.

    Raises ``OSError`` where one can't be read.
    """
    return _Chain(heads or {}).run(files)


def lines_of(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line without its newline, and whether it has one."""
    with path.open("rb", buffering=_BUFFER) as file:
        for raw in file:
            yield (raw[:-1], True) if raw.endswith(b"\n") else (raw, False)


class _Chain:
    def __init__(self, heads: Mapping[str, AuditHead]) -> None:
        self._heads = heads
        self._wanted = {one.line for one in heads.values()}
        self._hashes: dict[int, str] = {}
        self._report = AuditReport()
        self._before: Line | None = None
        self._start: Line | None = None
        self._removed: dict[int, str] = {}
        """Lines that are told to have been removed up to there, with the hash of the last."""
        self._gaps: list[tuple[int, int, int]] = []
        """First and last number that is missing, and the line behind which it is."""
        self._misplaced: dict[int, int] = {}
        """Number → the line behind which it stands instead."""
        self._torn: tuple[str, bytes] | None = None

    def run(self, files: Iterable[Path]) -> AuditReport:
        for path in files:
            for position, (body, ended) in enumerate(lines_of(path), 1):
                line = parse(body)
                if line is None:
                    self._no_line(f"{path.name}, line {position} of the file", body, ended)
                else:
                    self._follow(line)
        self._untold()
        self._beginning()
        self._missing()
        self._compare()
        self._report.findings.sort(key=lambda one: one.code == "audit-head-differs")
        return self._report

    def _follow(self, line: Line) -> None:
        report, before = self._report, self._before
        report.lines += 1
        if self._torn is not None:
            self._told(line)
        if not line.is_sound():
            report.add("audit-line-changed", f"line {line.number}", "it is not what was written: its hash differs")
        if before is None:
            self._start = line
            report.log, report.first = line.log, line.number
        elif line.number > before.number + 1:
            self._gaps.append((before.number + 1, line.number - 1, before.number))
        elif line.number <= before.number:
            self._misplaced[line.number] = before.number
            if line.number in self._wanted:
                self._hashes.setdefault(line.number, line.hash)
            return  # what follows goes on after the line before it
        elif line.previous != before.hash or line.log != before.log:
            message = f"it is not the line that line {line.number} was written after"
            report.add("audit-line-changed", f"line {before.number}", message)
        if line.number in self._wanted:
            self._hashes[line.number] = line.hash
        if b'"act":"lines-removed"' in line.body:
            on = line.content().get("on", {})
            self._removed[int(on.get("through", 0))] = str(on.get("head", ""))
        self._before = line
        report.last, report.head = line.number, line.hash

    def _no_line(self, where: str, body: bytes, ended: bool) -> None:
        self._untold()
        self._torn = where, body
        if not ended:  # a crash, of which no line tells yet; or somebody writes just now
            self._torn = None

    def _told(self, line: Line) -> None:
        """A crash may leave a torn line; the next one says so."""
        assert self._torn is not None
        on = line.content().get("on", {}) if b'"act":"torn-line"' in line.body else {}
        if on == {"bytes": len(self._torn[1]), "hash": digest(self._torn[1])}:
            self._torn = None
        self._untold()

    def _untold(self) -> None:
        if self._torn is not None:
            self._report.add("audit-line-changed", self._torn[0], "it is no line of an audit log")
            self._torn = None

    def _beginning(self) -> None:
        start = self._start
        if start is None or (start.number == 1 and start.previous == FIRST):
            return
        if self._removed.get(start.number - 1) != start.previous:
            self._report.add(
                "audit-lines-missing",
                f"lines 1 to {start.number - 1}",
                "the log begins behind them, and no line tells that they were removed for their age",
            )

    def _missing(self) -> None:
        for first, last, behind in self._gaps:
            seen = range(first, min(last, first + MOST) + 1)
            absent = [number for number in seen if number not in self._misplaced]
            if absent:
                end = last if seen[-1] < last else absent[-1]
                names = f"line {end}" if absent[0] == end else f"lines {absent[0]} to {end}"
                message = f"nothing stands between line {behind} and line {last + 1}"
                self._report.add("audit-lines-missing", names, message)
        for number, behind in self._misplaced.items():
            doubled = not any(first <= number <= last for first, last, _ in self._gaps)
            what = "it is there twice" if doubled else "it is not in its place"
            self._report.add("audit-line-misplaced", f"line {number}", f"{what}: it stands behind line {behind}")

    def _compare(self) -> None:
        """The heads that backups know of this log."""
        report = self._report
        for backup_id, head in sorted(self._heads.items(), key=lambda one: one[1].line):
            if head.log != report.log or head.line < report.first:
                report.heads_elsewhere += 1
            elif head.line > report.last:
                message = f"the log ends at line {report.last}, and {backup_id} knows line {head.line}: its end was cut"
                report.add("audit-log-cut", f"lines {report.last + 1} to {head.line}", message)
            else:
                report.heads_checked += 1
                if self._hashes.get(head.line) not in (None, head.hash):
                    message = f"{backup_id} knows another line {head.line}: the log was written anew, there or before"
                    report.add("audit-head-differs", f"line {head.line}", message)
