"""Which packs some backups need, and which backups something that is missing spoils."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from chrono_backups.errors import Damaged
from chrono_backups.maintenance.listings import Listings, chunks_of_rows, raise_unavailable, read_chunks, row_chunks
from chrono_backups.maintenance.marks import MarkedIndex
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import Snapshot
from chrono_backups.repository.repository import Repository


def needed_packs(
    repository: Repository,
    index: MarkedIndex,
    snapshots: Sequence[Snapshot],
    present: Collection[bytes],
    stored: Collection[bytes],
) -> set[bytes]:
    """Digests of packs that together hold every chunk of the snapshots, those in ``present`` wherever they will do."""
    needed: set[bytes] = set()

    def need(_number: int, chunk_id: bytes) -> None:
        places = [table.packs[table.pack[row]].digest for table, row in index.places(chunk_id)]
        for known in (needed, present, stored):
            found = next((digest for digest in places if digest in known), None)
            if found is not None:
                needed.add(found)
                return

    _walk(repository, index, snapshots, need, lambda _number: None)
    return needed


def not_covered(
    repository: Repository, index: MarkedIndex, snapshots: Sequence[Snapshot], present: Collection[bytes]
) -> list[str]:
    """The backups of which a chunk is in no pack of ``present``, or a listing can't be read."""
    bad: set[int] = set()

    def need(number: int, chunk_id: bytes) -> None:
        if not any(table.packs[table.pack[row]].digest in present for table, row in index.places(chunk_id)):
            bad.add(number)

    listings = _walk(repository, index, snapshots, need, bad.add)
    return list(dict.fromkeys(holder.backup_id for holder in listings.held_by(bad)))


def _walk(
    repository: Repository,
    index: MarkedIndex,
    snapshots: Sequence[Snapshot],
    need: Callable[[int, bytes], None],
    unreadable: Callable[[int], None],
) -> Listings:
    """Say of every chunk which listing chunk's number it is needed for, and which listing chunks can't be read."""
    listings = Listings()
    for snapshot in snapshots:
        listings.add(snapshot)
    for number, chunk_id in enumerate(listings.chunk_ids):
        need(number, chunk_id)
    rows: dict[bytes, set[int]] = {}
    reader = ChunkReader(repository.storage, repository.keys, index)
    try:
        for number, content in listings.read(reader, index):
            if isinstance(content, Damaged):
                raise_unavailable(content)
                unreadable(number)
                continue
            for segment in content:
                for chunk_id in segment.chunk_ids():
                    need(number, chunk_id)
                for chunk_id in row_chunks(segment):
                    rows.setdefault(chunk_id, set()).add(number)
        for chunk_id, stored in read_chunks(reader, list(rows), lambda one: one):
            for number in rows[chunk_id]:
                if isinstance(stored, Damaged):
                    raise_unavailable(stored)
                    unreadable(number)
                    continue
                for content_id in chunks_of_rows(stored):
                    need(number, content_id)
    finally:
        reader.close()
    return listings
