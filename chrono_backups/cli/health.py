"""``health``: is everything there that a restore tomorrow will need."""

from __future__ import annotations

import argparse

from chrono_backups.cli.arguments import Subparsers, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, FAILED, PARTIAL
from chrono_backups.cli.notifying import SECONDS
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.monitoring.health import HealthReport
from chrono_backups.oversight import check_health, tell_health

DESCRIPTION = """\
Check, within BACKUP_HEALTH_CHECK_TIMEOUT seconds whatever hangs, that storages and sources answer, that there is room,
that every schedule's backup, its replicas, WAL and restore drills are there, that retention goes on, that sizes, rights
and clocks are right. Nothing is changed. Exit code 0: healthy; 4: warnings only; 1: something is critical.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``health``."""
    parser = add_verb(
        subparsers,
        "health",
        DESCRIPTION,
        [
            ("", "what is wrong, and what to do"),
            ("--json", "for a monitoring system"),
            ("--quiet --tolerate-warnings", "as a container's probe"),
            ("--quiet --notify", "from cron, where no Dagster looks: people hear what is new, and what is over"),
        ],
    )
    parser.add_argument(
        "--notify", action="store_true", help="tell what is found by the channels of notifications, once, and its end"
    )
    parser.add_argument("--tolerate-warnings", action="store_true", help="exit code 0 also where there are warnings")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Look, and tell."""
    report = check_health(context.settings, context.clock, began=context.began)
    if arguments.notify:
        _notify(context, report)
    # A thread that hangs may have begun others, for which the interpreter would wait at its end.
    context.leave_at_once = bool(report.hanging)
    well = report.status == "healthy"
    (context.output.report if well else context.output.show)(report.to_json(), _lines(report))
    if well or (report.status == "warning" and arguments.tolerate_warnings):
        return DONE
    return PARTIAL if report.status == "warning" else FAILED


def _notify(context: Context, report: HealthReport) -> None:
    """Have people hear of it. What goes wrong with that is said, and changes no exit code."""
    try:
        tell_health(context.alerts, report)
        told = context.alerts.flush(SECONDS)
    except ChronoBackupsError as error:
        context.output.warning(f"nobody could be notified: {error}")
    else:
        for name, fault in sorted({**told.faults, **told.complaints}.items()):
            context.output.warning(f"notifying by {name}: {fault}")


def _lines(report: HealthReport) -> list[str]:
    metrics = report.to_json()["metrics"]
    return [
        *facts(
            [
                ("status", report.status),
                *report.checks.items(),
                *((name, "" if value is None else str(value)) for name, value in metrics.items()),
            ]
        ),
        *(safe_message(finding_line(finding)) for finding in report.findings if finding.severity != "info"),
    ]
