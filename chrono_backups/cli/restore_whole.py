"""The part of ``restore --in-place`` that is about more than trees: running stores, and a whole recovery point."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from chrono_backups.cli import restore_cluster
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE, PARTIAL
from chrono_backups.cli.restore_safety import secure
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import printable
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.clock import to_text
from chrono_backups.errors import ChronoBackupsError, UsageError
from chrono_backups.recovery.point import PointPart, RecoveryPoint
from chrono_backups.recovery.postgres.restore import ClusterPlan
from chrono_backups.recovery.whole.parts import DirectoryPart
from chrono_backups.recovery.whole.plan import WholeOptions, WholePlan, plan_whole

_TREES = frozenset({"files", "configuration"})


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


def is_meant(arguments: argparse.Namespace) -> bool:
    """Whether more than trees is restored in place. Raises ``UsageError`` for words that don't go together."""
    named = set(arguments.source)
    stores = named - _TREES
    if arguments.database and not (arguments.in_place and "redis" in named):
        raise UsageError("--database goes with --in-place --source redis")
    if arguments.in_place and stores and len(named) > 1 and (arguments.path or arguments.database):
        raise UsageError("--path and --database go with one --source", hint="Restore one store after the other.")
    if arguments.in_place and arguments.to and named and "postgres" not in named:
        raise UsageError("--to beside --in-place is for the source postgres", hint="Add --source postgres.")
    return bool(arguments.in_place and (stores or arguments.to or arguments.target_time))


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Plan, show, check, secure what is overwritten, carry out, one source after another."""
    options = WholeOptions(
        arguments.id,
        restore_cluster.target_of(arguments),
        sources=tuple(dict.fromkeys(arguments.source)),
        directory=None if arguments.to is None else Path(os.path.abspath(arguments.to)),
        patterns=tuple(arguments.path),
        databases=tuple(dict.fromkeys(arguments.database)),
    )
    with context.reading(arguments.storage) as repository:
        with context.progress() as listener:
            plan = plan_whole(
                repository,
                options,
                context.application.stores(),
                lambda target: restore_cluster.cluster_options(arguments, context, target),
                listener=listener,
            )
        context.about(plan.point.backups[0])
        _show(context, plan, arguments)
        with context.progress() as listener:
            plan.restore.check(listener)
        if arguments.dry_run:
            if context.output.json:
                context.output.document({"dry_run": True, **_plan_document(plan)})
            context.output.message("Nothing was changed.")
            return DONE
        safety = None
        if plan.restore.overwritten:
            named = ", ".join(plan.point.backups)
            safety = secure(arguments, context, named, plan.restore.overwritten, repository.storage.name, only=True)
        _carry_out(context, plan)
    return _conclude(context, plan, safety)


def _carry_out(context: Context, plan: WholePlan) -> None:
    """Whatever ends it early, it is said what is old and what is new."""

    def changed() -> None:
        context.when_cancelled = "; ".join(f"{source}: {words}" for source, words in plan.restore.told())

    try:
        with context.progress() as listener:
            plan.restore.execute(listener, changed=changed)
    except ChronoBackupsError:
        for source, words in plan.restore.told():
            context.output.warning(f"{source}: {words}")
        raise


def _plan_document(plan: WholePlan) -> dict[str, Any]:
    return {"point": plan.point.to_json(), "plan": {part.source: part.to_json() for part in plan.restore.parts}}


def point_lines(point: RecoveryPoint) -> list[str]:
    """The recovery point: from where each source comes, and how far each is from the moment that is meant."""
    rows = [
        (
            part.source,
            part.manifest.backup_id,
            f"{quantities.moment(part.holds.last)}" if part.holds is not None else "not known before",
            _distance(point, part),
        )
        for part in point.parts
    ]
    skew = point.skew_seconds
    return [
        *table(("SOURCE", "BACKUP", "AS OF (UTC)", "FROM THE MOMENT MEANT"), rows),
        *facts(
            [
                ("moment", f"{to_text(point.moment)}" if point.moment is not None else ""),
                ("together", point.note),
                ("apart", f"{quantities.duration(skew)} at most" if skew is not None and len(point.parts) > 1 else ""),
            ]
        ),
    ]


def _distance(point: RecoveryPoint, part: PointPart) -> str:
    found = point.distance(part)
    if found is None:
        return "not known before"
    before, behind = (quantities.duration(one) if one else "" for one in found)
    said = [f"up to {before} before" if before else "", f"up to {behind} behind" if behind else ""]
    return ", ".join(one for one in said if one) or "none"


def _show(context: Context, plan: WholePlan, arguments: argparse.Namespace) -> None:
    """On standard output; on standard error where ``--json`` has that one, before an overwriting restore."""
    lines = [*facts([("restore", ", ".join(plan.point.backups))]), *point_lines(plan.point)]
    for number, part in enumerate(plan.restore.parts, 1):
        told = [(word, printable(what)) for word, what in part.facts()]
        lines += ["", f"{number}. {part.source}", *facts(told, indent="  ")]
    if not context.output.json:
        if arguments.dry_run or not context.output.quiet:
            context.output.lines(lines)
    elif not arguments.dry_run:
        context.output.message("\n".join(lines))
    for part in plan.restore.parts:
        for finding in part.findings:
            context.output.error(finding_line(finding))


def _conclude(context: Context, plan: WholePlan, safety: str | None) -> int:
    restore = plan.restore
    document = {
        "dry_run": False,
        "in_place": True,
        "safety_backup_id": safety,
        **_plan_document(plan),
        "parts": restore.to_json(),
        "damaged": restore.damaged,
        "findings": [finding.to_json() for finding in restore.findings],
    }
    context.output.report(document, _lines(plan, safety))
    for part in restore.parts:
        if isinstance(part, DirectoryPart) and part.started is None and part.cluster is not None:
            advise(context, part.cluster)
    if restore.damaged:
        context.output.warning(f"{restore.damaged:,} files are damaged in the repository and were left out")
        return DAMAGED
    return PARTIAL if any(finding.severity == "error" for finding in restore.findings) else DONE


def advise(context: Context, cluster: ClusterPlan) -> None:
    """Say what the operator does next with a data directory that was not started."""
    context.output.message(
        f"Start PostgreSQL {cluster.major} on {printable(str(cluster.data))}: it recovers to "
        f"{cluster.options.target}, by the restore_command in postgresql.auto.conf, which its user must be "
        "able to run with these settings."
    )


def _lines(plan: WholePlan, safety: str | None) -> list[str]:
    rows = []
    for state in plan.restore.states:
        done = state.report
        if done is not None:
            amount = f"{done.items:,} items, {quantities.size(done.bytes)} in {quantities.duration(done.seconds)}"
            rows.append(("restored", f"{done.source}: {amount}, {state.words}"))
    findings = len(plan.restore.findings)
    lines = facts([*rows, ("findings", f"{findings:,}" if findings else ""), ("safety backup", safety or "")])
    for part in plan.restore.parts:
        if isinstance(part, DirectoryPart) and part.started is not None:
            lines += restore_cluster.reached_lines(*part.started)
    return lines
