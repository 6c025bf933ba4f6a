"""Whether the boundaries of a backup lie as close together as the operator wants."""

from __future__ import annotations

from collections.abc import Iterator

from chrono_backups.events import Finding
from chrono_backups.repository.records import Manifest


def skew_findings(manifest: Manifest, most: float | None) -> Iterator[Finding]:
    """A finding where more than ``most`` seconds lie between the first and the last boundary.

    Where PostgreSQL's log is kept up to where it meets the other stores, it is not counted: a restore brings it there.
    """
    if most is None:
        return
    met = manifest.meeting
    by_wal = met is not None and met[1].archived
    found = manifest.skew_with_wal_seconds if by_wal else manifest.skew_seconds
    if found <= most:
        return
    held = {source: one for source, one in manifest.boundaries.items() if not (by_wal and source == "postgres")}
    first = min(held, key=lambda source: held[source].first)
    last = max(held, key=lambda source: held[source].last)
    longest = max(held, key=lambda source: held[source].seconds)
    between = f"from {first} to {last}" if first != last else f"within {first}"
    hint = f"Of all sources {longest} takes longest to be read: {held[longest].seconds:.1f} s."
    if longest in {"files", "configuration"}:
        hint += " BACKUP_HOOK_BEFORE can take a snapshot of the file system, for its copy to be backed up."
    if not by_wal and met is not None and manifest.skew_with_wal_seconds < found:
        hint += (
            f" With its WAL archived (`chrono-backups wal-receive`) it would be {manifest.skew_with_wal_seconds:.1f} s."
        )
    message = f"{found:.1f} s lie between its boundaries, {between}; BACKUP_MAX_SKEW_SECONDS allows {most:g}"
    yield Finding("skew-too-large", "warning", manifest.backup_id, message, hint)
