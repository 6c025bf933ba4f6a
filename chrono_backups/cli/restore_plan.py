"""A restore's plan and its end, as lines."""

from __future__ import annotations

from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import printable
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.recovery.plan import RestorePlan
from chrono_backups.recovery.restore import RestoreReport

_CONFLICTS_SHOWN = 10


def lines(plan: RestorePlan) -> list[str]:
    """The plan: what goes where, how much, and what is in the way."""
    where = "the original places, over what is there" if plan.in_place else printable(str(plan.target))
    head = facts([("restore", plan.backup_id), ("to", where), ("paths", printable(", ".join(plan.patterns)))])
    rows = [
        (
            one.source,
            f"{one.files:,}",
            f"{one.directories:,}",
            f"{one.others:,}",
            quantities.size(one.bytes),
            printable(str(one.destination)),
        )
        for one in plan.sources
    ]
    what = table(
        ("SOURCE", "FILES", "DIRECTORIES", "OTHERS", "SIZE", "TO"),
        rows,
        right=("FILES", "DIRECTORIES", "OTHERS", "SIZE"),
    )
    space = f"{quantities.size(plan.bytes_needed)} needed, {quantities.size(plan.bytes_free)} free"
    return [*head, *what, *facts([("space", space)]), *_in_the_way(plan)]


def _in_the_way(plan: RestorePlan) -> list[str]:
    if not plan.conflicts:
        return []
    shown = [f"  {printable(conflict)}" for conflict in plan.conflicts[:_CONFLICTS_SHOWN]]
    more = len(plan.conflicts) - len(shown)
    return ["in the way:", *shown, *([f"  and {more:,} more"] if more else [])]


def conclusion(plan: RestorePlan, report: RestoreReport, safety: str | None) -> list[str]:
    """What was done."""
    amount = f"{quantities.count(report.files, 'file')}, {quantities.size(report.bytes)}"
    speed = quantities.rate(report.bytes, report.seconds)
    return facts(
        [
            ("restored", f"{amount} in {quantities.duration(report.seconds)} ({speed})"),
            ("from", plan.backup_id),
            ("safety backup", safety or ""),
            ("findings", f"{len(report.findings):,}" if report.findings else ""),
        ]
    )
