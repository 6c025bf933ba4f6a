"""``init``: create the repository in a storage."""

from __future__ import annotations

import argparse

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.identifiers import StorageName

DESCRIPTION = """\
Create an empty repository in the primary storage. It is encrypted under the configured key; without a key
it is refused, unless BACKUP_ENCRYPTION_ENABLED=false says that it is to be plain. That can't be changed later.

The other enabled storages get their places made, which the first backup fills with replicas. For a storage that
is enabled later, name it: `init --storage NAME`. A place is made by this verb only, so that a disk that is
not mounted is an error and not an empty repository.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``init``."""
    parser = add_verb(
        subparsers,
        "init",
        DESCRIPTION,
        [
            ("", "once, when the settings are right"),
            ("--storage local_mirror", "a place for replicas, in a storage that was enabled later"),
        ],
    )
    add_storage_option(parser, "create it, or a place for replicas, in this storage only")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Create them, and say where they are and which key opens them."""
    primary = context.settings.primary_storage
    if arguments.storage not in (None, primary):
        location = _make_place(context, arguments.storage)
        document = {"storage": arguments.storage, "location": location}
        context.output.report(document, facts([("replicas", f"{arguments.storage}: {location}")]))
        context.output.message("`chrono-backups replicate` fills it; every backup does so too.")
        return DONE
    others = [name for name in context.settings.storages if name != primary and arguments.storage is None]
    with context.application.create_repository(primary) as repository:
        places = {name: _make_place(context, name) for name in others}
        keys = [slot.key_id for slot in repository.key_slots()]
        storage = repository.storage
        document = {
            "repository": repository.id,
            "storage": storage.name,
            "location": storage.location,
            "encrypted": repository.encrypted,
            "key_ids": keys,
            "replicas": places,
        }
        pairs = [
            ("repository", repository.id),
            ("storage", f"{storage.name}: {storage.location}"),
            *(("replicas", f"{name}: {location}") for name, location in places.items()),
            ("encrypted", f"yes, opened by key {', '.join(keys)}" if repository.encrypted else "no"),
        ]
        context.output.report(document, facts(pairs))
        if repository.encrypted:
            context.output.message("Keep a copy of the key elsewhere: without it no backup can be read.")
    return DONE


def _make_place(context: Context, name: StorageName) -> str:
    """Make the storage's place if it is not there yet. Returns where it is."""
    storage = context.application.storage(name, create=True)
    try:
        return storage.location
    finally:
        storage.close()
