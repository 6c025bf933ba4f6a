"""``get`` (or ``cat``): one file of a backup."""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress

from chrono_backups.cli.arguments import (
    Subparsers,
    add_backup_argument,
    add_source_option,
    add_storage_option,
    add_verb,
)
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, FAILED
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import json_name, printable
from chrono_backups.errors import TargetNotEmpty, UsageError
from chrono_backups.recovery.browse import read_file

DESCRIPTION = """\
Write the content of one file to standard output, or with --to into a new file. With --json and without --to the
content is the document's `content_base64`. To put many files back, with their attributes, use `restore`.
"""
_Content = Iterable[bytes | bytearray | memoryview]


def register(subparsers: Subparsers) -> None:
    """The words of ``get``."""
    parser = add_verb(
        subparsers,
        "get",
        DESCRIPTION,
        [
            ("latest /srv/app/settings.py", "to standard output"),
            ("full_20260104_020000 /srv/app/db.sqlite --to /tmp/db.sqlite", "into a file that does not exist yet"),
        ],
        aliases=("cat",),
    )
    add_backup_argument(parser)
    parser.add_argument("path", metavar="PATH", help="the file, as `ls` shows it")
    parser.add_argument("--to", metavar="FILE", help="write it into FILE, never over an existing one")
    add_source_option(parser)
    add_storage_option(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Stream it. A file appears under its name only when it is whole."""
    with context.reading(arguments.storage) as repository:
        backup_id = repository.backup(arguments.id, [arguments.source] if arguments.source else []).backup_id
        content = read_file(repository, backup_id, arguments.path, source=arguments.source)
        if arguments.to is None:
            return _to_output(content, backup_id, arguments.path, context)
        size = _to_file(content, arguments.to)
    name = json_name(os.fsencode(arguments.path))
    document = {"backup_id": backup_id, **name, **json_name(os.fsencode(arguments.to), "to"), "bytes": size}
    context.output.report(document, [f"{printable(arguments.to)}  {quantities.size(size)}"])
    return DONE


def _to_output(content: _Content, backup_id: str, path: str, context: Context) -> int:
    """Exit code 1 where the reader went away: what it got is a part."""
    output = context.output
    if output.json:
        with output.text_stream({"backup_id": backup_id, **json_name(os.fsencode(path))}, "content_base64") as write:
            rest = b""
            for part in content:
                rest += bytes(part)
                whole = len(rest) // 3 * 3
                write(base64.b64encode(rest[:whole]))
                rest = rest[whole:]
            write(base64.b64encode(rest))
        return DONE
    for part in content:
        output.write(part)
        if output.reader_gone:
            return FAILED
    output.close()
    return FAILED if output.reader_gone else DONE


def _to_file(content: _Content, path: str) -> int:
    """Write ``path`` by way of a temporary file beside it. Returns its size in bytes."""
    if os.path.lexists(path):
        raise TargetNotEmpty(f"{printable(path)} exists already", hint="Name a file that does not exist.")
    folder = os.path.dirname(path) or "."
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".chrono-backups-", dir=folder)
    except OSError as error:
        raise UsageError(f"{printable(folder)} can't be written to: {error.strerror}") from error
    size = 0
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in content:
                size += len(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        _into_place(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    return size


def _into_place(temporary: str, path: str) -> None:
    """A hard link and not a rename, for it fails where something came to be at ``path`` meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise TargetNotEmpty(f"{printable(path)} came into being meanwhile") from error
    except OSError:  # a file system without hard links
        os.rename(temporary, path)
