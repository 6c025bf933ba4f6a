"""Captures of sources that pour out a stream: what comes is what is there, upon any row of earlier ones."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from chrono_backups.backup.streamed import EarlierListing
from chrono_backups.errors import ChronoBackupsError, SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.listing import MAX_DIRECT_EXTENTS, NOTHING_EXTRA, Extent
from chrono_backups.repository.listings import read_listing
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.base import Changes, Earlier, StreamedEntry
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.crashing import copy_of, ending
from chrono_backups_tests.backup.taking import Heard, in_repository, new_repository, noise, opened, snapshot_of, take

BLOCK = 8192
FILE = stat.S_IFREG | 0o600
Effective = Literal["full", "incremental", "differential"]


class Pages:
    """Reads a content in pieces of odd sizes, as a network does."""

    def __init__(self, content: bytes, chance: random.Random) -> None:
        self._left = memoryview(content)
        self._chance = chance

    def read_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._left), self._chance.randint(1, 70_000))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


@dataclass
class Database:
    """A source of the tests: files of pages, of which it knows what changed since which snapshot."""

    name: SourceName = "postgres"
    files: dict[bytes, bytes] = field(default_factory=dict)
    known: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    generation: int = 0
    refuses: str = ""
    short: bytes = b""
    asked: list[tuple[Effective, str | None]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def probe(self) -> list[Finding]:
        return []

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: Effective, listener: Listener) -> Iterator[Database.Capture]:
        self.asked.append((asked, earlier.snapshot_id if earlier else None))
        old = None
        if earlier is not None and not self.refuses:
            assert earlier.read(b"manifest") == str(earlier.facts["generation"]).encode()
            old = self.known[str(earlier.facts["generation"])]
        self.generation += 1
        self.known[str(self.generation)] = dict(self.files)
        yield self.Capture(self, old, asked if old is not None else "full")

    class Capture:
        expected_bytes = None

        def __init__(self, database: Database, old: Mapping[bytes, bytes] | None, effective: Effective) -> None:
            self._database = database
            self._old = old
            self.effective: Effective = effective
            self.reason = database.refuses

        def entries(self) -> Iterator[StreamedEntry]:
            database = self._database
            files = {**database.files, b"manifest": str(database.generation).encode()}
            for path in sorted(files, key=lambda _: database.chance.random()):
                yield self._entry(path, files[path])

        def _entry(self, path: bytes, content: bytes) -> StreamedEntry:
            old = self._old.get(path) if self._old is not None else None
            size = len(content)
            changes = None
            if old is not None and size % BLOCK == 0:
                kept = min(len(old), size)
                blocks = [
                    at // BLOCK
                    for at in range(0, size, BLOCK)
                    if at >= kept or content[at : at + BLOCK] != old[at : at + BLOCK]
                ]
                changes = Changes(BLOCK, blocks, size, kept)
                content = b"".join(content[block * BLOCK : (block + 1) * BLOCK] for block in blocks)
                size = len(content)
            if path == self._database.short:
                content = content[: size // 2]
            elif path.endswith(b".stream"):
                size = -1
            return StreamedEntry(
                path,
                FILE,
                size,
                mtime_ns=5,
                block_size=65536 if path.endswith(b".rel") else None,
                changes=changes,
                read_into=Pages(content, self._database.chance).read_into,
            )

        def facts(self) -> Mapping[str, Any]:
            return {"generation": self._database.generation}


def contents(things: Mapping[bytes, Any]) -> dict[bytes, bytes]:
    return {path: thing.content for path, thing in things.items() if stat.S_ISREG(thing.mode)}


def changed(database: Database, chance: random.Random) -> None:
    """Pages written, files grown, cut, made and gone."""
    for path in list(database.files):
        content = bytearray(database.files[path])
        if not path.endswith(b".rel"):
            continue
        for _ in range(chance.randint(0, 6)):
            if content:
                at = chance.randrange(len(content) // BLOCK) * BLOCK
                content[at : at + BLOCK] = chance.randbytes(BLOCK)
        draw = chance.random()
        if draw < 0.2:
            content += chance.randbytes(BLOCK * chance.randint(1, 40))
        elif draw < 0.3:
            del content[chance.randrange(len(content) // BLOCK + 1) * BLOCK :]
        database.files[path] = bytes(content)
    if chance.random() < 0.5:
        database.files[b"base/%d.rel" % chance.randrange(1000)] = chance.randbytes(BLOCK * chance.randint(0, 99))
    if chance.random() < 0.3:
        del database.files[chance.choice(list(database.files))]


def some_files(seed: int) -> dict[bytes, bytes]:
    return {
        b"base/large.rel": noise(seed, 500 * BLOCK),
        b"base/1/small.rel": noise(seed + 1, BLOCK),
        b"base/1/none.rel": b"",
        b"conf": b"a = b\n",
        b"log/dump.stream": noise(seed + 2, 700_001),
        b"log/short.stream": b"few",
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_snapshot_of_a_row_stands_for_itself(seed: int) -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    database = Database(files=some_files(seed), chance=random.Random(seed))
    taken = []
    for round_ in range(7):
        kind: Effective = (
            "full"
            if round_ == 0
            else random.Random(seed * 100 + round_).choice(["incremental", "incremental", "differential", "full"])
        )
        manifest = take(repository, kind, database)
        assert manifest.status == "complete"
        assert manifest.snapshots[0].effective == kind
        taken.append((manifest, {**database.files, b"manifest": str(database.generation).encode()}))
        changed(database, random.Random(seed * 1000 + round_))
        repository = opened(storage)
    for manifest, files in taken:
        assert contents(in_repository(repository, snapshot_of(repository, manifest, "postgres"))) == files


def test_an_incremental_stores_little_more_than_what_changed() -> None:
    repository = new_repository()
    database = Database(files={b"large.rel": noise(1, 2000 * BLOCK)})
    first = take(repository, "full", database).statistics
    content = bytearray(database.files[b"large.rel"])
    for at in range(0, 2000, 20):
        content[at * BLOCK : (at + 1) * BLOCK] = noise(at, BLOCK)
    database.files[b"large.rel"] = bytes(content)
    second = take(repository, "incremental", database).statistics
    assert second.bytes_total == first.bytes_total
    assert second.bytes_read < 101 * BLOCK + 100
    assert 100 * BLOCK <= second.bytes_stored < 103 * BLOCK


def test_a_file_in_which_nothing_changed_is_listed_as_before() -> None:
    """Also a large one, whose extents are rows in chunks of their own: those are not written again."""
    repository = new_repository()
    many = noise(1, 65536 * (MAX_DIRECT_EXTENTS + 10))
    database = Database(files={b"few.rel": noise(2, 65536 * 9), b"many.rel": many, b"small": noise(3, BLOCK)})
    take(repository, "full", database)
    first = listed(repository, "full")
    database.files[b"few.rel"] = noise(4, BLOCK) + database.files[b"few.rel"][BLOCK:]
    take(repository, "incremental", database)
    second = listed(repository, "incremental")
    assert first[b"many.rel"] == second[b"many.rel"] and first[b"small"] == second[b"small"]
    assert first[b"few.rel"] != second[b"few.rel"]
    assert first[b"many.rel"][2] and not first[b"small"][2]
    database.files[b"many.rel"] = many[:-BLOCK]  # nothing came, and yet it is another file
    manifest = take(repository, "incremental", database)
    found = contents(in_repository(repository, snapshot_of(repository, manifest, "postgres")))
    assert found[b"many.rel"] == many[:-BLOCK] and found[b"few.rel"] == database.files[b"few.rel"]


def listed(repository: Repository, effective: Effective) -> dict[bytes, tuple[list[Extent], bytes, bool]]:
    """Of each file of the newest snapshot: the extents that its listing names, hash, and whether those are rows."""
    manifest = repository.readable_backups("")[0][0]
    snapshot = snapshot_of(repository, manifest, "postgres")
    assert snapshot.effective == effective
    return {
        name: (segment.extents(i), segment.content_hash(i), segment.extras.get(i, NOTHING_EXTRA).indirect)
        for segment in read_listing(repository.reader, snapshot.listing)
        for i, name in enumerate(segment.names)
    }


def test_an_earlier_snapshot_whose_extent_rows_are_lost_is_not_built_on() -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    many = noise(1, 65536 * (MAX_DIRECT_EXTENTS + 10))
    database = Database(files={b"many.rel": many})
    take(repository, "full", database)
    rows = listed(repository, "full")[b"many.rel"][0]
    listing = EarlierListing(
        repository.reader, snapshot_of(repository, repository.readable_backups("")[0][0], "postgres")
    )

    class Writer:
        def lacking(self, chunk_ids: set[bytes]) -> list[bytes]:
            return [one for one in chunk_ids if one == rows[0].chunk_id]

    assert listing.missing(Writer()) == rows[0].chunk_id  # type: ignore[arg-type]


def test_what_comes_unasked_becomes_a_full_one_with_its_reason() -> None:
    repository = new_repository()
    database = Database(files=some_files(1))
    take(repository, "full", database)
    database.refuses = "the summaries are gone"
    manifest = take(repository, "incremental", database)
    assert manifest.snapshots[0].effective == "full"
    assert manifest.snapshots[0].reason == "the summaries are gone"
    assert snapshot_of(repository, manifest, "postgres").parent is None


def test_the_newest_and_the_newest_full_one_are_built_on() -> None:
    repository = new_repository()
    database = Database(files=some_files(2))
    full = take(repository, "full", database).snapshots[0].snapshot_id
    increment = take(repository, "incremental", database).snapshots[0].snapshot_id
    take(repository, "differential", database)
    take(repository, "incremental", database)
    assert [earlier for _, earlier in database.asked[:3]] == [None, full, full]
    assert database.asked[3][1] not in {full, increment}
    assert database.asked[3][0] == "incremental"


def test_an_earlier_snapshot_that_lost_a_chunk_is_not_built_on() -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    database = Database(files=some_files(3))
    manifest = take(repository, "full", database)
    assert in_repository(repository, snapshot_of(repository, manifest, "postgres"))
    digest = next(key for key in storage.objects if key.startswith("packs/"))
    for key in [digest, *(key for key in storage.objects if key.startswith("index/"))]:
        del storage.objects[key]
    again = take(opened(storage), "incremental", database)
    assert again.snapshots[0].effective == "full"
    assert "can't be read" in again.snapshots[0].reason or "lacks the chunk" in again.snapshots[0].reason
    files = contents(in_repository(opened(storage), snapshot_of(opened(storage), again, "postgres")))
    assert files == {**database.files, b"manifest": b"2"}


@pytest.mark.parametrize("path", [b"base/large.rel", b"conf"])
def test_content_that_ends_early_never_counts(path: bytes) -> None:
    repository = new_repository()
    database = Database(files=some_files(4), short=path)
    heard = Heard()
    with pytest.raises(Exception, match="ended after") as failure:
        take(repository, "full", database, listener=heard)
    assert type(failure.value).__name__ == "BackupFailed"
    assert repository.readable_backups()[0] == []


def test_an_entry_may_come_once() -> None:
    class Twice(Database.Capture):
        def entries(self) -> Iterator[StreamedEntry]:
            yield from (StreamedEntry(b"a", FILE), StreamedEntry(b"a", FILE))

    database = Database(files={})
    database.Capture = Twice
    with pytest.raises(Exception, match="twice") as failure:
        take(new_repository(), "full", database)
    assert not isinstance(failure.value, SourceError)


@pytest.mark.parametrize("kind", ["incremental", "full"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_storage_may_fail_at_any_call(kind: Effective, after_effect: bool) -> None:
    base = MemoryStorage()
    database = Database(files=some_files(5))
    first = take(new_repository(base), "full", database)
    expected = {first.backup_id: {**database.files, b"manifest": b"1"}}
    changed(database, random.Random(5))
    known = dict(database.known)
    calls = 0
    while True:
        storage = copy_of(base)
        database.generation, database.known = 1, dict(known)
        faulty = FaultyStorage(storage, FailFrom(calls, after_effect=after_effect))
        try:
            ending(lambda over=faulty: take(opened(over), kind, database))
        except ChronoBackupsError:
            failed = True
            ending(lambda over=storage: take(opened(over), kind, database))
        else:
            failed = False
        manifests, damaged = opened(storage).readable_backups()
        assert not damaged
        assert len(manifests) >= 2
        for manifest in manifests:
            snapshot = snapshot_of(opened(storage), manifest, "postgres")
            now = {**database.files, b"manifest": str(snapshot.facts["generation"]).encode()}
            files = expected.get(manifest.backup_id, now)
            assert contents(in_repository(opened(storage), snapshot)) == files
        if faulty.unreached:
            break
        calls += 1
    assert not failed
    assert calls > 10
