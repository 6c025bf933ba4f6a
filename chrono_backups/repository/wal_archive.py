"""The archive of a cluster's write-ahead log (WAL), in a repository (``docs/repository-format.md``, "WAL").

==================================== =====================================================================
``wal/SYSTEM/SEGMENT``               a whole segment
``wal/SYSTEM/SEGMENT.START-END``     a piece: bytes of a segment that was not complete yet
``wal/SYSTEM/TIMELINE.history``      a timeline's history file, as the server wrote it
==================================== =====================================================================

Content of the first two: ``moment i64 | bytes``. The moment is the server's clock, in microseconds since 1970, when
its log ended there (0: not known). Pieces of one segment may overlap; they agree wherever they do. A longer piece, or
the whole segment, makes others needless.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from chrono_backups.errors import Damaged, ObjectExists, ObjectLocked, ObjectMissing, RepositoryError, StorageDenied
from chrono_backups.repository.format import object_key, open_object, seal_object
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_names import (
    PieceName,
    Switch,
    history_name,
    history_timeline,
    is_segment,
    parse_history,
    piece_name,
)
from chrono_backups.repository.wal_pages import segment_header
from chrono_backups.repository.wal_runs import Runs
from chrono_backups.storage.fallback import copies

MOMENT_SIZE = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LEVEL = 1
"""WAL comes as fast as the server writes it: the fastest level has to keep up on a core beside the server."""
_LISTINGS_MOST = 5

Buffer = bytes | bytearray | memoryview


def moment_bytes(moment: datetime | None) -> bytes:
    """How a moment is written before the bytes."""
    return (0 if moment is None else (moment - _EPOCH) // _MICROSECOND).to_bytes(MOMENT_SIZE, "little", signed=True)


def moment_of(content: Buffer) -> datetime | None:
    """The moment that ``content`` begins with; None where it is not known."""
    number = int.from_bytes(bytes(content[:MOMENT_SIZE]), "little", signed=True)
    return _EPOCH + number * _MICROSECOND if number else None


@dataclass(frozen=True)
class StoredWal:
    """A segment as far as it is stored, filled up with zeros."""

    content: memoryview
    end: int
    """Bytes from the start that are stored."""
    moment: datetime | None
    """When the server's log ended there, by its clock."""
    whole: bool


@dataclass(frozen=True)
class Contents:
    """What an archive holds of one cluster, by its names alone."""

    segments: frozenset[str] = frozenset()
    """Whole ones, in lower case."""
    pieces: dict[str, tuple[PieceName, ...]] = field(default_factory=dict)
    """By segment; in order."""
    histories: tuple[int, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict, repr=False)
    """Stored bytes by object's name, without the system."""
    _runs: dict[int, tuple[Runs, Runs]] = field(default_factory=dict, repr=False, compare=False)
    """By size of a segment: of whole ones, and of those that there are pieces of."""

    @classmethod
    def of(cls, sizes: dict[str, int]) -> Contents:
        """Of those objects. What has no name of the archive is left out."""
        segments, histories = [], []
        pieces: dict[str, list[PieceName]] = {}
        for name in sizes:
            if is_segment(name):
                segments.append(name)
            elif (timeline := history_timeline(name)) is not None:
                histories.append(timeline)
            elif (piece := piece_name(name)) is not None:
                pieces.setdefault(piece.segment, []).append(piece)
        ordered = {segment: tuple(sorted(found)) for segment, found in sorted(pieces.items())}
        return cls(frozenset(segments), ordered, tuple(sorted(histories)), sizes)

    def runs(self, size: int) -> Runs:
        """Whole segments by number, where segments have that size."""
        return self._numbered(size)[0]

    def begun(self, size: int) -> Runs:
        """As ``runs``, of segments that there are pieces of."""
        return self._numbered(size)[1]

    def _numbered(self, size: int) -> tuple[Runs, Runs]:
        found = self._runs.get(size)
        if found is None:
            found = self._runs[size] = Runs(self.segments, size), Runs(self.pieces, size)
        return found

    def reach(self, segment: str) -> int:
        """How many bytes from its start are stored in pieces of that segment, without a hole."""
        return sum_of_cover(cover(self.pieces.get(segment, ())))

    def needless(self) -> list[PieceName]:
        """Pieces of segments that are stored whole, and those that others cover."""
        found = []
        for segment, pieces in self.pieces.items():
            kept = () if segment in self.segments else _kept(pieces)
            found += [piece for piece in pieces if piece not in kept]
        return found

    @property
    def newest(self) -> str | None:
        """The last segment of the newest timeline of which anything is stored."""
        return max((*self.segments, *self.pieces), default=None)


