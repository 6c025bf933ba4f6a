"""All that backups refer to: their listing chunks, each read once however many backups share it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from chrono_backups.errors import Damaged, StorageDenied, StorageUnavailable
from chrono_backups.maintenance.marks import MarkedIndex
from chrono_backups.repository.listing import Segment, decode_extents, segments
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.records import Snapshot

T = TypeVar("T")
_AWAY = 3
"""So many objects in a row that can't be had are not bad sectors: the storage is away."""


@dataclass
class Holder:
    """A snapshot and the numbers of its listing chunks, in order."""

    backup_id: str
    snapshot_id: str
    source: str
    listing: array[int]


@dataclass
class Listings:
    """The listing chunks of some snapshots, numbered; an equal chunk has one number."""

    chunk_ids: list[bytes] = field(default_factory=list)
    first_paths: list[bytes] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    _numbers: dict[bytes, int] = field(default_factory=dict)

    def add(self, snapshot: Snapshot) -> None:
        """Take in one snapshot's listing."""
        listing = array("I")
        for chunk in snapshot.listing:
            number = self._numbers.setdefault(chunk.chunk_id, len(self.chunk_ids))
            if number == len(self.chunk_ids):
                self.chunk_ids.append(chunk.chunk_id)
                self.first_paths.append(chunk.first_path)
            listing.append(number)
        self.holders.append(Holder(snapshot.backup_id, snapshot.snapshot_id, snapshot.source, listing))

    def held_by(self, wanted: set[int]) -> list[Holder]:
        """The snapshots that have one of those listing chunks."""
        return [holder for holder in self.holders if not wanted.isdisjoint(holder.listing)]

    def read(
        self, reader: ChunkReader, index: MarkedIndex, only: Iterable[int] | None = None
    ) -> Iterator[tuple[int, list[Segment] | Damaged]]:
        """Number and segments of every listing chunk, or of ``only`` some, in the order in which they are stored.

        In the place of one that can't be had comes the ``Damaged`` that says why.
        """
        numbers = range(len(self.chunk_ids)) if only is None else only
        by_place = sorted((place_key(index, self.chunk_ids[number]), number) for number in numbers)
        order = [number for _, number in by_place]
        for number, content in read_chunks(reader, order, lambda one: self.chunk_ids[one]):
            yield number, content if isinstance(content, Damaged) else _segments(content)


def place_key(index: MarkedIndex, chunk_id: bytes) -> tuple[bytes, int]:
    """Sorts chunks by where they are stored."""
    place = index.find(chunk_id)
    return (b"", 0) if place is None else (place.pack.digest, place.offset)


def _segments(content: bytes | memoryview) -> list[Segment] | Damaged:
    try:
        return list(segments(memoryview(content)))
    except Damaged as error:
        return error


def read_chunks(
    reader: ChunkReader, wanted: Sequence[T], chunk_id: Callable[[T], bytes]
) -> Iterator[tuple[T, bytes | memoryview | Damaged]]:
    """The contents of chunks in the order asked for, or what is wrong with each.

    An object that the storage refuses, or does not give out, is not the end; several in a row are.
    """
    done = 0
    try:
        for content in reader.stream(chunk_id(one) for one in wanted):
            done += 1
            yield wanted[done - 1], content
    except (StorageDenied, StorageUnavailable):
        in_a_row = 0
        for one in wanted[done:]:
            alone = _read_one(reader, chunk_id(one))
            in_a_row = in_a_row + 1 if isinstance(alone, Damaged) else 0
            if in_a_row >= _AWAY and isinstance(alone, Damaged):
                raise_unavailable(alone)
            yield one, alone


def _read_one(reader: ChunkReader, chunk_id: bytes) -> bytes | memoryview | Damaged:
    try:
        return reader.read(chunk_id)
    except Damaged as error:
        return error
    except (StorageDenied, StorageUnavailable) as error:
        damage = Damaged(f"{error.key} can't be read: {error}", key=error.key)
        damage.__cause__ = error
        return damage


def raise_unavailable(damage: Damaged) -> None:
    """Raise the storage's own error where that is why something could not be read: it is no damage."""
    if isinstance(damage.__cause__, StorageUnavailable):
        raise damage.__cause__


def row_chunks(segment: Segment) -> Iterator[bytes]:
    """The chunks that hold extent rows instead of content."""
    for position, extra in segment.extras.items():
        if extra.indirect:
            yield from (extent.chunk_id for extent in segment.extents(position) if extent.chunk_id is not None)


def chunks_of_rows(content: bytes | memoryview) -> list[bytes]:
    """The chunks that extent rows name. Raises ``Damaged``."""
    return [extent.chunk_id for extent in decode_extents(content) if extent.chunk_id is not None]
