"""``ls``: the files of a backup."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from chrono_backups.cli.arguments import (
    Subparsers,
    add_backup_argument,
    add_source_option,
    add_storage_option,
    add_verb,
)
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import json_name, printable
from chrono_backups.recovery.browse import ListedEntry, entries

DESCRIPTION = """\
List what a backup holds below PATH, as `ls -l` does: mode, owner, group, bytes, time (UTC), name. Names are
escaped as by `ls -b`: \\n, \\t, \\\\, and \\377 for a byte that is not UTF-8 or not printable.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``ls``."""
    parser = add_verb(
        subparsers,
        "ls",
        DESCRIPTION,
        [
            ("latest", "the top of the newest complete backup"),
            ("latest /srv/app/media", "one directory"),
            ("latest /srv --recursive --json", "all below it, with exact times and raw names"),
        ],
    )
    add_backup_argument(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", default="/", help="where to look (default: /)")
    parser.add_argument("-R", "--recursive", action="store_true", help="all that lies below PATH")
    add_source_option(parser)
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print the entries as they are read."""
    output = context.output
    with context.reading(arguments.storage) as repository:
        backup_id = repository.backup(arguments.id, [arguments.source] if arguments.source else []).backup_id
        listed = entries(repository, backup_id, arguments.path, source=arguments.source, recursive=arguments.recursive)
        if output.json:
            with output.stream({"backup_id": backup_id}, "entries") as stream:
                for entry in listed:
                    stream.add(_as_json(entry))
                    if output.reader_gone:
                        break
        else:
            _print(listed, context)
    return DONE


def _print(listed: Iterator[ListedEntry], context: Context) -> None:
    source = None
    for entry in listed:
        if entry.source != source:
            source = entry.source
            context.output.write(f"{source}:\n".encode())
        context.output.write(f"{_line(entry)}\n".encode("utf-8", "backslashreplace"))
        if context.output.reader_gone:
            return


def _line(entry: ListedEntry) -> str:
    when = quantities.moment(datetime.fromtimestamp(entry.mtime_ns // 10**9, UTC))
    target = f" -> {printable(entry.link_target)}" if entry.link_target is not None else ""
    attributes = f"{stat.filemode(entry.mode)} {entry.uid:>5} {entry.gid:>5} {entry.size:>12} {when}"
    return f"{attributes} {printable(entry.path)}{target}"


def _as_json(entry: ListedEntry) -> dict[str, Any]:
    link = {} if entry.link_target is None else json_name(entry.link_target, "link_target")
    hard = {} if entry.hard_link is None else json_name(entry.hard_link, "hard_link")
    return {
        "source": entry.source,
        **json_name(entry.path),
        "kind": entry.kind,
        "size": entry.size,
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        **link,
        **hard,
    }
