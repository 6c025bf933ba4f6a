"""``validate``: check settings, sources, storages, key and permissions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from chrono_backups.cli.arguments import Subparsers, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, UNREACHABLE, USAGE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.events import Finding
from chrono_backups.monitoring.record_files import probe_records
from chrono_backups.oversight import probe_channels

DESCRIPTION = """\
Check everything a backup needs before it is needed: all settings at once, that sources can be read and storages
reached, that the key opens the repository, that nobody else can read it. Nothing is changed. Exit code 0 where
all is well or there are only warnings, 2 where settings are wrong, 6 where something can't be reached.
"""
_UNREACHABLE_CODES = {"storage-unavailable", "storage-denied", "source-unavailable"}
"""Codes of findings that say so; every other error is one of the settings."""


def register(subparsers: Subparsers) -> None:
    """The words of ``validate``."""
    add_verb(
        subparsers,
        "validate",
        DESCRIPTION,
        [
            ("", "before the first backup, and after every change of settings"),
            ("--json", "findings with their codes, and the settings in force (no secret)"),
        ],
    )


def run(_arguments: argparse.Namespace, context: Context) -> int:
    """Collect every finding, worst first."""
    settings = context.settings
    found = [
        *context.application.probe(),
        *probe_channels(settings, context.clock),
        *probe_records(settings.audit, settings.log),
    ]
    found = [one.masked(context.redact) for one in found]
    findings = sorted(found, key=lambda one: ("error", "warning", "info").index(one.severity))
    document: dict[str, Any] = {
        "ok": all(finding.severity != "error" for finding in findings),
        "findings": [finding.to_json() for finding in findings],
        "settings": context.settings.describe(),
    }
    lines = [*(safe_message(finding_line(finding)) for finding in findings), _conclusion(context, findings)]
    if any(finding.severity != "info" for finding in findings):
        context.output.show(document, lines)
    else:
        context.output.report(document, lines)
    return _exit_code(findings)


def _conclusion(context: Context, findings: Sequence[Finding]) -> str:
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    settings = context.settings
    what = f"sources {', '.join(settings.sources) or 'none'}; storages {', '.join(settings.storages) or 'none'}"
    if not errors and not warnings:
        return f"all is well: {what}"
    return f"{quantities.count(errors, 'error')}, {quantities.count(warnings, 'warning')}: {what}"


def _exit_code(findings: Sequence[Finding]) -> int:
    errors = [finding.code for finding in findings if finding.severity == "error"]
    if not errors:
        return DONE
    return UNREACHABLE if set(errors) <= _UNREACHABLE_CODES else USAGE
