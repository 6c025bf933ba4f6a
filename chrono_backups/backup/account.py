"""What a capture has done and found so far, and how it tells of it."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.repository.records import Statistics
from chrono_backups.repository.writer import ChunkWriter

_KIND = 0o170000
_FINDINGS_KEPT = 1000
"""A snapshot keeps so many findings, and then one that says how many more there were."""


@dataclass
class Tally:
    """What a capture has done; becomes the snapshot's ``Statistics``."""

    files: int = 0
    directories: int = 0
    others: int = 0
    bytes_total: int = 0
    files_read: int = 0
    bytes_read: int = 0

    def statistics(self, writer: ChunkWriter) -> Statistics:
        added = writer.added
        return Statistics(
            self.files,
            self.directories,
            self.others,
            self.bytes_total,
            self.files_read,
            self.bytes_read,
            added.chunks,
            added.content,
            added.stored,
        )


class Account:
    """One capture's tally, findings and progress."""

    def __init__(self, subject: str, listener: Listener, expected: Statistics | None) -> None:
        """``expected``: what an earlier capture of the source did, by which progress is told."""
        self.tally = Tally()
        self._subject = subject
        self._listener = listener
        self._expected = expected
        self._findings: list[Finding] = []
        self._more_findings = 0

    def find(self, event: Progress | Finding) -> None:
        """Keep a finding, and pass it on."""
        if isinstance(event, Finding):
            if len(self._findings) < _FINDINGS_KEPT:
                self._findings.append(event)
            else:
                self._more_findings += 1
        self._listener(event)

    def findings(self) -> tuple[Finding, ...]:
        """All that were kept, and how many were not."""
        if self._more_findings:
            message = f"{self._more_findings} more findings were not kept"
            self._findings.append(Finding("more-findings", "warning", self._subject, message))
            self._more_findings = 0
        return tuple(self._findings)

    def count(self, modes: Iterable[int], size: int) -> None:
        """Add entries of these modes, with ``size`` bytes of content in all."""
        files = directories = others = 0
        for mode in modes:
            kind = mode & _KIND
            if kind == stat.S_IFREG:
                files += 1
            elif kind == stat.S_IFDIR:
                directories += 1
            else:
                others += 1
        tally = self.tally
        tally.files += files
        tally.directories += directories
        tally.others += others
        tally.bytes_total += size

    def report(self, done_bytes: int) -> None:
        """Tell how far the capture is: content bytes that are dealt with, read or taken over."""
        tally, expected = self.tally, self._expected
        total = (max(expected.bytes_total, done_bytes), max(expected.files, tally.files)) if expected else (None, None)
        self._listener(Progress("backup", self._subject, done_bytes, tally.files, *total))
