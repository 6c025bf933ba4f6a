"""What a run that failed says, and its exit code."""

from __future__ import annotations

import traceback
from typing import Any

from chrono_backups import errors
from chrono_backups.cli import exit_codes
from chrono_backups.cli.interruption import TimeLimitReached
from chrono_backups.cli.terminal.output import Output
from chrono_backups.cli.verbs import PROGRAM

_TRACEBACK_HINT = "This is a defect or a fault of the system. Run it again with --debug for the traceback."

_ATTRIBUTES: dict[type[errors.ChronoBackupsError], tuple[str, ...]] = {
    errors.WrongKey: ("known",),
    errors.BackupFailed: ("failures",),
    errors.StorageError: ("storage", "operation", "key"),
    errors.SourceError: ("source",),
    errors.Damaged: ("key",),
}
"""What an error document shows of an error besides its message."""


def report(output: Output, error: BaseException, *, debug: bool, code: int | None = None) -> int:
    """Say what went wrong on standard error, and in the JSON document. Returns the exit code."""
    if isinstance(error, errors.ChronoBackupsError):
        kind, message, hint = type(error).__name__, error.message, error.hint
        code = exit_codes.exit_code(error) if code is None else code
    else:
        kind, message, hint = type(error).__name__, _unexpected(error), _TRACEBACK_HINT
        code = exit_codes.FAILED if code is None else code
    if debug:
        output.error("".join(traceback.format_exception(error)).rstrip("\n"))
    said = output.redact(message)
    output.error(f"{PROGRAM}: {'cancelled' if code == exit_codes.CANCELLED else 'error'}: {said}")
    for line in _details(error):
        output.error(line)
    if hint:
        output.error(f"hint: {hint}")
    if output.json:
        document = {"kind": kind, "message": said, "hint": output.redact(hint), "exit_code": code, **_facts(error)}
        output.error_document(document)
    return code


def report_interruption(output: Output, interruption: KeyboardInterrupt, state: str, *, debug: bool) -> int:
    """Say that the run was stopped, by whom, and in which ``state`` it leaves things."""
    if isinstance(interruption, TimeLimitReached):
        message = "BACKUP_TIMEOUT_SECONDS have passed, so the run was stopped"
        error = errors.Cancelled(_sentence(message, state), hint="Give it more time, or let it read less at once.")
        return report(output, error.with_traceback(interruption.__traceback__), debug=debug, code=exit_codes.FAILED)
    error = errors.Cancelled(_sentence(str(interruption) or "SIGINT", state))
    return report(output, error.with_traceback(interruption.__traceback__), debug=debug)


def _sentence(what: str, state: str) -> str:
    return f"{what}; {state}" if state else what


def _unexpected(error: BaseException) -> str:
    text = str(error)
    return f"unexpected {type(error).__name__}: {text}" if text else f"unexpected {type(error).__name__}"


def _details(error: BaseException) -> list[str]:
    if isinstance(error, errors.BackupFailed):
        return [f"  {source}: {reason}" for source, reason in error.failures.items()]
    return []


def _facts(error: BaseException) -> dict[str, Any]:
    """What the error carries besides its message."""
    if isinstance(error, errors.SettingsError):
        return {"problems": [dict(vars(problem)) for problem in error.problems]}
    names = next((names for kind, names in _ATTRIBUTES.items() if isinstance(error, kind)), ())
    return {name: getattr(error, name) for name in names}
