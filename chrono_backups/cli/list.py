"""``list``: the backups, newest first."""

from __future__ import annotations

import argparse

from chrono_backups.cli import backup_record
from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import table
from chrono_backups.repository.records import Manifest

DESCRIPTION = """\
List the backups of a repository, newest first. READ is what was read from the sources for it, STORED what it
added to the repository. Forgotten backups are left out.
"""
_HEADER = ("ID", "TYPE", "STATUS", "FINISHED (UTC)", "DURATION", "SOURCES", "READ", "STORED")


def register(subparsers: Subparsers) -> None:
    """The words of ``list``."""
    parser = add_verb(
        subparsers,
        "list",
        DESCRIPTION,
        [
            ("", "as a table"),
            ("--storage sftp", "what that replica holds"),
            ("--json", "an array, for scripts"),
        ],
    )
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print those that can be read; exit code 3 where there are others."""
    with context.reading(arguments.storage) as repository:
        backups, damaged = repository.readable_backups()
    lines = table(_HEADER, map(_row, backups), right=("DURATION", "READ", "STORED")) if backups else []
    context.output.show([backup_record.as_json(manifest) for manifest in backups], lines)
    for name, error in damaged.items():
        context.output.warning(f"{name} is left out: {error}")
    if damaged:
        return DAMAGED
    if not backups:
        context.output.message("There is no backup yet: `chrono-backups backup` takes one.")
    return DONE


def _row(manifest: Manifest) -> tuple[str, ...]:
    statistics = manifest.statistics
    return (
        manifest.backup_id,
        manifest.type,
        manifest.status,
        quantities.moment(manifest.finished_at),
        quantities.duration(backup_record.seconds(manifest)),
        ",".join(snapshot.source for snapshot in manifest.snapshots),
        quantities.size(statistics.bytes_read),
        quantities.size(statistics.bytes_stored),
    )
