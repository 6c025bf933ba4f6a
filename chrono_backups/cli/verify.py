"""``verify``: prove that stored data is true."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.maintenance.heal import heal
from chrono_backups.maintenance.verify import VerifyReport
from chrono_backups.maintenance.verify import verify as verify_repository
from chrono_backups.repository.repository import Repository

DESCRIPTION = """\
Check that all that the backups need is stored and true: without --full the records, the index and that every
pack is there in its size; with --full every byte of every chunk is read, opened and compared with its id.
Every damaged or missing object is named (exit code 3). Nothing is changed.

With --repair, what is damaged or missing is put back from another enabled storage that has it whole, a damaged index is
made anew, and all is verified again: exit code 0 where everything could be mended.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``verify``."""
    parser = add_verb(
        subparsers,
        "verify",
        DESCRIPTION,
        [
            ("", "the whole repository, quickly"),
            ("latest --full", "every byte of the newest backup"),
            ("--full --storage sftp", "every byte of a replica"),
            ("--full --repair", "mend it from the other storages"),
        ],
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="one backup, or `latest` (default: all of them)")
    parser.add_argument("--full", action="store_true", help="read every byte")
    parser.add_argument("--repair", action="store_true", help="put back what is damaged from another storage")
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Check, and list what is wrong."""
    undertaken = context.undertake("verification", "verify-failed")
    undertaken.storage = arguments.storage or context.settings.primary_storage
    if arguments.repair:
        return _repair(arguments, context)
    with context.repository(arguments.storage) as repository:
        backup_id = _backup_id(repository, arguments.id)
        with context.progress() as listener:
            report = verify_repository(
                repository, backup_id=backup_id, full=arguments.full, listener=_progress_only(listener)
            )
    return _tell(context, {"backup_id": backup_id, "full": arguments.full, **report.to_json()}, report)


def _backup_id(repository: Repository, words: str | None) -> str | None:
    """A damaged manifest is for the report, so an id is not looked up here."""
    return repository.backup("latest").backup_id if words == "latest" else words


def _repair(arguments: argparse.Namespace, context: Context) -> int:
    """Verify, mend and verify again."""
    context.when_cancelled = "what was mended is whole; repair again for the rest"
    with (
        context.progress() as listener,
        context.application.opened_for_repair(arguments.storage, listener) as (repository, others),
    ):
        backup_id = _backup_id(repository, arguments.id)
        report = heal(repository, others, backup_id=backup_id, full=arguments.full, listener=_progress_only(listener))
    document = {"backup_id": backup_id, "full": arguments.full, **report.verified.to_json(), **report.to_json()}
    mended = [f"repaired: {one.subject}: {one.message}" for one in report.repaired]
    return _tell(context, document, report.verified, [*mended, *map(finding_line, report.unrepaired)])


def _tell(context: Context, document: dict[str, Any], report: VerifyReport, before: Sequence[str] = ()) -> int:
    """What was found, and whether it is good; ``before`` are lines of a repair."""
    undertaken = context.undertaken
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if undertaken is not None and errors:
        what = f"{quantities.count(len(errors), 'object')} damaged or missing, the first: {errors[0].subject}: "
        hint = "`chrono-backups verify --full --repair` puts back what another storage has whole."
        undertaken.findings.append(
            Finding("verify-failed", "error", undertaken.storage, what + errors[0].message, hint)
        )
    lines = [safe_message(line) for line in (*before, *map(finding_line, report.findings))] + [_conclusion(report)]
    if report.ok:
        context.output.report(document, lines)
        return DONE
    context.output.show(document, lines)
    return DAMAGED


def _progress_only(listener: Listener) -> Listener:
    """The report lists the findings, so they are not said meanwhile as well."""

    def listen(event: Progress | Finding) -> None:
        if isinstance(event, Progress):
            listener(event)

    return listen


def _conclusion(report: VerifyReport) -> str:
    errors = sum(finding.severity == "error" for finding in report.findings)
    read = quantities.size(report.bytes)
    speed = quantities.rate(report.bytes, report.seconds)
    checked = (
        f"{quantities.count(report.objects, 'object')}, {quantities.count(report.chunks, 'chunk')}, "
        f"{read} read in {quantities.duration(report.seconds)} ({speed})"
    )
    verdict = "all is well" if report.ok else f"DAMAGED: {quantities.count(errors, 'error')}"
    return f"{verdict}: {checked}"
