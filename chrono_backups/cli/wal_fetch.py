"""``wal-fetch``: what PostgreSQL runs as ``restore_command``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, FAILED
from chrono_backups.cli.terminal import quantities
from chrono_backups.recovery.wal_ahead import LOCK_VARIABLE, ReadAhead, note_asked, start_helper
from chrono_backups.recovery.wal_fetch import archive_for, data_directory, find, reads_ahead, write
from chrono_backups.recovery.wal_spool import spool_for
from chrono_backups.repository.wal_archive import StoredWal

DESCRIPTION = """\
Give a server that recovers the file of its log that it asks for. In postgresql.conf:

  restore_command = 'chrono-backups --env-file /etc/chrono-backups.env wal-fetch %f %p'

Segments behind it are fetched ahead by a process that ends by itself. The exit code is 1 where no such file is
archived, which the server takes for the end of the log, and 126 for all other trouble, at which it stops.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``wal-fetch``."""
    parser = add_verb(
        subparsers,
        "wal-fetch",
        DESCRIPTION,
        [
            ("%f %p", "in restore_command"),
            ("00000001000000000000002A /tmp/segment", "one segment, by hand"),
        ],
    )
    parser.add_argument("name", metavar="%f", help="the file's name: a segment, or a timeline's history")
    parser.add_argument("target", metavar="%p", type=Path, help="where to put it")
    parser.add_argument("--system-identifier", metavar="ID", help="the cluster (default: that of the data directory)")
    parser.add_argument(
        "--not-archived",
        type=int,
        default=FAILED,
        metavar="CODE",
        help="the exit code where no such file is archived (default: 1)",
    )
    parser.add_argument("--ahead", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Put the file in place."""
    name, target = arguments.name, Path(os.path.abspath(arguments.target))
    with context.reading(arguments.storage) as repository:
        archive = archive_for(repository, arguments.system_identifier, data_directory(target))
        if arguments.ahead is not None:
            spool = spool_for(str(target))
            if spool is not None and LOCK_VARIABLE in os.environ:
                ReadAhead(archive, Path(spool), arguments.ahead, context.clock).run()
            return DONE
        found = find(archive, name, target)
        if found is None:
            context.output.message(f"{name} is not archived")
            return int(arguments.not_archived)
        if isinstance(found, StoredWal) and reads_ahead(target):
            if found.whole:
                size = len(found.content)
                options = ["--storage", arguments.storage] if arguments.storage else []
                system = ["--system-identifier", archive.system_identifier]
                before = ["--env-file", context.env_file] if context.env_file else []
                words = [*before, "wal-fetch", *options, *system, "--ahead", str(size), name, str(target)]
                start_helper(words, name, size, target)
            else:
                note_asked(name, target)
        write(found, target)
    size = len(found) if isinstance(found, bytes) else found.end
    context.output.report({"name": name, "bytes": size}, [f"{name}: {quantities.size(size)}"])
    return DONE
