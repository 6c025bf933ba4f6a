"""``wal-fetch``: what PostgreSQL runs as ``restore_command``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, FAILED
from chrono_backups.cli.recording import Recording
from chrono_backups.cli.terminal import quantities
from chrono_backups.recovery.wal_ahead import Answer, ReadAhead, Spool
from chrono_backups.recovery.wal_fetch import archive_for, data_directory, find, write
from chrono_backups.recovery.wal_question import AHEAD, LOCK_VARIABLE
from chrono_backups.recovery.wal_spool import spool_for

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
    parser.add_argument(AHEAD, action="store_true", help=argparse.SUPPRESS)
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Put the file in place."""
    name, target = arguments.name, Path(os.path.abspath(arguments.target))
    if arguments.ahead:
        return _ahead(arguments, context, target)
    found = _found(arguments, context, name, target).content
    if found is None:
        context.output.message(f"{name} is not archived")
        return int(arguments.not_archived)
    write(found, target)
    size = len(found) if isinstance(found, bytes) else found.end
    context.output.report({"name": name, "bytes": size}, [f"{name}: {quantities.size(size)}"])
    return DONE


def _found(arguments: argparse.Namespace, context: Context, name: str, target: Path) -> Answer:
    with context.reading(arguments.storage) as repository:
        archive = archive_for(repository, arguments.system_identifier, data_directory(target))
        return Answer(find(archive, name, target), archive.system_identifier)


def _ahead(arguments: argparse.Namespace, context: Context, target: Path) -> int:
    """Be the helper of those who ask."""
    path = spool_for(str(target))
    if path is None or LOCK_VARIABLE not in os.environ:
        return DONE
    spool = Spool(Path(path), int(os.environ[LOCK_VARIABLE]))

    def answer(name: str, target: Path) -> Answer | None:
        """As a run of its own, recorded as such. One that has more to tell than its exit code is left to another."""
        own = Context(context.output, clock=context.clock)
        own.env_file = context.env_file
        recording = Recording(own)
        asked = {**vars(arguments), "name": name, "target": target, "ahead": False}
        recording.begin(str(arguments.verb), argparse.Namespace(**asked))
        found = _found(arguments, own, name, target)
        if own.has_told:
            return None
        recording.end(DONE if found.content is not None else int(arguments.not_archived))
        return found

    with context.reading(arguments.storage) as repository:
        archive = archive_for(repository, arguments.system_identifier, data_directory(target))
        ReadAhead(archive, spool, answer, context.clock).run()
    return DONE
