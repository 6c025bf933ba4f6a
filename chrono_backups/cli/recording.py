"""Where the command line's runs are recorded: begun before a verb does anything, ended before its end is reported."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chrono_backups.cli.context import TRIGGER, Context
from chrono_backups.cli.exit_codes import CANCELLED, DONE, PARTIAL
from chrono_backups.errors import AuditUnwritable

if TYPE_CHECKING:
    from chrono_backups.monitoring.journal import Journal, Result

CHANGING = frozenset({"init", "backup", "replicate", "restore", "drill", "forget", "prune", "wal-receive"})
"""Verbs that change what is stored, or what they restore to; of others some actions do."""
_CHANGING_ACTIONS = {"key": ("add", "remove"), "storage": ("extend-locks",)}
_OPTIONS = frozenset({"verb", "action", "env_file", "json", "quiet", "debug"})


def changes(verb: str, arguments: argparse.Namespace) -> bool:
    """Whether that call changes something. ``wal-push`` counts as reading: a log must not hold up a server's WAL."""
    if getattr(arguments, "dry_run", False) or getattr(arguments, "list", False):
        return False
    action = getattr(arguments, "action", "")
    return verb in CHANGING or action in _CHANGING_ACTIONS.get(verb, ()) or getattr(arguments, "repair", False)


class Recording:
    """The record of one run of the program."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._call: tuple[str, argparse.Namespace] | None = None

    def begin(self, verb: str, arguments: argparse.Namespace) -> None:
        """Raises ``AuditUnwritable`` where the call would change something, and that can't be recorded."""
        self._call = verb, arguments
        if not changes(verb, arguments):
            return  # made at the end, where the verb has asked for settings
        journal = self._make(verb, arguments)
        journal.begin()
        if journal.keeps_back:
            self._context.output.hold()

    def end(self, code: int) -> None:
        """The verb has returned that code. Raises ``AuditUnwritable``, as the end of a change must be recorded."""
        results: dict[int, Result] = {DONE: "done", PARTIAL: "partial", CANCELLED: "cancelled"}
        journal = self._at_the_end()
        if journal is None:
            return
        try:
            journal.end(results.get(code, "failed"), detail="" if code in results else f"exit code {code}")
        except AuditUnwritable as error:
            raise AuditUnwritable(f"it was done (exit code {code}), and its end is not recorded: {error}") from error
        self._say_fault(journal)

    def failed(self, error: BaseException) -> None:
        """The verb ended by that error, which is the one to tell whatever becomes of the record."""
        journal = self._at_the_end()
        if journal is not None:
            try:
                journal.end("cancelled" if isinstance(error, KeyboardInterrupt) else "failed", error=error)
            except AuditUnwritable as unwritable:
                self._context.output.warning(str(unwritable))
            self._say_fault(journal)

    def _at_the_end(self) -> Journal | None:
        if self._context.journal is None and self._call is not None and self._context.knows_settings:
            settings = self._context.settings
            # Where nobody wants to know, reading is worth no import: a recovery starts `wal-fetch` for each segment.
            if settings.log.file is not None or (settings.audit.enabled and settings.audit.log_all_operations):
                self._make(*self._call)
        return self._context.journal

    def _make(self, verb: str, arguments: argparse.Namespace) -> Journal:
        from chrono_backups.monitoring.audit.log import AuditLog  # noqa: PLC0415 - help and wrong usage do without
        from chrono_backups.monitoring.journal import Act, Journal  # noqa: PLC0415
        from chrono_backups.monitoring.log_file import LogFile  # noqa: PLC0415

        context = self._context
        settings, clock = context.settings, context.clock
        action = getattr(arguments, "action", "")
        act = Act(
            f"{verb} {action}" if action else verb,
            _on(vars(arguments)),
            changes(verb, arguments),
            TRIGGER,
            clock.random_bytes(8).hex(),
        )
        context.journal = Journal(
            act,
            audit=AuditLog.of(settings.audit, clock),
            log=LogFile.of(settings.log, clock),
            all_operations=settings.audit.log_all_operations,
            redact=context.redact,
            backup_id=str(getattr(arguments, "id", "") or ""),
        )
        return context.journal

    def _say_fault(self, journal: Journal) -> None:
        if journal.fault:
            self._context.output.warning(journal.fault)


def _on(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The call's own words; of settings that it brings along only the names."""
    given = {name: value for name, value in arguments.items() if name not in _OPTIONS}
    given = {name: value for name, value in given.items() if value not in (None, False, [])}
    if "set" in given:
        given["set"] = [str(one).partition("=")[0] for one in given["set"]]
    return given
