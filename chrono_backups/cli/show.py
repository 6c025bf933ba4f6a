"""``show``: all that is known of one backup."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from chrono_backups.cli import backup_record
from chrono_backups.cli.arguments import Subparsers, add_backup_argument, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.repository.records import Manifest, Snapshot

DESCRIPTION = """\
Show a backup: its status, each source's snapshot with its boundary, what was read and stored, and every
finding (a file that vanished or could not be read, a parent that could not be used).
"""
_LONGEST_SHOWN = 200
"""Characters of a fact."""


def register(subparsers: Subparsers) -> None:
    """The words of ``show``."""
    parser = add_verb(
        subparsers,
        "show",
        DESCRIPTION,
        [
            ("latest", "the newest complete backup"),
            ("full_20260104_020000 --json", "all of it, for scripts"),
        ],
    )
    add_backup_argument(parser)
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print it."""
    with context.reading(arguments.storage) as repository:
        manifest = repository.backup(arguments.id)
        snapshots = [repository.snapshot(summary.snapshot_id) for summary in manifest.snapshots]
    document = {
        **backup_record.as_json(manifest),
        "own_findings": [finding.to_json() for finding in manifest.findings],
        "snapshots": list(map(_as_json, snapshots)),
    }
    context.output.show(document, _lines(manifest, snapshots))
    return DONE


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    document = snapshot.to_json()
    del document["listing"], document["wasteful"]
    return document


def _lines(manifest: Manifest, snapshots: list[Snapshot]) -> Iterator[str]:
    several = len(manifest.snapshots) > 1
    pairs = [
        *backup_record.summary(manifest),
        ("started", f"{quantities.moment(manifest.started_at)} UTC"),
        ("skew", backup_record.skew(manifest) if several else ""),
        ("host", manifest.host),
        ("program", manifest.program),
        ("trigger", manifest.trigger),
    ]
    yield from map(safe_message, facts(pairs))
    for finding in manifest.findings:
        yield safe_message(f"  {finding_line(finding)}")
    for snapshot in snapshots:
        yield ""
        yield from _snapshot(snapshot)


def _snapshot(snapshot: Snapshot) -> Iterator[str]:
    statistics = snapshot.statistics
    took = (snapshot.finished_at - snapshot.started_at).total_seconds()
    holds = [
        quantities.count(statistics.files, "file"),
        quantities.count(statistics.directories, "directory", "directories"),
    ]
    if statistics.others:
        holds.append(quantities.count(statistics.others, "other"))
    yield f"source {snapshot.source}"
    pairs = [
        ("snapshot", snapshot.snapshot_id),
        ("taken as", f"{snapshot.effective}: {snapshot.reason}" if snapshot.reason else snapshot.effective),
        ("parent", snapshot.parent or ""),
        ("finished", f"{quantities.moment(snapshot.finished_at)} UTC, after {quantities.duration(took)}"),
        ("boundary", _boundary(snapshot)),
        ("holds", f"{', '.join(holds)}, {quantities.size(statistics.bytes_total)}"),
        ("read", f"{quantities.count(statistics.files_read, 'file')}, {quantities.size(statistics.bytes_read)}"),
        ("added", f"{quantities.count(statistics.chunks_added, 'chunk')}, {quantities.size(statistics.bytes_added)}"),
        ("stored", quantities.size(statistics.bytes_stored)),
        *((name.replace("_", " "), _shown(value)) for name, value in snapshot.facts.items() if name != "boundary"),
        ("findings", f"{len(snapshot.findings):,}" if snapshot.findings else "none"),
    ]
    yield from map(safe_message, facts(pairs, indent="  "))
    for finding in snapshot.findings:
        yield safe_message(f"    {finding_line(finding)}")


def _boundary(snapshot: Snapshot) -> str:
    """Which moment it holds: the store's own mark for it is among the facts."""
    held = snapshot.boundary
    if held is None:
        return ""
    moment = f"{quantities.moment(held.first)} UTC"
    if held.seconds:
        moment += f", and {quantities.duration(held.seconds)} on"
    return moment if held.postgres is None else f"{moment}; PostgreSQL's log was at {held.postgres.lsn}"


def _shown(value: Any) -> str:
    text = _fact(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… (all of it: --json)"


def _fact(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(one)}" for name, one in value.items())
    return str(value)
