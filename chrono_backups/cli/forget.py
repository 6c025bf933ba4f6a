"""``forget``: drop backups by the retention policy, or by id."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal.tables import table
from chrono_backups.errors import UsageError
from chrono_backups.identifiers import parse_backup_id
from chrono_backups.maintenance.forget import forget, forget_ids, plan_forget
from chrono_backups.maintenance.retention import Verdict
from chrono_backups.maintenance.wal_retention import WalVerdict
from chrono_backups.repository.repository import Repository

DESCRIPTION = """\
Drop the backups that no retention rule keeps (BACKUP_RETENTION_DAYS, BACKUP_KEEP_…, BACKUP_MIN_BACKUPS_TO_KEEP),
or exactly those named. Every verdict is shown with its reasons. Archived WAL is kept back to the oldest base backup
that is kept. Space is freed by `prune`, later.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``forget``."""
    parser = add_verb(
        subparsers,
        "forget",
        DESCRIPTION,
        [
            ("--dry-run", "what the policy would drop, and why"),
            ("", "drop it"),
            ("full_20260104_020000", "drop that one, whatever the policy says"),
        ],
    )
    parser.add_argument("ids", metavar="ID", nargs="*", help="backups to drop (default: what the policy says)")
    parser.add_argument("--dry-run", action="store_true", help="show the verdicts, and change nothing")
    parser.add_argument("--force", action="store_true", help="with ID: even where no complete backup is left")
    add_storage_option(parser, "the repository in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Show the verdicts, then carry them out."""
    context.when_cancelled = "the repository is whole; run it again to forget the rest"
    wal: Sequence[WalVerdict] = ()
    if not arguments.dry_run:
        context.undertake("forgetting", "retention-failed")
    with context.repository(arguments.storage) as repository:
        if arguments.ids:
            verdicts = _named(repository, arguments.ids)
            _show_first(context, verdicts, arguments.dry_run)
            if not arguments.dry_run:
                forget_ids(repository, [verdict.backup_id for verdict in verdicts], force=arguments.force)
        else:
            zone = _zone(context.settings.timezone)
            plan = plan_forget(repository, context.settings.retention, context.clock.now(), timezone=zone)
            verdicts, wal = list(plan.verdicts), plan.wal
            _show_first(context, verdicts, arguments.dry_run)
            if not arguments.dry_run:
                forget(repository, plan)
    _conclude(context, verdicts, wal, arguments.dry_run)
    return DONE


def _zone(name: str) -> tzinfo:
    """The time zone whose days retention counts. A machine without the zones' data knows UTC."""
    return UTC if name == "UTC" else ZoneInfo(name)


def _named(repository: Repository, ids: Sequence[str]) -> list[Verdict]:
    """Verdicts over exactly those ids, each of which exists. ``latest`` is refused: it would be a guess."""
    for backup_id in ids:
        if parse_backup_id(backup_id) is None:
            raise UsageError(
                f"{backup_id!r} is not a backup's id",
                hint="Name what is to be forgotten by its full id, as `list` shows it.",
            )
    return [
        Verdict(repository.backup(backup_id).backup_id, keep=False, reasons=("named by the operator",))
        for backup_id in dict.fromkeys(ids)
    ]


def _show_first(context: Context, verdicts: Sequence[Verdict], dry_run: bool) -> None:
    """The plan, before anything is done. ``--quiet`` leaves it out unless it is all that was asked for."""
    if not context.output.json and verdicts and (dry_run or not context.output.quiet):
        rows = [("keep" if one.keep else "forget", one.backup_id, "; ".join(one.reasons)) for one in verdicts]
        context.output.lines(table(("VERDICT", "ID", "REASONS"), rows))


def _conclude(context: Context, verdicts: Sequence[Verdict], wal: Sequence[WalVerdict], dry_run: bool) -> None:
    dropped = [one for one in verdicts if not one.keep]
    document = {
        "dry_run": dry_run,
        "keep": [{"id": one.backup_id, "reasons": list(one.reasons)} for one in verdicts if one.keep],
        "forget": [{"id": one.backup_id, "reasons": list(one.reasons)} for one in dropped],
        "wal": [one.to_json() for one in wal],
    }
    if context.output.json:
        context.output.document(document)
    count = f"{len(dropped):,} of {len(verdicts):,}" if len(dropped) != len(verdicts) else f"{len(dropped):,}"
    context.output.message(f"would forget {count}" if dry_run else f"forgot {count}")
    for one in wal:
        context.output.message(f"WAL of cluster {one.system_identifier} is kept {one.reason}")
    if dropped and not dry_run:
        context.output.message("`chrono-backups prune` frees their space.")
