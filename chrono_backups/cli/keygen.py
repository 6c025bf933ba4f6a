"""``keygen``: make an encryption key."""

from __future__ import annotations

import argparse

from chrono_backups.cli import key_files
from chrono_backups.cli.arguments import Subparsers, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE

DESCRIPTION = """\
Make a random key for BACKUP_ENCRYPTION_KEY: 32 bytes in URL-safe base64. Keep a copy apart from the backups:
nothing that is stored can be read without it. To change the key of a repository, use `key add`.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``keygen``."""
    parser = add_verb(
        subparsers,
        "keygen",
        DESCRIPTION,
        [
            ("", "print it"),
            ("--to /run/secrets/backup_key", "into a file of mode 0600, for BACKUP_ENCRYPTION_KEY_FILE"),
        ],
    )
    parser.add_argument("--to", metavar="FILE", help="write it into FILE (mode 0600), never over an existing one")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print it, or write the file and say so."""
    key = key_files.new_key(context.clock)
    if arguments.to is None:
        context.output.show({"key": key}, [key])
        return DONE
    key_files.write(arguments.to, key)
    context.output.report({"file": arguments.to}, [])
    context.output.message(f"The key is in {arguments.to}. Keep a copy elsewhere.")
    return DONE
