"""Which backup ``latest`` means."""

from __future__ import annotations

from collections.abc import Sequence

from chrono_backups.repository.records import Manifest

SAFETY_TRIGGER = "safety backup"
"""What the trigger of a backup starts with that was taken of a restore's target before it was overwritten."""
_OF_EVERYTHING = ("full", "incremental", "differential")


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
