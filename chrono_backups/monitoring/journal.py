"""One run as it is recorded: in the audit log, where there is one, and in the log file.

Of an act that changes something the audit log says that it begins before anything is done: where it can't be written,
the act is not begun. How it ended stands there before that is reported. Reading is recorded where settings ask for it,
and never kept back by a log.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chrono_backups.errors import (
    ChronoBackupsError,
    EncryptionMismatch,
    KeyMissing,
    SourceError,
    StorageError,
    WrongKey,
)
from chrono_backups.events import Finding, Progress
from chrono_backups.monitoring.audit.log import AuditLog
from chrono_backups.monitoring.log_file import Level, LogFile

Result = Literal["done", "partial", "failed", "cancelled"]

_KINDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((StorageError,), "Storage error"),
    ((KeyMissing, WrongKey, EncryptionMismatch), "Encryption error"),
    ((SourceError,), "Source error"),
)
"""How errors of a kind begin in the log file, which is what operators search for."""
_FINDINGS_MOST = 1000
_WARNINGS_TOLD = 3
_UNSET_LOGIN = 0xFFFFFFFF


@dataclass(frozen=True)
class Act:
    """What is done, on what, and who asked for it."""

    name: str
    on: Mapping[str, Any]
    changes: bool
    """It changes what is stored, or what it restores to."""
    trigger: str
    """``command line``, ``schedule …``, as manifests have it."""
    run: str
    """The run's own id: Dagster's, or drawn."""
    token: str = ""
    """Name of the token that was shown, where one was."""


class Journal:
    """The records of one run."""

    def __init__(
        self,
        act: Act,
        *,
        audit: AuditLog | None,
        log: LogFile | None,
        all_operations: bool,
        redact: Callable[[str], str],
        backup_id: str = "",
    ) -> None:
        self.act = act
        self.backup_id = backup_id
        """Of the backup that is worked on, once it is known."""
        self._audit = audit if act.changes or all_operations else None
        self._log = log
        self._redact = redact
        self._findings = 0
        self._warnings: list[str] = []
        self._ended = False

    @property
    def keeps_back(self) -> bool:
        """Whether an end must be recorded before it is reported."""
        return self._audit is not None and self.act.changes

    @property
    def fault(self) -> str:
        """Why the log file can't be written; empty where it can, or is not wanted."""
        return self._log.fault if self._log is not None else ""

    def begin(self) -> None:
        """Before anything is done. Raises ``AuditUnwritable`` of an act that changes something."""
        if self.keeps_back:
            try:
                self._append("begin")
            except ChronoBackupsError as error:
                self._ended = True
                self._note_end("failed", error, "")
                raise
        if self.act.changes:
            self.note("info", f"{self._title} begins")

    def tell(self, event: Progress | Finding) -> None:
        """A listener: findings are logged, so many of them."""
        if not isinstance(event, Finding):
            return
        self._findings += 1
        if self._findings <= _FINDINGS_MOST:
            message = f"{event.subject}: {event.message}"
            if event.severity == "error" and event.code.startswith("storage"):
                message = f"Storage error: {message}"
            self.note(event.severity, message, code=event.code, hint=event.hint)
        elif self._findings == _FINDINGS_MOST + 1:
            self.note("warning", "there are more findings than are logged")

    def warn(self, message: str) -> None:
        """What the operator is warned of: logged, and what an end in part is explained by."""
        self._warnings.append(message)
        self.note("warning", message)

    def note(self, level: Level, message: str, **facts: Any) -> None:
        """A line in the log file."""
        if self._log is not None:
            ids = {"act": self.act.name, "run": self.act.run, "backup": self.backup_id}
            whole = {**ids, "host": socket.gethostname(), "pid": os.getpid(), **facts}
            self._log.write(level, self._redact(message), _redacted(whole, self._redact))

    def end(self, result: Result, *, error: BaseException | None = None, detail: str = "") -> None:
        """How it ended, once: the first time counts. Raises ``AuditUnwritable`` of an act that changes something."""
        if self._ended:
            return
        self._ended = True
        if result == "partial" and not detail:
            detail = "; ".join(self._warnings[:_WARNINGS_TOLD])
        self._note_end(result, error, detail)
        if self._audit is None:
            return
        said: dict[str, Any] = {"result": result, "detail": detail}
        if error is not None:
            said["error"] = {"kind": type(error).__name__, "message": _message(error)}
        if self.keeps_back:
            self._append("end", **said)
        else:
            with suppress(ChronoBackupsError):
                self._append("end", **said)

    def _note_end(self, result: Result, error: BaseException | None, detail: str) -> None:
        what = f": {self.backup_id}" if self.backup_id else ""
        told = f"; {detail}" if detail else ""
        if error is not None:
            kind = next((words for kinds, words in _KINDS if isinstance(error, kinds)), "")
            if kind:
                self.note("error", f"{kind}: {_message(error)}", kind=type(error).__name__)
        if result == "done":
            if self.act.changes:
                self.note("info", f"{self._title} completed successfully{what}{told}")
        elif result == "partial":
            self.note("warning", f"{self._title} completed in part{what}{told}")
        else:
            why = "cancelled" if result == "cancelled" else ""
            why = "; ".join(one for one in (why, _message(error) if error else "", detail) if one) or "see above"
            self.note("error", f"{self._title} failed{what}: {why}", kind=type(error).__name__ if error else "")

    @property
    def _title(self) -> str:
        return self.act.name.replace("-", " ").replace("_", " ").capitalize()

    def _append(self, phase: str, **said: Any) -> None:
        assert self._audit is not None
        act = self.act
        content = {
            "act": act.name,
            "phase": phase,
            "run": act.run,
            "backup": self.backup_id,
            "who": {**_user(), "trigger": act.trigger, **({"token": act.token} if act.token else {})},
            "from": _origin(),
            "on": dict(act.on),
            **said,
        }
        self._audit.append(_redacted(content, self._redact))


def _message(error: BaseException) -> str:
    if isinstance(error, ChronoBackupsError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(name): _redacted(one, redact) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(one, redact) for one in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


def _user() -> dict[str, Any]:
    """The account, and the person who logged in where the kernel knows of another."""
    uid = os.geteuid()
    found: dict[str, Any] = {"user": _name_of(uid), "uid": uid}
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text())
        if login not in {uid, _UNSET_LOGIN}:
            found["login"] = _name_of(login)
    if "login" not in found and (sudo := os.environ.get("SUDO_USER")):
        found["login"] = sudo
    return found


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _origin() -> dict[str, Any]:
    """The machine and process; of a remote shell also where it came from."""
    found: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    if remote := os.environ.get("SSH_CONNECTION", "").partition(" ")[0]:
        found["remote"] = remote
    return found
