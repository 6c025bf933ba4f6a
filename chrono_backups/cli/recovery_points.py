"""``recovery-points``: what a PostgreSQL cluster can be restored to."""

from __future__ import annotations

import argparse

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.identifiers import lsn_text
from chrono_backups.repository.recovery_points import RecoverableRange, recovery_points

DESCRIPTION = """\
List what a PostgreSQL cluster can be restored to: from the end of a base backup on, as far as the archive holds the
write-ahead log behind it without a hole; and the gaps. Any time or position inside a range is a recovery target.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``recovery-points``."""
    parser = add_verb(
        subparsers,
        "recovery-points",
        DESCRIPTION,
        [("", "the ranges, by timeline"), ("--storage aws_s3", "as this storage has them")],
    )
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """List them; there being none is no error."""
    with context.reading(arguments.storage) as repository, context.progress() as listener:
        found = recovery_points(repository, listener)
    several = len({one.system_identifier for one in found.ranges}) > 1
    rows: list[tuple[str, str]] = []
    for one in found.ranges:
        cluster = f"cluster {one.system_identifier}, " if several else ""
        rows.append(("range", f"{_times(one)}  ({cluster}timeline {one.timeline}, {_positions(one)}; {_bases(one)})"))
    rows += [("missing", str(gap)) for gap in found.gaps]
    lines = facts(rows) or ["no base backup of PostgreSQL is stored"]
    context.output.report(found.to_json(), lines)
    return DONE


def _times(one: RecoverableRange) -> str:
    end = quantities.moment(one.end_time) if one.end_time else "not known"
    return f"{quantities.moment(one.start_time)} to {end}"


def _positions(one: RecoverableRange) -> str:
    return f"LSN {lsn_text(one.start)} to {lsn_text(one.end)}"


def _bases(one: RecoverableRange) -> str:
    return quantities.count(len(one.backups), "base backup")
