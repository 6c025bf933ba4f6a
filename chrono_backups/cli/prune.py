"""``prune``: free the space of what no backup refers to."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.maintenance.prune import plan_prune, prune

DESCRIPTION = """\
Free the space of forgotten backups. What nothing refers to is condemned first, and deleted by a later prune, once
BACKUP_PRUNE_GRACE_HOURS have passed without a writer taking it back: any number of backups may run meanwhile.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``prune``."""
    parser = add_verb(
        subparsers,
        "prune",
        DESCRIPTION,
        [
            ("--dry-run", "what would be condemned and deleted"),
            ("", "do it; run it daily, after `forget`"),
        ],
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, and change nothing")
    add_storage_option(parser, "the repository in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Show the plan, then carry it out."""
    context.when_cancelled = "the repository is whole; the next prune does the rest"
    grace = timedelta(hours=context.settings.retention.prune_grace_hours)
    with context.repository(arguments.storage) as repository, context.progress() as listener:
        plan = plan_prune(repository, grace=grace, now=context.clock.now(), listener=listener)
        if not context.output.json and (arguments.dry_run or not context.output.quiet):
            context.output.lines(_lines(plan.to_json()))
        report = None if arguments.dry_run else prune(repository, plan, listener)
    document: dict[str, Any] = {"dry_run": arguments.dry_run, "plan": plan.to_json()}
    if report is not None:
        document["report"] = report.to_json()
    context.output.report(document, _lines({} if report is None else report.to_json()))
    return DONE


def _lines(values: Mapping[str, Any]) -> list[str]:
    """Counts as they are, bytes as sizes, lists by their length."""
    return facts((name.replace("_", " "), _shown(name, value)) for name, value in values.items())


def _shown(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{len(value):,}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if "bytes" in name:
        return quantities.size(value)
    return quantities.duration(value) if "seconds" in name else f"{value:,}"
