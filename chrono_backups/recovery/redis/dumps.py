"""The RDB files of a backup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chrono_backups.errors import Damaged, RestoreError
from chrono_backups.events import Listener, Progress
from chrono_backups.recovery.browse import entries, read_file
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.redis.names import is_dump
from chrono_backups.sources.redis.rdb import RdbScanner
from chrono_backups.sources.redis.rdb_format import NoRdb

SOURCE = "redis"


@dataclass(frozen=True)
class Dump:
    """One RDB file in the repository."""

    repository: Repository
    backup_id: str
    path: str
    size: int
    facts: Mapping[str, Any]
    """What was recorded of it when it was captured."""

    def pieces(self) -> Iterator[bytes]:
        """Its content. Raises ``Damaged``, ``StorageError``."""
        for piece in read_file(self.repository, self.backup_id, self.path, source=SOURCE):
            yield bytes(piece)

    @property
    def rdb_version(self) -> int:
        return int(self.facts["rdb_version"])

    @property
    def keys(self) -> int:
        return int(self.facts["keys"])

    @property
    def databases(self) -> dict[int, Mapping[str, Any]]:
        """Number → keys, expires, types."""
        return {int(number): what for number, what in self.facts["databases"].items()}


def dumps_of(repository: Repository, manifest: Manifest) -> list[Dump]:
    """All of them: one, or of a cluster one a shard. Raises ``RestoreError`` where the backup has none."""
    summary = manifest.snapshot(SOURCE)
    assert summary is not None
    recorded = {one["entry"]: one for one in summary.facts.get("files", [])}
    found = [
        Dump(repository, manifest.backup_id, entry.path.decode().lstrip("/"), entry.size, recorded[name])
        for entry in entries(repository, manifest.backup_id, source=SOURCE)
        if is_dump(entry.path.lstrip(b"/")) and (name := entry.path.decode().lstrip("/")) in recorded
    ]
    if not found or len(found) != len(recorded):
        raise RestoreError(
            f"{manifest.backup_id} lacks RDB files that it was captured with", hint="Restore another backup."
        )
    return found


def prove(dump: Dump, listener: Listener) -> None:
    """Read all of it, and find out that it is a whole RDB file: by its checksum, else by its layout. ``Damaged``."""
    scanner = RdbScanner(structure=not dump.facts.get("has_checksum"))
    try:
        for piece in dump.pieces():
            scanner.feed(piece)
            listener(Progress("verify", dump.path, scanner.size, scanner.keys, dump.size, dump.keys))
        scanner.finish()
    except NoRdb as error:
        raise Damaged(
            f"{dump.path} of {dump.backup_id} is no whole RDB file: {error}",
            key=dump.path,
            hint="No server was touched. Restore another backup.",
        ) from error
