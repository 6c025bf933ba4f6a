"""Listings: segments, their order, streams of them, and cursors beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.errors import Damaged
from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.repository.listing import (
    HASH_SIZE,
    Extent,
    Extra,
    Segment,
    decode_extents,
    encode_extents,
    encode_segment,
    order,
    segments,
)
from chrono_backups.repository.listings import ListingCursor, ListingWriter, content_extents, read_below, read_listing
from chrono_backups.repository.records import ListingChunk
from chrono_backups.repository.repository import Repository
from chrono_backups_tests.backup.taking import OPTIONS, new_repository

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)
IDS = st.binary(min_size=32, max_size=32).filter(any)
EXTENTS = st.builds(Extent, st.one_of(st.none(), IDS), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)).map(
    lambda extent: Extent(extent.chunk_id, 0 if extent.chunk_id is None else extent.offset, extent.length)
)
BYTES = st.binary(max_size=30)
EXTRAS = st.builds(
    Extra,
    link_target=st.one_of(st.none(), BYTES),
    hard_link=st.one_of(st.none(), BYTES),
    device=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    xattrs=st.dictionaries(BYTES, BYTES, max_size=3),
    indirect=st.booleans(),
).filter(bool)
U32, U64, I64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)


@st.composite
def entries(draw: Any) -> dict[str, Any]:
    names = sorted(draw(st.lists(NAMES, min_size=1, max_size=8, unique=True)))
    count = len(names)
    columns = [draw(st.lists(kind, min_size=count, max_size=count)) for kind in (U32, U32, U32, U64, I64, I64, U64)]
    return {
        "path": draw(st.binary(max_size=40).filter(lambda path: b"\0" not in path)),
        "names": names,
        "columns": columns,
        "hashes": draw(st.binary(min_size=HASH_SIZE * count, max_size=HASH_SIZE * count)),
        "extents": draw(st.lists(st.lists(EXTENTS, max_size=5), min_size=count, max_size=count)),
        "extras": draw(st.dictionaries(st.integers(0, count - 1), EXTRAS, max_size=count)),
    }


def encoded(one: dict[str, Any]) -> bytes:
    block = Attributes.build(one["names"], one["columns"]).encode()
    return encode_segment(one["path"], b"\0".join(one["names"]), block, one["hashes"], one["extents"], one["extras"])


@settings(max_examples=60, deadline=None)
@given(every=st.lists(entries(), min_size=1, max_size=3))
def test_round_trip(every: list[dict[str, Any]]) -> None:
    chunk = memoryview(b"".join(map(encoded, every)))
    found = list(segments(chunk))
    assert len(found) == len(every)
    for segment, one in zip(found, every, strict=True):
        count = len(one["names"])
        assert len(segment) == count
        assert segment.path == one["path"]
        assert segment.names == one["names"]
        columns = (segment.mode, segment.uid, segment.gid, segment.size, segment.mtime, segment.ctime, segment.inode)
        assert [list(column) for column in columns] == one["columns"]
        assert b"".join(segment.content_hash(i) for i in range(count)) == one["hashes"] == bytes(segment.hashes)
        assert [segment.extents(i) for i in range(count)] == one["extents"]
        assert dict(segment.extras) == one["extras"]
        named = {extent.chunk_id for row in one["extents"] for extent in row if extent.chunk_id is not None}
        assert set(segment.chunk_ids()) == named
        assert len(segment.chunk_ids()) == len(named)
        used = [(extent.chunk_id, extent.length) for row in one["extents"] for extent in row if extent.chunk_id]
        assert list(segment.chunk_uses()) == used
        assert bytes(segment.raw) == encoded(one)


@settings(max_examples=40, deadline=None)
@given(one=entries(), data=st.data())
def test_a_cut_or_stretched_segment_is_damaged(one: dict[str, Any], data: Any) -> None:
    raw = encoded(one)
    size = data.draw(st.integers(0, len(raw) - 1))
    if size:
        with pytest.raises(Damaged):
            list(segments(memoryview(raw[:size])))
    with pytest.raises(Damaged):
        Segment(memoryview(raw + b"x"))


@given(extents=st.lists(EXTENTS, max_size=20))
def test_extent_rows_round_trip(extents: list[Extent]) -> None:
    assert decode_extents(encode_extents(extents)) == extents
    assert len(encode_extents(extents)) == 44 * len(extents)


# Order.


def walked(tree: dict[bytes, Any], path: bytes = b"") -> Iterator[bytes]:
    """Directories as a walk meets them: names sorted, below a directory before what is beside it."""
    yield path
    for name in sorted(tree):
        yield from walked(tree[name], path + b"/" + name if path else name)


TREES: st.SearchStrategy[dict[bytes, Any]] = st.recursive(
    st.just({}), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=15
)


@settings(max_examples=80)
@given(tree=TREES)
def test_a_walk_goes_in_listing_order(tree: dict[bytes, Any]) -> None:
    paths = list(walked(tree))
    assert sorted(paths, key=order) == paths
    assert len({order(path) for path in paths}) == len(paths)


def test_what_lies_below_comes_before_what_sorts_behind() -> None:
    paths = [b"", b"a", b"a/b", b"a/b/c", b"a/b-", b"a\x01", b"a-b", b"a.b", b"ab", b"b"]
    assert sorted(paths, key=order) == paths


# Streams of segments.


def directory(path: bytes, names: int = 3, first: int = 0) -> bytes:
    numbers = range(first, first + names)
    every = [b"%06d" % number for number in numbers]
    columns = [list(numbers) for _ in range(7)]
    block = Attributes.build(every, columns).encode()
    return encode_segment(path, b"\0".join(every), block, bytes(16 * names), [[] for _ in every], {})


def stored(repository: Repository, content: list[tuple[bytes, bytes]]) -> tuple[ListingChunk, ...]:
    with repository.writer(OPTIONS) as writer:
        listing = ListingWriter(writer)
        for path, segment in content:
            listing.add(path, segment)
        found = listing.finish()
        writer.flush()
    return found


@pytest.fixture(scope="module")
def repository() -> Repository:
    return new_repository()


def tree_of(width: int) -> list[bytes]:
    return sorted(
        [
            b"",
            *(b"%02d" % a for a in range(width)),
            *(b"%02d/%02d" % (a, b) for a in range(width) for b in range(width)),
        ],
        key=order,
    )


def test_a_long_listing_comes_back_in_order(repository: Repository) -> None:
    paths = tree_of(25)
    chunks = stored(repository, [(path, directory(path, 40)) for path in paths])
    assert len(chunks) > 5
    assert [chunk.first_path for chunk in chunks] == sorted((c.first_path for c in chunks), key=order)
    assert [segment.path for segment in read_listing(repository.reader, chunks)] == paths


def test_the_same_directories_make_the_same_chunks_wherever_they_begin(repository: Repository) -> None:
    content = [(path, directory(path, 40)) for path in tree_of(25)]
    whole = {chunk.chunk_id for chunk in stored(repository, content)}
    changed = stored(repository, [(b"", directory(b"", 41)), *content[5:]])
    assert len({chunk.chunk_id for chunk in changed} - whole) <= 2


@pytest.mark.parametrize("start", [b"", b"07", b"07/13", b"07/131", b"0", b"99", b"24/24", b"12-"])
def test_reading_begins_where_it_is_told(repository: Repository, start: bytes) -> None:
    paths = tree_of(25)
    chunks = stored(repository, [(path, directory(path, 40)) for path in paths])
    expected = [path for path in paths if order(path) >= order(start)]
    assert [segment.path for segment in read_listing(repository.reader, chunks, start)] == expected
    below = [path for path in paths if not start or path == start or path.startswith(start + b"/")]
    assert [segment.path for segment in read_below(repository.reader, chunks, start)] == below


def test_a_directory_of_many_segments(repository: Repository) -> None:
    """Larger than a chunk: several chunks begin with the same path, and all of it is found."""
    content = [(b"a", directory(b"a", 10))]
    content += [(b"b", directory(b"b", 4000, 4000 * n)) for n in range(30)]
    content += [(b"b/c", directory(b"b/c", 1)), (b"b-", directory(b"b-", 1)), (b"c", directory(b"c", 1))]
    chunks = stored(repository, content)
    assert sum(chunk.first_path == b"b" for chunk in chunks) > 1
    found = list(read_below(repository.reader, chunks, b"b"))
    assert [segment.path for segment in found] == [b"b"] * 30 + [b"b/c"]
    assert [name for segment in found[:30] for name in segment.names] == [b"%06d" % n for n in range(120_000)]


def test_no_listing_chunk_outgrows_its_ceiling(repository: Repository) -> None:
    path = max((b"directory %d" % n for n in range(3000)), key=crc32)  # the last that would close a chunk
    chunks = stored(repository, [(path, directory(path, 700, 700 * n)) for n in range(150)])
    places = [repository.index.find(chunk.chunk_id) for chunk in chunks]
    assert 1 < len(chunks) < 20
    assert all(place is not None and place.content_size <= 2 * 2**20 for place in places)
    assert len(list(read_listing(repository.reader, chunks))) == 150


def test_an_empty_listing(repository: Repository) -> None:
    chunks = stored(repository, [])
    assert chunks == ()
    assert list(read_listing(repository.reader, chunks)) == []
    assert list(read_below(repository.reader, chunks, b"x")) == []


# Cursors.


def test_a_cursor_keeps_up_with_a_walk_that_has_more_and_less(repository: Repository) -> None:
    paths = [b"", b"a", b"a/b", b"a/b/c", b"a-b", b"d"]
    chunks = stored(repository, [(path, directory(path)) for path in paths])
    cursor = ListingCursor(read_listing(repository.reader, chunks))
    asked = [b"", b"0", b"a", b"a/a", b"a/b", b"a/b/c/new", b"a-b", b"c", b"d", b"e"]
    found = {path: [segment.path for segment in cursor.directory(path)] for path in asked}
    assert found == {path: [path] if path in paths else [] for path in asked}
    assert cursor.damage is None


def test_a_cursor_gives_a_directory_as_often_as_it_is_asked(repository: Repository) -> None:
    chunks = stored(repository, [(b"a", directory(b"a", 5)), (b"a", directory(b"a", 5, 5)), (b"b", directory(b"b"))])
    cursor = ListingCursor(read_listing(repository.reader, chunks))
    for _ in range(3):
        assert [len(segment) for segment in cursor.directory(b"a")] == [5, 5]
    assert len(cursor.directory(b"b")) == 1
    assert cursor.directory(b"c") == []


def test_a_cursor_ends_at_damage_and_says_so() -> None:
    def broken() -> Iterator[Segment]:
        yield Segment(memoryview(directory(b"a")))
        raise Damaged("packs/x is damaged", key="packs/x")

    cursor = ListingCursor(broken())
    assert len(cursor.directory(b"a")) == 1
    assert cursor.directory(b"b") == []
    assert cursor.damage is not None
    assert cursor.damage.key == "packs/x"


def test_content_extents_go_through_rows(repository: Repository) -> None:
    extents = [Extent(os.urandom(32), n, n + 1) if n % 3 else Extent(None, 0, 70_000) for n in range(2000)]
    with repository.writer(OPTIONS) as writer:
        stored_rows = []
        for start in range(0, 2000, 700):
            rows = encode_extents(extents[start : start + 700])
            stored_rows.append(Extent(writer.wait(writer.store_listing(rows))[0], 0, len(rows)))
        writer.flush()
    block = Attributes.build([b"a", b"b"], [[0, 0]] * 7).encode()
    raw = encode_segment(b"", b"a\0b", block, bytes(32), [stored_rows, extents[:5]], {0: Extra(indirect=True)})
    segment = Segment(memoryview(raw))
    assert list(content_extents(repository.reader, segment, 0)) == extents
    assert list(content_extents(repository.reader, segment, 1)) == extents[:5]
