"""Synthetic recovery points: what a repository proves that its sources held at a past moment.

The past can't be captured. What stands for a moment is, of each source, the newest snapshot that was finished before;
of a PostgreSQL cluster whose WAL is archived, a base backup and the WAL from there to that very moment, without a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import BackupMissing, RestoreError
from chrono_backups.identifiers import lsn_text
from chrono_backups.recovery.postgres.target import Target
from chrono_backups.recovery.postgres.wal_path import wal_path
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.recovery_points import bases
from chrono_backups.repository.repository import Repository

POSTGRES = "postgres"


@dataclass(frozen=True)
class SyntheticPoint:
    """A moment, and where each source is to be taken from to be as it was then."""

    moment: datetime
    parts: Mapping[str, str]
    """Source → the backup that holds its snapshot."""
    main: str
    """The backup that holds the most of the sources."""
    recovered: bool
    """The cluster is to be recovered to the moment; else it is as its snapshot has it."""
    wal: str = ""
    """Of a cluster that is recovered: the segments on the way, for people."""

    @property
    def backups(self) -> tuple[str, ...]:
        """Each once, the main one first."""
        return tuple(dict.fromkeys((self.main, *self.parts.values())))

    def commands(self, directory: str = "DIR") -> list[str]:
        """The command lines that restore it, one for each backup."""
        several = len(self.backups) > 1
        found = []
        for number, backup_id in enumerate(self.backups, 1):
            sources = [source for source, holder in self.parts.items() if holder == backup_id]
            if not sources:
                continue
            words = ["chrono-backups restore", backup_id, "--to", f"{directory}/{number}" if several else directory]
            words += [f"--source {source}" for source in sources]
            if self.recovered and POSTGRES in sources:
                words.append(f"--target-time {to_text(self.moment)}")
            found.append(" ".join(words))
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "moment": to_text(self.moment),
            "parts": dict(self.parts),
            "main": self.main,
            "recovered": self.recovered,
            "wal": self.wal,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SyntheticPoint:
        return cls(from_text(data["moment"]), dict(data["parts"]), data["main"], data["recovered"], data["wal"])


def find_point(repository: Repository, moment: datetime, sources: Sequence[str]) -> SyntheticPoint:
    """What stands for ``moment``. Changes nothing.

    Raises ``BackupMissing`` where a source has no snapshot that old, ``RestoreError`` where the cluster's WAL does not
    lead to it.
    """
    earlier = [one for one in repository.readable_backups()[0] if one.finished_at <= moment]
    parts: dict[str, str] = {}
    for source in sources:
        newest = next((one for one in earlier if one.snapshot(source) is not None), None)
        if newest is None:
            raise BackupMissing(
                f"the repository can't prove what {source} held at {to_text(moment)}: no backup of it is that old",
                hint="A past day can't be captured today; backfill days from the first backup on.",
            )
        parts[source] = newest.backup_id
    recovered, wal = False, ""
    if POSTGRES in parts:
        base = _base(repository, earlier, parts[POSTGRES], moment)
        if base is not None:
            parts[POSTGRES], wal = base
            recovered = True
    used = [one for one in earlier if one.backup_id in parts.values()]
    main = max(used, key=lambda one: (sum(one.snapshot(source) is not None for source in parts), one.started_at))
    return SyntheticPoint(moment, parts, main.backup_id, recovered, wal)


def _base(repository: Repository, earlier: Sequence[Manifest], newest: str, moment: datetime) -> tuple[str, str] | None:
    """The base backup to recover from, and the way; None where the snapshot has to stand by itself.

    It has where it holds dumps, or where nothing was ever archived of the cluster.
    """
    own = bases(one for one in earlier if one.backup_id == newest)
    if not own or not _archived(repository, own[0].system_identifier):
        return None
    system = own[0].system_identifier
    of_cluster = [one for one in bases(earlier) if one.system_identifier == system and one.end_time <= moment]
    by_id = {one.backup_id: one for one in earlier}
    refusal: RestoreError | None = None
    for base in reversed(of_cluster):
        summary = by_id[base.backup_id].snapshot(POSTGRES)
        assert summary is not None
        try:
            path = wal_path(repository, summary.facts, Target("time", moment=moment))
        except RestoreError as error:
            refusal = refusal or error
            continue
        names = f"{path.files[0]} to {path.files[-1]}" if path.files else "none"
        return base.backup_id, f"{names}, timeline {path.timeline}, behind LSN {lsn_text(base.end)}"
    why = refusal.message if refusal is not None else f"no base backup of it ended before {to_text(moment)}"
    raise RestoreError(
        f"the cluster can't be recovered to {to_text(moment)}: {why}",
        hint="Only moments with WAL up to them can be: see `chrono-backups recovery-points`, and keep"
        " `chrono-backups wal-receive` running.",
    ) from refusal


def _archived(repository: Repository, system: str) -> bool:
    return next(iter(repository.storage.list(f"wal/{system}/")), None) is not None
