"""``audit``: show who did what, and prove that nobody has changed the record of it."""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chrono_backups.cli.arguments import Parser, Subparsers, add_global_options, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.clock import from_text
from chrono_backups.errors import ChronoBackupsError, UsageError
from chrono_backups.monitoring.audit.log import AuditLog
from chrono_backups.monitoring.audit.verify import AuditReport, lines_of, verify
from chrono_backups.repository.records import AuditHead

DESCRIPTION = """\
The audit log (BACKUP_AUDIT_ENABLED): who did what, on what, from where, and what came of it. `show` prints it; `verify`
proves that no line was changed, dropped or moved, and by the heads that backups carry that the log was not cut or
written anew. Exit code 3 where it was.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``audit``."""
    parser = add_verb(
        subparsers,
        "audit",
        DESCRIPTION,
        [
            ("verify", "the whole log, and against every backup that can be read"),
            ("show --last 20", "the last lines"),
            ("show --act restore --since 2026-01-01", "all restores of this year"),
        ],
    )
    actions = parser.add_subparsers(dest="action", metavar="verify|show", required=True, parser_class=Parser)
    verifying = _action(actions, "verify", "prove that the log is what was written")
    verifying.add_argument("--no-backups", action="store_true", help="the chain alone; open no repository")
    add_storage_option(verifying, "compare with the backups in this storage")
    showing = _action(actions, "show", "print its lines, the newest last")
    showing.add_argument("--last", metavar="N", type=int, default=50, help="so many at most (default: 50; 0: all)")
    showing.add_argument("--act", metavar="ACT", help="only this act, as `backup` or `restore`")
    showing.add_argument("--since", metavar="ISO", help="only lines from this time on")


def _action(actions: Subparsers, name: str, meaning: str) -> Parser:
    parser = actions.add_parser(name, help=meaning, description=meaning)
    add_global_options(parser)
    return parser


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Show or verify."""
    settings = context.settings.audit
    log = AuditLog(settings.log_file, retention_days=settings.retention_days, clock=context.clock)
    try:
        files = log.files()
        if not files:
            raise UsageError(
                f"there is no audit log at {settings.log_file}",
                hint="BACKUP_AUDIT_ENABLED=true begins one; BACKUP_AUDIT_LOG_FILE says where.",
            )
        return _verify(arguments, context, files) if arguments.action == "verify" else _show(arguments, context, files)
    except OSError as error:
        raise ChronoBackupsError(f"the audit log can't be read: {error}") from error


def _verify(arguments: argparse.Namespace, context: Context, files: list[Path]) -> int:
    heads = {} if arguments.no_backups else _heads(arguments, context)
    report = verify(files, heads)
    lines = [*(safe_message(finding_line(finding)) for finding in report.findings), *_verdict(report, files)]
    if report.ok:
        context.output.report(report.to_json(), lines)
        return DONE
    context.output.show(report.to_json(), lines)
    return DAMAGED


def _heads(arguments: argparse.Namespace, context: Context) -> dict[str, AuditHead]:
    """What backups know of audit logs; none where no repository opens, which is said."""
    try:
        with context.reading(arguments.storage) as repository:
            manifests, _ = repository.readable_backups()
            return {one.backup_id: one.audit for one in manifests if one.audit is not None}
    except ChronoBackupsError as error:
        context.output.warning(f"the chain alone is verified: no repository could be read: {error.message}")
        return {}


def _verdict(report: AuditReport, files: list[Path]) -> list[str]:
    span = f"{report.first:,} to {report.last:,}, in {quantities.count(len(files), 'file')}"
    known = f"{quantities.count(report.heads_checked, 'backup')} of this log" + (
        f", {report.heads_elsewhere:,} of others or older" if report.heads_elsewhere else ""
    )
    verdict = "nothing was changed" if report.ok else "IT WAS CHANGED"
    return facts([("lines", span), ("compared with", known), ("head", report.head), ("verdict", verdict)])


def _show(arguments: argparse.Namespace, context: Context, files: list[Path]) -> int:
    found = deque(_chosen(arguments, files), maxlen=arguments.last or None)
    rows = [
        (
            str(one["n"]),
            quantities.moment(from_text(one["at"])),
            " ".join(filter(None, (one.get("act", ""), one.get("phase", "")))),
            _who(one),
            str(one.get("backup", "")),
            _result(one),
        )
        for one in found
    ]
    header = ("LINE", "TIME (UTC)", "ACT", "WHO", "BACKUP", "RESULT")
    lines = map(safe_message, table(header, rows, right=("LINE",))) if rows else ()
    context.output.show(list(found), lines)
    return DONE


def _chosen(arguments: argparse.Namespace, files: list[Path]) -> Iterator[dict[str, Any]]:
    since = _moment(arguments.since)
    for path in files:
        for body, _ in lines_of(path):
            try:
                line = json.loads(body)
                wanted = arguments.act in (None, line["act"]) and (since is None or from_text(line["at"]) >= since)
            except (ValueError, KeyError, TypeError):  # `verify` names what is no line
                continue
            if wanted:
                yield line


def _moment(text: str | None) -> Any:
    if text is None:
        return None
    from datetime import UTC, datetime  # noqa: PLC0415 - for this option only

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time", hint="As 2026-01-31 or 2026-01-31T02:00:00Z.") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _who(line: dict[str, Any]) -> str:
    who, origin = line.get("who", {}), line.get("from", {})
    if not who:
        return "the log itself"
    person = f"{who['login']} as {who['user']}" if who.get("login") else str(who.get("user", ""))
    return f"{person}@{origin.get('host', '')}, {who.get('trigger', '')}"


def _result(line: dict[str, Any]) -> str:
    error = line.get("error", {})
    parts = (line.get("result", ""), line.get("detail", ""), error.get("message", ""))
    return ": ".join(str(one) for one in parts if one)
