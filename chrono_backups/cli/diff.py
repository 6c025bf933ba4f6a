"""``diff``: compare two backups."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

from chrono_backups.cli.arguments import Subparsers, add_backup_argument, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import json_name, printable
from chrono_backups.recovery.browse import Difference, diff

DESCRIPTION = """\
Show what changed from one backup to another: + added, - removed, M changed; before the name is what became of
its size, or `attributes` (mode, owner, time, …) or `type` (a file became a directory, …).
"""
_SIGNS = {"added": "+", "removed": "-"}


def register(subparsers: Subparsers) -> None:
    """The words of ``diff``."""
    parser = add_verb(
        subparsers,
        "diff",
        DESCRIPTION,
        [
            ("full_20260104_020000 latest", "what changed since then"),
            ("full_20260104_020000 latest --json", "the same for scripts"),
        ],
    )
    add_backup_argument(parser, "older", "the backup to start from: its id, or `latest`")
    add_backup_argument(parser, "newer", "the backup to compare with it: its id, or `latest`")
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print the differences as they are found; exit code 0 whether there are any or not."""
    output = context.output
    with context.reading(arguments.storage) as repository:
        older = repository.backup(arguments.older).backup_id
        newer = repository.backup(arguments.newer).backup_id
        differences = diff(repository, older, newer)
        if output.json:
            with output.stream({"older": older, "newer": newer}, "differences") as stream:
                for difference in differences:
                    stream.add(_as_json(difference))
                    if output.reader_gone:
                        break
        else:
            _print(differences, context)
    return DONE


def _print(differences: Iterator[Difference], context: Context) -> None:
    found: Counter[str] = Counter()
    for difference in differences:
        found[_SIGNS.get(difference.change, "M")] += 1
        context.output.write(f"{_line(difference)}\n".encode("utf-8", "backslashreplace"))
        if context.output.reader_gone:
            return
    context.output.message(f"{found['+']:,} added, {found['-']:,} removed, {found['M']:,} changed")


def _line(difference: Difference) -> str:
    return f"{_SIGNS.get(difference.change, 'M')} {_what(difference):>10}  {printable(difference.path)}"


def _what(difference: Difference) -> str:
    old, new = difference.old_size, difference.new_size
    if difference.change in ("attributes", "type"):
        return difference.change
    change = (new or 0) - (old or 0)
    return ("+" if change >= 0 else "") + quantities.size(change)


def _as_json(difference: Difference) -> dict[str, Any]:
    return {
        "source": difference.source,
        **json_name(difference.path),
        "change": difference.change,
        "old_size": difference.old_size,
        "new_size": difference.new_size,
    }
