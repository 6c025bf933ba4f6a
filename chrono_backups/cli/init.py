"""``init``: create the repository in a storage."""

from __future__ import annotations

import argparse

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal.tables import facts

DESCRIPTION = """\
Create an empty repository in the primary storage. It is encrypted under the configured key; without a key
it is refused, unless BACKUP_ENCRYPTION_ENABLED=false says that it is to be plain. That can't be changed later.
Other storages need no init: the first backup (or `replicate`) makes their replicas.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``init``."""
    parser = add_verb(
        subparsers,
        "init",
        DESCRIPTION,
        [
            ("", "in the primary storage"),
            ("--storage local", "a repository of its own in that storage"),
        ],
    )
    add_storage_option(parser, "create it in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Create it, and say where it is and which key opens it."""
    with context.application.create_repository(arguments.storage) as repository:
        keys = [slot.key_id for slot in repository.key_slots()]
        storage = repository.storage
        document = {
            "repository": repository.id,
            "storage": storage.name,
            "location": storage.location,
            "encrypted": repository.encrypted,
            "key_ids": keys,
        }
        lines = facts(
            [
                ("repository", repository.id),
                ("storage", f"{storage.name}: {storage.location}"),
                ("encrypted", f"yes, opened by key {', '.join(keys)}" if repository.encrypted else "no"),
            ]
        )
        context.output.report(document, lines)
        if repository.encrypted:
            context.output.message("Keep a copy of the key elsewhere: without it no backup can be read.")
    return DONE
