"""The safety backup of what a restore in place overwrites."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import cast

from chrono_backups.cli.context import Context
from chrono_backups.errors import ChronoBackupsError, RestoreError
from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType, SourceName, StorageName
from chrono_backups.repository.latest import SAFETY_TRIGGER


def secure(
    arguments: argparse.Namespace,
    context: Context,
    backup_id: str,
    sources: Sequence[str],
    answers: str,
    *,
    only: bool = False,
) -> str | None:
    """Take the safety backup, into the storage that answers where none is named; its id, or None where declined.

    ``only``: of ``sources`` and nothing that its type captures beside. Raises where it is not complete.
    """
    if arguments.no_safety_backup:
        context.output.warning("no safety backup is taken: what is overwritten is gone")
        return None
    context.when_cancelled = "nothing was restored"
    try:
        with context.progress() as listener:
            manifest = context.application.take_backup(
                covering(sources),
                storage=None if arguments.storage else cast("StorageName", answers),
                trigger=f"{SAFETY_TRIGGER} before restoring {backup_id}",
                listener=listener,
                only=cast("Sequence[SourceName]", sources) if only else None,
            )
        if manifest.status != "complete":
            missing = "; ".join(f"{source}: {reason}" for source, reason in manifest.failures.items())
            raise RestoreError(f"the safety backup {manifest.backup_id} is partial: {missing}")
    except ChronoBackupsError:
        context.output.warning("nothing was restored, for there is no safety backup; --no-safety-backup does without")
        raise
    context.output.message(f"safety backup: {manifest.backup_id}")
    return manifest.backup_id


def covering(sources: Sequence[str]) -> BackupType:
    """The narrowest backup type that captures all of ``sources``."""
    narrow: tuple[BackupType, ...] = ("configuration", "files_only", "database_only")
    return next((one for one in narrow if set(sources) <= set(SOURCES_OF_TYPE[one])), "full")
