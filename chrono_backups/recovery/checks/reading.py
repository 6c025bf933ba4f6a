"""Where the operator's checks are written: in the setting itself, or in a file that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chrono_backups.errors import UsageError
from chrono_backups.events import Finding
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.checks.syntax import Asked, Check, parse_checks

ACCEPTED = "checks, one a line, or the absolute path of a file of them"


def names_file(text: str) -> bool:
    """Whether the setting is the path of a file, and not checks."""
    return text.startswith("/") and "\n" not in text.strip()


def read_checks(text: str | None) -> tuple[Check, ...]:
    """The checks of a setting; none where it is not set. Raises ``UsageError`` naming the line that is none."""
    if not text:
        return ()
    if not names_file(text):
        return parse_checks(text)
    path = Path(text.strip())
    try:
        found = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8"
        raise UsageError(
            f"the drill checks in {path} can't be read: {reason}", hint="Set BACKUP_DRILL_CHECKS to a readable file."
        ) from error
    return parse_checks(found)


_SOURCES: Mapping[Asked, SourceName] = {
    "sql": "postgres",
    "redis": "redis",
    "meilisearch": "meilisearch",
    "files": "files",
}


def probe_checks(text: str | None, sources: Sequence[SourceName]) -> list[Finding]:
    """What ``validate`` finds: checks that can't be read, and those that ask what is not backed up."""
    try:
        checks = read_checks(text)
    except UsageError as error:
        return [Finding("settings.drill_checks", "error", "BACKUP_DRILL_CHECKS", error.message, error.hint)]
    found = []
    for check in checks:
        missing = [query.store for query in check.queries if _SOURCES[query.store] not in sources]
        if missing:
            message = f"the check {check.name} asks {missing[0]}, and {_SOURCES[missing[0]]} is not backed up"
            hint = "It fails every drill. Configure the source, or remove the check."
            found.append(Finding("settings.drill_checks", "error", "BACKUP_DRILL_CHECKS", message, hint))
    if checks and not found:
        message = f"{len(checks)} drill checks: {', '.join(check.name for check in checks)}"
        found.append(Finding("drill-checks", "info", "BACKUP_DRILL_CHECKS", message))
    return found
