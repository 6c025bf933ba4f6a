"""What a backup holds of a Meilisearch server, read as a restore needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from chrono_backups.errors import EntryMissing, RestoreError
from chrono_backups.recovery.browse import entries, read_file
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.meilisearch.documents import DOCUMENTS
from chrono_backups.sources.meilisearch.source import SAMPLES

SOURCE = "meilisearch"


@dataclass(frozen=True)
class BackedUpIndex:
    """One index of the backup."""

    uid: str
    primary_key: str | None
    documents: int
    bytes: int
    changed: bool
    """It changed while it was read, so that the number of its documents is not exact."""


class BackedUp:
    """The snapshot of a server in a backup."""

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        """Raises ``Damaged``, and ``RestoreError`` for a snapshot that this version does not understand."""
        summary = manifest.snapshot("meilisearch")
        assert summary is not None
        self._repository = repository
        self._backup_id = manifest.backup_id
        self.facts: Mapping[str, Any] = repository.snapshot(summary.snapshot_id).facts
        try:
            self.version = str(self.facts["version"])
            self.indexes = {uid: _index(uid, facts) for uid, facts in sorted(self.facts["indexes"].items())}
        except (KeyError, TypeError, ValueError) as error:
            raise RestoreError(f"the snapshot of meilisearch in {manifest.backup_id} has no list of indexes") from error

    def json(self, path: str) -> Any:
        """The content of a file; None where the backup has no such file. Raises ``Damaged``."""
        try:
            pieces = read_file(self._repository, self._backup_id, path, source=SOURCE)
        except EntryMissing:
            return None
        return json.loads(b"".join(pieces))

    def settings(self, uid: str) -> dict[str, Any]:
        """An index's settings."""
        found: dict[str, Any] = self.json(f"indexes/{uid}/settings.json") or {}
        return found

    def samples(self) -> dict[str, Any]:
        """What was recorded for a drill, by index."""
        found: dict[str, Any] = self.json(SAMPLES) or {}
        return found

    def chats(self) -> dict[str, Any]:
        """Settings of chats by their names."""
        try:
            listed = [one.path for one in entries(self._repository, self._backup_id, "chats", source=SOURCE)]
        except EntryMissing:
            return {}
        names = [path.decode().removeprefix("/chats/").removesuffix(".json") for path in listed]
        return {unquote(name): self.json(f"chats/{name}.json") for name in names}

    def batches(self, uid: str, size: int) -> Iterator[bytes]:
        """An index's documents in batches of whole lines, about so many bytes each. Raises ``Damaged``."""
        held = bytearray()
        for piece in read_file(self._repository, self._backup_id, f"indexes/{uid}/{DOCUMENTS}", source=SOURCE):
            held += piece
            if len(held) >= size:
                end = held.rfind(b"\n") + 1
                if end:
                    yield bytes(memoryview(held)[:end])
                    del held[:end]
        if held:
            yield bytes(held)


def _index(uid: str, facts: Mapping[str, Any]) -> BackedUpIndex:
    return BackedUpIndex(
        uid, facts["primary_key"], int(facts["documents"]), int(facts["bytes"]), bool(facts["changed_by"])
    )
