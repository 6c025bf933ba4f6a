"""The part of ``restore --in-place`` that is about running stores: their plans and reports as lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL
from chrono_backups.cli.restore_safety import secure
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import printable
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.errors import UsageError
from chrono_backups.recovery.in_place import RESTORERS, StorePlan, StoreReport, Wanted, plan_store


def add_options(parser: argparse.ArgumentParser) -> None:
    """The words of ``restore`` that are about stores."""
    group = parser.add_argument_group("Redis")
    group.add_argument(
        "--database",
        metavar="N",
        type=int,
        action="append",
        default=[],
        help="with --in-place --source redis: this database only; may be repeated",
    )


def are_meant(arguments: argparse.Namespace) -> bool:
    """Whether running stores are to be restored. Raises ``UsageError`` where files are as well."""
    stores = [name for name in arguments.source if name in RESTORERS] if arguments.in_place else []
    if arguments.database and "redis" not in stores:
        raise UsageError("--database goes with --in-place --source redis")
    if stores and len(stores) < len(arguments.source):
        other = next(name for name in arguments.source if name not in stores)
        raise UsageError(f"{stores[0]} is not restored in place together with {other}", hint="Restore them in turn.")
    if len(set(stores)) > 1 and (arguments.path or arguments.database):
        raise UsageError("--path and --database go with one --source", hint="Restore one store after the other.")
    return bool(stores)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Plan, show, check, secure what is there, carry out, one store after another."""
    wanted = Wanted(tuple(arguments.path), tuple(dict.fromkeys(arguments.database)))
    sources = tuple(dict.fromkeys(arguments.source))
    with context.reading(arguments.storage) as repository:
        manifest = repository.backup(arguments.id, sources)
        stores = context.application.stores()
        plans = [plan_store(repository, manifest, source, stores, wanted) for source in sources]
        _show(context, plans, arguments)
        for plan in plans:
            plan.check()
        if arguments.dry_run:
            if context.output.json:
                context.output.document({"dry_run": True, "plan": _document(plans)})
            context.output.message("Nothing was changed.")
            return DONE
        safety = secure(arguments, context, manifest.backup_id, sources, repository.storage.name, only=True)
        reports = []
        with context.progress() as listener:
            for plan in plans:
                context.when_cancelled = plan.when_cancelled
                reports.append(plan.execute(listener))
    document = {
        "dry_run": False,
        "in_place": True,
        "safety_backup_id": safety,
        "plan": _document(plans),
        "stores": [report.to_json() for report in reports],
    }
    context.output.report(document, _conclusion(manifest.backup_id, reports, safety))
    return PARTIAL if any(one.severity == "error" for report in reports for one in report.findings) else DONE


def _document(plans: Sequence[StorePlan]) -> dict[str, Any]:
    return {plan.source: plan.to_json() for plan in plans}


def _show(context: Context, plans: Sequence[StorePlan], arguments: argparse.Namespace) -> None:
    """On standard output; on standard error where ``--json`` has that one, before an overwriting restore."""
    for plan in plans:
        told = [(word, printable(what)) for word, what in plan.facts()]
        lines = facts([("restore", plan.backup_id), ("source", plan.source), *told])
        if not context.output.json:
            if arguments.dry_run or not context.output.quiet:
                context.output.lines(lines)
        elif not arguments.dry_run:
            context.output.message("\n".join(lines))
        for finding in plan.findings:
            context.output.error(finding_line(finding))


def _conclusion(backup_id: str, reports: Sequence[StoreReport], safety: str | None) -> list[str]:
    rows = []
    for one in reports:
        amount = f"{one.items:,} items, {quantities.size(one.bytes)} in {quantities.duration(one.seconds)}"
        rows += [("restored", f"{one.source}: {amount}")]
        rows += [("findings", f"{len(one.findings):,}" if one.findings else "")]
    return facts([*rows, ("from", backup_id), ("safety backup", safety or "")])
