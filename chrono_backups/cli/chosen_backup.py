"""Which backup the operator means by an id, or by ``latest``."""

from __future__ import annotations

from collections.abc import Sequence

from chrono_backups.cli.context import SAFETY_TRIGGER
from chrono_backups.errors import BackupMissing
from chrono_backups.maintenance.forget import readable_manifests
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

_OF_EVERYTHING = ("full", "incremental", "differential")


def find(repository: Repository, name: str, sources: Sequence[str] = ()) -> Manifest:
    """The backup of that id; for ``latest`` see ``latest``. Raises ``BackupMissing``."""
    if name != "latest":
        return repository.backup(name)
    found = latest(readable_manifests(repository)[0], sources)
    if found is not None:
        return found
    if sources:
        raise BackupMissing(
            f"no backup holds {' and '.join(sources)}", hint="`chrono-backups list` shows what each one holds."
        )
    return repository.backup(name)


def latest(newest_first: Sequence[Manifest], sources: Sequence[str] = ()) -> Manifest | None:
    """The newest backup that holds all of ``sources``; without any, the newest of a type that takes everything.

    The nightly backup of the configuration alone must not be what ``restore latest`` restores, nor the safety
    backup that an unlucky restore has just taken of what it was to repair. Where nothing else is there
    they do, and a partial backup where there is no complete one.
    """
    holding = [one for one in newest_first if set(sources) <= {snapshot.source for snapshot in one.snapshots}]

    def rank(manifest: Manifest) -> tuple[bool, bool, bool]:
        narrow = not sources and manifest.type not in _OF_EVERYTHING
        return manifest.status != "complete", manifest.trigger.startswith(SAFETY_TRIGGER), narrow

    return min(holding, key=rank, default=None)
