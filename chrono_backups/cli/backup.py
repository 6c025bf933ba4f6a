"""``backup``: take one, and replicate it."""

from __future__ import annotations

import argparse

from chrono_backups.cli import backup_record, replicate
from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import TRIGGER, Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL
from chrono_backups.cli.interruption import time_limit
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.identifiers import BACKUP_TYPES
from chrono_backups.repository.records import Manifest

DESCRIPTION = """\
Take a backup of every configured source that its type captures, into the primary storage, then copy what
the other enabled storages miss. With --storage it goes into that storage only and nothing is copied.

A source that fails leaves the backup `partial` (exit code 4); a storage that fails leaves the backup
complete without that replica (4 too). A backup that is cancelled, or killed, loses nothing: the next run
finds what was stored. Past BACKUP_TIMEOUT_SECONDS it is cancelled (1).
"""
_WHOLE = "the repository is whole, and the next run uses what was stored"


def register(subparsers: Subparsers) -> None:
    """The words of ``backup``."""
    parser = add_verb(
        subparsers,
        "backup",
        DESCRIPTION,
        [
            ("", "of BACKUP_DEFAULT_TYPE, with its replicas"),
            ("--type incremental --quiet", "from cron: silent unless something is wrong"),
            ("--type files_only --storage local", "in one storage only"),
            ("--json", "the new backup as one JSON object"),
        ],
    )
    parser.add_argument(
        "--type",
        metavar="TYPE",
        choices=BACKUP_TYPES,
        help=f"{', '.join(BACKUP_TYPES)} (default: BACKUP_DEFAULT_TYPE)",
    )
    add_storage_option(parser, "back up into this storage only")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Take it within the time limit; exit code 4 where a source or a replica is missing."""
    settings = context.settings
    context.when_cancelled = _WHOLE
    backup_type = arguments.type or settings.default_type
    undertaken = context.undertake(f"{backup_type} backup", "backup-failed", backup_type=backup_type)
    undertaken.storage = arguments.storage or settings.primary_storage
    replicas: list[replicate.Replica] = []
    with time_limit(settings.limits.timeout_seconds):
        with context.progress() as listener:
            manifest = context.application.take_backup(
                backup_type,
                storage=arguments.storage,
                trigger=TRIGGER,
                listener=listener,
            )
        context.when_cancelled = f"{manifest.backup_id} is stored, its replicas may be missing: `replicate` makes them"
        if arguments.storage is None:
            replicas = replicate.to_others(context)
    undertaken.manifest, undertaken.backup_id = manifest, manifest.backup_id
    undertaken.findings += [*backup_record.findings_of(manifest), *filter(None, map(replicate.finding_of, replicas))]
    _show(context, manifest, replicas)
    complete = manifest.status == "complete" and not any(replica.fault for replica in replicas)
    return DONE if complete else PARTIAL


def _show(context: Context, manifest: Manifest, replicas: list[replicate.Replica]) -> None:
    document = {**backup_record.as_json(manifest), "replicas": [replica.to_json() for replica in replicas]}
    pairs = [*backup_record.summary(manifest), *replicate.facts_of(replicas)]
    context.output.report(document, map(safe_message, facts(pairs)))
    for source, reason in manifest.failures.items():
        context.output.warning(f"{manifest.backup_id} is partial: {source} is missing: {reason}")
    for replica in replicas:
        if replica.fault:
            context.output.warning(f"{replica.storage} has no complete replica: {replica.fault}")
