"""``verify``: prove that stored data is true."""

from __future__ import annotations

import argparse

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.maintenance.verify import VerifyReport
from chrono_backups.maintenance.verify import verify as verify_repository

DESCRIPTION = """\
Check that all that the backups need is stored and true: without --full the records, the index and that every
pack is there in its size; with --full every byte of every chunk is read, opened and compared with its id.
Every damaged or missing object is named (exit code 3). Nothing is changed.
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
        ],
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="one backup, or `latest` (default: all of them)")
    parser.add_argument("--full", action="store_true", help="read every byte")
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Check, and list what is wrong."""
    with context.repository(arguments.storage) as repository:
        # A damaged manifest is for the report, so an id is not looked up here.
        backup_id = repository.backup("latest").backup_id if arguments.id == "latest" else arguments.id
        with context.progress() as listener:
            report = verify_repository(
                repository, backup_id=backup_id, full=arguments.full, listener=_progress_only(listener)
            )
    document = {"backup_id": backup_id, "full": arguments.full, **report.to_json()}
    lines = [*(safe_message(finding_line(finding)) for finding in report.findings), _conclusion(report)]
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