def cover(pieces: Iterable[PieceName]) -> list[PieceName]:
    """The fewest pieces that give the bytes from the start on as far as they go."""
    chosen: list[PieceName] = []
    end = 0
    best: PieceName | None = None
    for piece in sorted(pieces, key=lambda one: (one.start, one.end)):
        if piece.start > end:
            if best is None or piece.start > best.end:
                break
            chosen.append(best)
            end, best = best.end, None
        if piece.end > max(end, best.end if best else 0):
            best = piece
    if best is not None:
        chosen.append(best)
    return chosen


def sum_of_cover(chosen: list[PieceName]) -> int:
    """How far they go."""
    return chosen[-1].end if chosen else 0


def _kept(pieces: tuple[PieceName, ...]) -> set[PieceName]:
    """Those that are needed: of the beginning the fewest that give it, and whatever lies behind a hole."""
    chosen = cover(pieces)
    end = sum_of_cover(chosen)
    return {*chosen, *(piece for piece in pieces if piece.end > end)}


class WalArchive:
    """The archived WAL of one cluster. May be used by several threads at once."""

    def __init__(self, repository: Repository, system_identifier: str) -> None:
        self.repository = repository
        self.system_identifier = system_identifier

    @staticmethod
    def systems(repository: Repository) -> dict[str, Contents]:
        """What is archived, by system identifier, from one listing."""
        found: dict[str, dict[str, int]] = {}
        start = object_key("wal", "")
        for info in repository.storage.list(start):
            system, _, name = info.key.removeprefix(start).partition("/")
            found.setdefault(system, {})[name] = info.size
        return {system: Contents.of(sizes) for system, sizes in found.items()}

    def object_name(self, name: str | PieceName) -> str:
        """The whole name, with the system, of what an archive calls ``name``."""
        return f"{self.system_identifier}/{name}"

    def contents(self, prefix: str = "") -> Contents:
        """What is there, of names that begin with ``prefix``, from one listing."""
        start = object_key("wal", self.object_name(""))
        listed = self.repository.storage.list(start + prefix)
        return Contents.of({info.key.removeprefix(start): info.size for info in listed})

    # Writing.

    def put_segment(self, name: str, content: Buffer) -> bool:
        """Store a whole segment, ``content`` with its moment first; whether it was not there already.

        Raises ``RepositoryError`` where another one of that name is stored.
        """
        return self._put(name.lower(), content)

    def put_piece(self, piece: PieceName, content: Buffer) -> bool:
        """Store a part of a segment, ``content`` with its moment first. As ``put_segment``."""
        assert len(content) == MOMENT_SIZE + piece.end - piece.start
        return self._put(str(piece), content)

    def put_history(self, timeline: int, content: bytes) -> bool:
        """Store a timeline's history file. As ``put_segment``."""
        return self._put(history_name(timeline), content, skip=0)

    def _put(self, name: str, content: Buffer, *, skip: int = MOMENT_SIZE) -> bool:
        repository, whole = self.repository, self.object_name(name)
        key = object_key("wal", whole)
        sealed = seal_object(repository.keys, "wal", whole, content, repository.clock, level=_LEVEL)
        try:
            repository.storage.put(key, sealed)
            return True
        except ObjectExists:
            pass
        try:
            stored = self._content(whole)
        except (Damaged, ObjectMissing):
            # What is here is what was written there: the archive gets it back.
            repository.storage.delete(key)
            repository.storage.put(key, sealed)
            return True
        if memoryview(stored)[skip:] != memoryview(content)[skip:]:
            raise RepositoryError(
                f"the archive holds another {name} of the cluster {self.system_identifier}",
                hint="Two servers write the same log: was one restored, or promoted, without a new timeline? "
                "Archive only the one that is in use, and take a new base backup of it.",
            )
        return False

    def remove(self, pieces: Iterable[PieceName]) -> int:
        """Delete pieces that others made needless; how many. What the storage keeps locked stays."""
        removed = 0
        for piece in pieces:
            with suppress(StorageDenied, ObjectLocked):
                self.repository.storage.delete(object_key("wal", self.object_name(piece)))
                removed += 1
        return removed

    # Reading.

    def read_segment(self, name: str) -> StoredWal:
        """A segment, from pieces where it is not stored whole. Raises ``ObjectMissing``, ``Damaged``."""
        segment = name.lower()
        for _ in range(_LISTINGS_MOST):
            try:
                return self.read_whole_segment(segment)
            except ObjectMissing as error:
                missing = error
            chosen = cover(self.contents(f"{segment}.").pieces.get(segment, ()))
            if not chosen:
                raise missing
            try:
                return self._together(segment, chosen)
            except ObjectMissing as error:  # a longer piece took its place meanwhile
                missing = error
        raise Damaged(f"{missing.key} is listed and missing", key=missing.key) from missing

    def read_whole_segment(self, name: str) -> StoredWal:
        """A segment that is stored whole. Raises ``ObjectMissing``, ``Damaged``."""
        content = memoryview(self._content(self.object_name(name.lower())))
        return StoredWal(content[MOMENT_SIZE:], len(content) - MOMENT_SIZE, moment_of(content), True)

    def _content(self, whole: str) -> bytes:
        """What that object holds, or a copy of it where several storages are read."""
        keys, storage, key = self.repository.keys, self.repository.storage, object_key("wal", whole)
        try:
            return open_object(keys, "wal", whole, storage.get(key))
        except Damaged:
            for stored in copies(storage, key):
                with suppress(Damaged):
                    return open_object(keys, "wal", whole, stored)
            raise

    def _together(self, segment: str, chosen: list[PieceName]) -> StoredWal:
        target = bytearray()
        moment = None
        for piece in chosen:
            content = self.read_piece(piece)
            if not target:
                target = bytearray(_segment_size(segment, content))
            target[piece.start : piece.end] = content[MOMENT_SIZE:]
            moment = moment_of(content) or moment
        return StoredWal(memoryview(target), chosen[-1].end, moment, False)

    def read_piece(self, piece: PieceName) -> memoryview:
        """A piece with its moment. Raises ``ObjectMissing``, ``Damaged``."""
        content = memoryview(self._content(self.object_name(piece)))
        if len(content) != MOMENT_SIZE + piece.end - piece.start:
            key = object_key("wal", self.object_name(piece))
            raise Damaged(f"{key} holds {len(content)} bytes", key=key)
        return content

    def read_history(self, timeline: int) -> bytes:
        """A timeline's history file. Raises ``ObjectMissing``, ``Damaged``."""
        return self._content(self.object_name(history_name(timeline)))

    def ancestors(self, timeline: int) -> tuple[Switch, ...]:
        """The timelines before it and where each was left; none of the first. As ``read_history``."""
        if timeline == 1:
            return ()
        key = object_key("wal", self.object_name(history_name(timeline)))
        try:
            return parse_history(self.read_history(timeline))
        except ValueError as error:
            raise Damaged(f"{key} is no timeline's history: {error}", key=key) from error

    def segment_size(self, contents: Contents) -> int | None:
        """The size of a segment, as the first stored one says; None where none is stored. Raises ``Damaged``."""
        for segment in sorted(contents.segments):
            return len(self.read_segment(segment).content)
        for segment in contents.pieces:
            if contents.reach(segment):
                return len(self.read_segment(segment).content)
        return None


def _segment_size(segment: str, content: memoryview) -> int:
    try:
        return segment_header(content[MOMENT_SIZE:]).segment_size
    except ValueError as error:
        raise Damaged(f"the first piece of {segment} is damaged: {error}", key=f"wal/…/{segment}") from error
