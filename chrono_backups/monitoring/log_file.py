"""The log file: one JSON object a line, for log collectors and ``grep``.

It is opened anew for each line, so that it may be moved away at any time, and put aside as ``.1`` (then ``.2``, …) when
it has grown too large. A log that can't be written costs nothing but itself: ``fault`` says why.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from chrono_backups.clock import Clock, to_text
from chrono_backups.monitoring.settings import LogSettings

Level = Literal["info", "warning", "error"]


class LogFile:
    """One file, written by any number of processes."""

    def __init__(self, path: Path, *, largest: int, keep: int, clock: Clock) -> None:
        self.path = path
        self.fault = ""
        """Why the last line could not be written; empty where it was."""
        self._largest = largest
        self._keep = keep
        self._clock = clock

    @classmethod
    def of(cls, settings: LogSettings, clock: Clock) -> LogFile | None:
        """The file that the settings ask for; None where they ask for none."""
        if settings.file is None:
            return None
        return cls(settings.file, largest=int(settings.max_size_mb * 1_000_000), keep=settings.keep, clock=clock)

    def write(self, level: Level, message: str, facts: Mapping[str, Any]) -> None:
        """One line. The level stands before the message, so that ``grep 'storage.*error'`` finds messages only."""
        said = {name: value for name, value in facts.items() if value not in (None, "")}
        line = {"time": to_text(self._clock.now()), "level": level, **said, "message": message}
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._append(data)
            self.fault = ""
        except OSError as error:
            self.fault = f"the log file {self.path} can't be written: {(error.strerror or 'unknown').lower()}"

    def _append(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, data)
            if os.fstat(file).st_size > self._largest:
                self._put_aside(file)
        finally:
            os.close(file)

    def _put_aside(self, file: int) -> None:
        """Rename it, unless another process has done so meanwhile."""
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino != self.path.stat().st_ino:
                return
            for number in range(self._keep, 0, -1):
                older = self.path.with_name(f"{self.path.name}.{number}")
                newer = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
                if newer.exists():
                    newer.replace(older)
