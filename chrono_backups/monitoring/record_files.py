"""Whether the audit log and the log file can be written, and read by nobody else; found without writing anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from chrono_backups.events import Finding, Severity
from chrono_backups.monitoring.settings import AuditSettings, LogSettings


def probe_records(audit: AuditSettings, log: LogSettings) -> list[Finding]:
    """What would keep acts from being recorded; where the audit log can't be written, no act is begun."""
    found: list[Finding] = []
    if audit.enabled:
        hint = "Correct BACKUP_AUDIT_LOG_FILE, or let this user write there; until then nothing can be changed."
        found += _probe("audit", audit.log_file, "error", "BACKUP_AUDIT_LOG_FILE", hint)
    if log.file is not None:
        found += _probe("log", log.file, "warning", "BACKUP_LOG_FILE", "Correct BACKUP_LOG_FILE.")
    return found


def _probe(kind: str, path: Path, severity: Severity, variable: str, hint: str) -> Iterator[Finding]:
    if reason := _why_not(path):
        yield Finding(f"{kind}-unwritable", severity, variable, f"{path} can't be written: {reason}", hint)
        return
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                "readable-by-others", "warning", str(path), f"mode {mode:04o} lets others in", f"chmod 0600 {path}"
            )


def _why_not(path: Path) -> str:
    """Why a line can't be added to it; empty where it can, or it and its folders can be made."""
    if path.exists():
        if not path.is_file():
            return "it is no file"
        return "" if os.access(path, os.W_OK) else "permission denied"
    folder = next(one for one in path.parents if one.exists())
    if not folder.is_dir():
        return f"{folder} is no folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"permission denied in {folder}"
