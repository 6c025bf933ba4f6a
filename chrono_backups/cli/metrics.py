"""``metrics``: how backups do, for people, as JSON and for Prometheus."""

from __future__ import annotations

import argparse
from pathlib import Path

from chrono_backups.cli.arguments import Subparsers, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.errors import UsageError
from chrono_backups.monitoring import exposition
from chrono_backups.monitoring.figures import Figures, StorageFigures, TypeFigures
from chrono_backups.oversight import measure

DESCRIPTION = """\
Success rate, durations and their trend, use and growth of storages with a forecast, recovery time, errors, and how
much would be lost now. Rates know of runs that left no backup where the audit log is kept (BACKUP_AUDIT_ENABLED). Exit
code 4 where no repository could be read: the figures tell of health alone then.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``metrics``."""
    parser = add_verb(
        subparsers,
        "metrics",
        DESCRIPTION,
        [
            ("", "for people"),
            ("--format prometheus", "in the format that Prometheus reads"),
            ("--textfile /var/lib/node_exporter/chrono_backups.prom", "for node_exporter, every few minutes from cron"),
        ],
    )
    parser.add_argument("--format", choices=("json", "prometheus"), help="json (as --json), or prometheus")
    parser.add_argument("--textfile", metavar="PATH", help="write them to this file, whole or not at all")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Measure, and show or write."""
    if arguments.format == "prometheus" and context.output.json:
        raise UsageError("--json prints one JSON document", hint="Leave it out for --format prometheus.")
    figures = measure(context.settings, context.clock, context.output.warning)
    if figures.health.hanging:
        context.leave_at_once = True
    if arguments.format == "json":
        context.output.json = True
    if arguments.textfile is not None:
        exposition.write(Path(arguments.textfile), exposition.exposition(figures))
        context.output.report({"file": arguments.textfile}, [])
    elif arguments.format == "prometheus":
        context.output.lines(exposition.exposition(figures).splitlines())
    else:
        context.output.show(figures.to_json(), map(safe_message, _lines(figures)))
    return DONE if figures.health.best is not None else PARTIAL


def _lines(figures: Figures) -> list[str]:
    rate = figures.success_rate
    results = ", ".join(f"{count} {name}" for name, count in figures.results.items())
    errors = ", ".join(f"{count} × {kind}" for kind, count in figures.errors.items())
    known = "" if figures.recorded else " (of what is stored: BACKUP_AUDIT_ENABLED counts failed runs too)"
    recovery = figures.recovery
    pairs = [
        ("status", figures.health.status),
        ("success rate", f"{rate:.1%} of 30 days{known}" if rate is not None else f"no runs in 30 days{known}"),
        ("runs", results),
        ("errors", errors),
        ("lost now", ", ".join(f"{name} {quantities.duration(age)}" for name, age in figures.rpo.items())),
        (
            "recovery",
            _duration(recovery.last_seconds) or "not drilled",
        ),
        ("proven last", f"{quantities.moment(recovery.last_proven_at)} UTC" if recovery.last_proven_at else ""),
        ("WAL lag", _duration(figures.wal_lag)),
    ]
    types = [_type_row(name, one) for name, one in figures.types.items()]
    storages = [_storage_row(name, one) for name, one in figures.storages.items()]
    heads = ("TYPE", "BACKUPS", "NEWEST (UTC)", "TOOK", "AVERAGE", "TREND", "STORED")
    rooms = ("STORAGE", "USED", "FREE", "A DAY", "FULL")
    right = ("BACKUPS", "TOOK", "AVERAGE", "TREND", "STORED", "USED", "FREE", "A DAY")
    return [
        *facts(pairs),
        *(table(heads, types, right=right) if types else []),
        *(table(rooms, storages, right=right) if storages else []),
    ]


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else quantities.duration(seconds)


def _type_row(name: str, one: TypeFigures) -> tuple[str, ...]:
    return (
        name,
        str(one.count),
        quantities.moment(one.last_at),
        quantities.duration(one.last_seconds),
        quantities.duration(one.average_seconds),
        "" if one.trend is None else f"{one.trend - 1:+.0%}",
        quantities.size(one.last_bytes_stored),
    )


def _storage_row(name: str, one: StorageFigures) -> tuple[str, ...]:
    return (
        name,
        quantities.size(one.used),
        "" if one.free is None else quantities.size(one.free),
        "" if one.growth_per_day is None else quantities.size(one.growth_per_day),
        "" if one.full_at is None else f"{one.full_at:%Y-%m-%d}",
    )
