"""``key``: list, add or remove the keys that open the repository."""

from __future__ import annotations

import argparse
import os
import socket

from chrono_backups.cli import key_files
from chrono_backups.cli.arguments import Parser, Subparsers, add_global_options, add_storage_option, add_verb
from chrono_backups.cli.context import NEW_KEY, Context
from chrono_backups.cli.exit_codes import DONE
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import printable
from chrono_backups.cli.terminal.tables import table
from chrono_backups.clock import from_text
from chrono_backups.errors import UsageError
from chrono_backups.pipeline.settings import key_bytes
from chrono_backups.repository.format import KeySlot
from chrono_backups.repository.repository import Repository

DESCRIPTION = f"""\
A repository's data is encrypted under one random master key; each key slot holds it wrapped under one
operator's key. To rotate: `key add` the new key while the old one is configured, configure the new one, and
`key remove` the old one's id. Nothing is encrypted again, and no old backup is lost.

`key add` takes the new key from --new-key-file, from {NEW_KEY}, or makes one with --generate.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``key`` and of what follows it."""
    parser = add_verb(
        subparsers,
        "key",
        DESCRIPTION,
        [
            ("list", "the ids of the keys that open it"),
            ("add --generate /run/secrets/new_key", "make a key and let it open the repository"),
            ("add --new-key-file /run/secrets/new_key", "let a key from a file open it"),
            ("remove 3f1c9a52b7d80e64", "it opens the repository no longer"),
        ],
    )
    actions = parser.add_subparsers(dest="action", metavar="list|add|remove", required=True, parser_class=Parser)
    listing = _action(actions, "list", "list the key slots")
    adding = _action(actions, "add", "add a key slot")
    new_key = adding.add_mutually_exclusive_group()
    new_key.add_argument("--new-key-file", metavar="FILE", help="the new key is in FILE")
    new_key.add_argument("--generate", metavar="FILE", help="make a key and write it into FILE (mode 0600)")
    adding.add_argument("--label", metavar="TEXT", help="what to call it in `key list`")
    removing = _action(actions, "remove", "remove a key slot, but never the one in use")
    removing.add_argument("key_id", metavar="KEY_ID", help="as `key list` shows it")
    for one in (listing, adding, removing):
        add_storage_option(one, "the repository in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Open the repository with the configured key and do it."""
    with context.repository(arguments.storage) as repository:
        if not repository.encrypted:
            raise UsageError("this repository is not encrypted, so it has no keys")
        if arguments.action == "add":
            _add(arguments, context, repository)
        elif arguments.action == "remove":
            _remove(arguments, context, repository)
        else:
            _list(context, repository)
    return DONE


def _action(actions: Subparsers, name: str, meaning: str) -> Parser:
    parser = actions.add_parser(name, help=meaning, description=meaning)
    add_global_options(parser)
    return parser


def _list(context: Context, repository: Repository) -> None:
    slots = repository.key_slots()
    current = repository.keyring.current
    rows = [
        (
            slot.key_id,
            quantities.moment(from_text(slot.created_at)),
            "yes" if slot.key_id == current else "",
            printable(slot.label),
        )
        for slot in slots
    ]
    document = {"keys": [{**_as_json(slot), "current": slot.key_id == current} for slot in slots]}
    context.output.show(document, table(("KEY ID", "ADDED (UTC)", "IN USE", "LABEL"), rows))


def _add(arguments: argparse.Namespace, context: Context, repository: Repository) -> None:
    """A generated key is on disk before its slot exists, so that no slot is ever without its key."""
    label = arguments.label or f"added on {socket.gethostname()}"
    key = _new_key(arguments, context)
    if arguments.generate is None:
        slot = repository.keyring.add(key, label)
    else:
        key_files.write(arguments.generate, key_files.text(key))
        try:
            slot = repository.keyring.add(key, label)
        except BaseException:
            key_files.remove(arguments.generate)
            raise
    written = {} if arguments.generate is None else {"file": arguments.generate}
    context.output.report({**_as_json(slot), **written}, [f"added {slot.key_id}"])
    if written:
        context.output.message(f"The key is in {arguments.generate}. Keep a copy elsewhere.")
    context.output.message("Configure the new key, then `key remove` the old one's id.")


def _new_key(arguments: argparse.Namespace, context: Context) -> bytes:
    if arguments.generate is not None:
        return context.clock.random_bytes(key_files.KEY_SIZE)
    if arguments.new_key_file is not None:
        origin, text = arguments.new_key_file, key_files.read(arguments.new_key_file)
    else:
        origin, text = NEW_KEY, os.environ.get(NEW_KEY, "")
    if not text:
        raise UsageError(
            "no new key is given" if origin == NEW_KEY else f"{origin} is empty",
            hint=f"Use --new-key-file FILE, {NEW_KEY}, or --generate FILE.",
        )
    try:
        return key_bytes(text)
    except ValueError as error:
        raise UsageError(f"{origin} holds no key; a key is {error}") from None


def _remove(arguments: argparse.Namespace, context: Context, repository: Repository) -> None:
    repository.keyring.remove(arguments.key_id)
    context.output.report({"removed": arguments.key_id}, [f"removed {arguments.key_id}"])


def _as_json(slot: KeySlot) -> dict[str, object]:
    return {"key_id": slot.key_id, "created_at": slot.created_at, "label": slot.label}
