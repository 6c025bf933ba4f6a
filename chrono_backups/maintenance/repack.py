"""Copying what is needed of packs that are mostly not: frames are opened and sealed anew, never decoded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from chrono_backups.errors import ObjectExists, ObjectMissing
from chrono_backups.events import Listener, Progress
from chrono_backups.maintenance.exclusion import Claim
from chrono_backups.maintenance.inspection import HINT, Findings
from chrono_backups.maintenance.survey import CHOSEN, LISTING, Survey
from chrono_backups.pipeline.chunking import MAX_CHUNK
from chrono_backups.pipeline.encryption import HEADER_SIZE, SALT_SIZE, NotAuthentic
from chrono_backups.pipeline.packing import PACK_TARGET, PackBuilder, PackedChunk
from chrono_backups.repository.format import object_key
from chrono_backups.repository.index import Pack
from chrono_backups.repository.repository import Repository

_BUFFER = PACK_TARGET + MAX_CHUNK + 256 * 1024
_INDEX_EVERY = 64
"""New packs after which they are put into the index, and the packs that they replace count as copied."""


class _Target:
    """The new pack that is being filled with content, or with listings."""

    def __init__(self) -> None:
        self.builder = PackBuilder(bytearray(_BUFFER))
        self.salt = b""


class Repacker:
    """Copies chosen chunks into new packs."""

    def __init__(self, repository: Repository, found: Survey, held: Claim, listener: Listener) -> None:
        self._repository = repository
        self._found = found
        self._held = held
        self._listener = listener
        self._targets: dict[bool, _Target] = {}
        self._stored: list[tuple[Pack, Sequence[PackedChunk]]] = []
        self.findings = Findings(listener)
        self.bytes = 0
        self.index_written = 0

    def run(self, packs: Sequence[bytes]) -> set[bytes]:
        """Copy what is chosen in these packs; those all of whose chosen chunks are in the index at a new place."""
        done: set[bytes] = set()
        open_since: set[bytes] = set()
        for number, digest in enumerate(packs, 1):
            self._held.keep()
            if self._copy(digest):
                open_since.add(digest)
            if len(self._stored) >= _INDEX_EVERY:
                self._flush()
                done |= open_since
                open_since = set()
            self._listener(Progress("prune", "repacking", self.bytes, number, None, len(packs)))
        self._flush()
        return done | open_since

    def _copy(self, digest: bytes) -> bool:
        key = object_key("pack", digest.hex())
        try:
            stored = memoryview(self._repository.storage.get(key))
            opener = self._repository.keys.opener("pack", stored[:HEADER_SIZE])
            for table, row in self._found.index.select(lambda pack: pack.digest == digest):
                if table.marks[row] & CHOSEN:
                    start = table.offset[row]
                    frame = opener.open(start, table.chunk_id(row), stored[start : start + table.sealed[row]])
                    listing = bool(table.marks[row] & LISTING)
                    self._add(table.chunk_id(row), memoryview(frame), table.size[row], listing=listing)
        except (NotAuthentic, ObjectMissing) as error:
            self.findings.add("damaged", key, f"it can't be copied: {error}", HINT)
            return False
        return True

    def _add(self, chunk_id: bytes, frame: memoryview, size: int, *, listing: bool) -> None:
        target = self._targets.setdefault(listing, _Target())
        if target.salt and (target.builder.size >= PACK_TARGET or not target.builder.fits(len(frame))):
            self._put(target)
        if not target.salt:
            target.salt = self._repository.clock.random_bytes(SALT_SIZE)
            target.builder.start(self._repository.keys.sealer("pack", target.salt))
        target.builder.add(chunk_id, frame, size)
        self.bytes += len(frame)

    def _put(self, target: _Target) -> None:
        rows = target.builder.chunks
        digest, data = target.builder.finish()
        with suppress(ObjectExists):  # a put whose first answer was lost
            self._repository.storage.put(object_key("pack", digest.hex()), data)
        self._stored.append((Pack(digest, target.salt, len(data)), rows))
        target.salt = b""

    def _flush(self) -> None:
        """Store what is open, and the index of it all."""
        for target in self._targets.values():
            if target.salt and target.builder.chunks:
                self._put(target)
        if self._stored:
            self._repository.put_index(self._stored)
            self.index_written += 1
            self._stored = []
