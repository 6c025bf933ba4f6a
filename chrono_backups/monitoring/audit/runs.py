"""Runs as the audit log tells of them: also those that failed and left nothing in the repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from chrono_backups.clock import from_text
from chrono_backups.monitoring.audit.verify import lines_of

Outcome = Literal["done", "partial", "failed", "cancelled", "killed", "running"]
LONGEST = timedelta(days=1)
"""Of a run on another machine that has not ended by then it is taken that it was killed."""


@dataclass(frozen=True)
class Run:
    """One act, from its beginning to its end."""

    act: str
    run: str
    backup_id: str
    begun_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    error: str
    """The kind of its error; empty where it had none."""


def runs(files: Iterable[Path], since: datetime, now: datetime, alive: Callable[[str, int], bool]) -> list[Run]:
    """Those that began after ``since``, in the order in which they ended; those that have not ended last.

    ``alive`` says whether a process of a host may still run. Raises ``OSError``.
    """
    begun: dict[str, dict[str, object]] = {}
    found: list[Run] = []
    for path in files:
        for body, _ in lines_of(path):
            if b'"phase":"' not in body:
                continue
            try:
                line = json.loads(body)
                at = from_text(line["at"])
            except (ValueError, KeyError, TypeError):  # `audit verify` names what is no line
                continue
            if at < since:
                continue
            if line["phase"] == "begin":
                begun[line.get("run", "")] = line
            elif (start := begun.pop(line.get("run", ""), None)) is not None:
                found.append(_run(start, line))
    for line in begun.values():
        origin = line.get("from")
        host, pid = (str(origin.get("host")), int(origin.get("pid", 0))) if isinstance(origin, dict) else ("", 0)
        dead = not alive(host, pid) or now - from_text(str(line["at"])) > LONGEST
        found.append(_run(line, None, "killed" if dead else "running"))
    return found


def _run(begun: dict[str, object], ended: dict[str, object] | None, outcome: Outcome = "failed") -> Run:
    last = ended or begun
    error = last.get("error")
    return Run(
        str(begun.get("act", "")),
        str(begun.get("run", "")),
        str(last.get("backup", "") or begun.get("backup", "")),
        from_text(str(begun["at"])),
        from_text(str(ended["at"])) if ended else None,
        outcome if ended is None else str(ended.get("result", "failed")),  # type: ignore[arg-type]
        str(error.get("kind", "")) if isinstance(error, dict) else "",
    )
