"""``wal-push``: what PostgreSQL runs as ``archive_command``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chrono_backups.backup.wal_push import push
from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE

DESCRIPTION = """\
Store a file of a PostgreSQL server's log in the archive: a segment, or a timeline's history. In postgresql.conf:

  archive_command = 'chrono-backups --env-file /etc/chrono-backups.env wal-push %p'

Storing the same file again is no error; another one of the same name is, and the server keeps it. No connection to the
server is needed. `wal-receive` does the same from anywhere, seconds instead of a segment behind.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``wal-push``."""
    parser = add_verb(
        subparsers,
        "wal-push",
        DESCRIPTION,
        [("%p", "in archive_command"), ("/srv/pgdata/pg_wal/00000001000000000000002A", "one segment, by hand")],
    )
    parser.add_argument("path", metavar="%p", type=Path, help="the file, below pg_wal of the data directory")
    parser.add_argument("--system-identifier", metavar="ID", help="the cluster (default: that of the data directory)")
    add_storage_option(parser, "archive to this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Store it; exit code 0 only if it is stored."""
    path = Path(os.path.abspath(arguments.path))
    with context.repository(arguments.storage) as repository:
        system = arguments.system_identifier or _system_beside(path)
        pushed = push(repository, path, system)
    document = {"name": pushed.name, "outcome": pushed.outcome, "system_identifier": pushed.system_identifier}
    context.output.report(document, [f"{pushed.name}: {pushed.outcome}"])
    return DONE


def _system_beside(path: Path) -> str | None:
    """Of the cluster whose ``pg_wal`` the file is in; None where it is in none."""
    from chrono_backups.recovery.wal_fetch import data_directory, system_of  # noqa: PLC0415 - the help does without

    return system_of(data_directory(path))
