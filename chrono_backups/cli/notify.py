"""``notify``: try the channels out, see what is wrong and what waits, send it."""

from __future__ import annotations

import argparse
from typing import Any

from chrono_backups.cli.arguments import Parser, Subparsers, add_global_options, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL, exit_code
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.clock import to_text
from chrono_backups.errors import ChronoBackupsError, UsageError
from chrono_backups.notifications.alerts import Alerts
from chrono_backups.notifications.incidents import Incident
from chrono_backups.notifications.outbox import ChannelState
from chrono_backups.notifications.rendering import safe_in_words
from chrono_backups.notifications.routes import CHANNELS

DESCRIPTION = """\
`test` sends a test message by each enabled channel, or by one, and says what is wrong with those that do not take it.
`list` shows what is wrong now, how the channels do and what waits for them. `flush` sends what waits, at once.
"""
_FLUSH_SECONDS = 60.0


def register(subparsers: Subparsers) -> None:
    """The words of ``notify`` and of what follows it."""
    parser = add_verb(
        subparsers,
        "notify",
        DESCRIPTION,
        [
            ("test", "by all enabled channels"),
            ("test slack", "by that one"),
            ("list", "what is wrong, and what waits"),
            ("flush", "after a channel was mended"),
        ],
    )
    actions = parser.add_subparsers(dest="action", metavar="test|list|flush", required=True, parser_class=Parser)
    for name, meaning in (
        ("test", "send a test message"),
        ("list", "incidents, channels, messages that wait"),
        ("flush", "send what waits, without waiting any longer"),
    ):
        action = actions.add_parser(name, help=meaning, description=meaning)
        if name == "test":
            kinds = ", ".join(CHANNELS)
            action.add_argument("channel", metavar="CHANNEL", nargs="?", help=f"one of {kinds} (default: all enabled)")
        add_global_options(action)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Whichever was asked for."""
    alerts = context.alerts
    for finding in context.settings.findings():
        if finding.code == "notify-settings":
            context.output.warning(f"{finding.subject}: {finding.message}. {finding.hint}")
    if not alerts.enabled:
        hint = "Enable one: BACKUP_EMAIL_ENABLED, BACKUP_SLACK_ENABLED, …; docs/notifications.md tells how."
        raise UsageError("no channel is enabled: nobody is told anything", hint=hint)
    if arguments.action == "test":
        return _test(alerts, arguments.channel, context)
    if arguments.action == "flush":
        return _flush(alerts, context)
    return _list(alerts, context)


def _test(alerts: Alerts, asked: str | None, context: Context) -> int:
    names = [name for name in alerts.channels if asked in {None, name, name.partition("-")[0]}]
    if not names:
        raise UsageError(f"{asked} is not enabled", hint=f"Enabled: {', '.join(alerts.channels)}.")
    rows: list[dict[str, Any]] = []
    code = DONE
    for name in names:
        try:
            complaint = alerts.test(name)
            rows.append({"channel": name, "ok": not complaint, "message": complaint or "sent", "hint": ""})
        except ChronoBackupsError as error:
            rows.append({"channel": name, "ok": False, "message": error.message, "hint": error.hint})
            code = code or exit_code(error)
    rows = [{key: context.redact(one) if isinstance(one, str) else one for key, one in row.items()} for row in rows]
    lines = []
    for row in rows:
        lines.append(safe_message(f"{row['channel']}: {'' if row['ok'] else 'FAILED: '}{row['message']}"))
        lines += [safe_message(f"  hint: {row['hint']}")] if row["hint"] else []
    context.output.show({"channels": rows}, lines)
    return code or (DONE if all(row["ok"] for row in rows) else PARTIAL)


def _flush(alerts: Alerts, context: Context) -> int:
    alerts.retry_now()
    report = alerts.flush(_FLUSH_SECONDS)
    states = alerts.overview().channels
    lines = [f"{name}: {quantities.count(number, 'message')} sent" for name, number in sorted(report.sent.items())]
    lines += [safe_message(f"{name}: FAILED: {fault}") for name, fault in sorted(report.faults.items())]
    waiting = sum(one.waiting for one in states)
    lines.append(f"{quantities.count(waiting, 'message')} left" if waiting else "nothing is left to send")
    context.output.show({"sent": report.sent, "faults": report.faults, "waiting": waiting}, lines)
    return PARTIAL if report.faults else DONE


def _list(alerts: Alerts, context: Context) -> int:
    now, seen = context.clock.now(), alerts.overview()
    document = {
        "incidents": [_incident(one) for one in seen.incidents],
        "channels": [dict(vars(one)) for one in seen.channels],
        "standing": None if seen.standing is None else seen.standing.to_json(),
    }
    bad = [
        (
            one.last.finding.severity,
            one.last.event,
            one.last.finding.subject,
            f"{quantities.moment(one.opened_at)}",
            f"{one.count:,}",
            safe_message(one.last.finding.message),
        )
        for one in seen.incidents
    ]
    lines = table(("SEVERITY", "EVENT", "SUBJECT", "SINCE (UTC)", "SEEN", "WHAT"), bad, right=("SEEN",)) if bad else []
    lines = lines or ["nothing is wrong, as far as is known"]
    rows = [(one.name, f"{one.waiting:,}", _state(one)) for one in seen.channels]
    lines += ["", *table(("CHANNEL", "WAITING", "STATE"), rows, right=("WAITING",))]
    if seen.standing is not None:
        lines += ["", *facts([(label.lower(), value) for label, value in safe_in_words(seen.standing, now)])]
    context.output.show(document, lines)
    return DONE


def _state(channel: ChannelState) -> str:
    if not channel.fault:
        return "works, as far as is known"
    return safe_message(f"{channel.fault}; tried again at {channel.not_before[:16].replace('T', ' ')} UTC")


def _incident(incident: Incident) -> dict[str, Any]:
    seen = incident.last
    return {
        "event": seen.event,
        **seen.finding.to_json(),
        "operation": seen.operation,
        "backup_id": seen.backup_id,
        "since": to_text(incident.opened_at),
        "seen_at": to_text(incident.seen_at),
        "seen": incident.count,
        "told": incident.told,
    }
