"""Changed blocks over an earlier file, against the bytes themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.backup.overlay import lay_over
from chrono_backups.errors import SourceError
from chrono_backups.repository.listing import Extent
from chrono_backups.sources.base import Changes

BLOCK = 4


def content(extents: Sequence[Extent], chunks: dict[bytes, bytes]) -> bytes:
    found = b""
    for chunk_id, offset, length in extents:
        part = bytes(length) if chunk_id is None else chunks[chunk_id][offset : offset + length]
        assert len(part) == length
        found += part
    return found


@st.composite
def files(draw: st.DrawFn, name: bytes, size: int) -> tuple[list[Extent], dict[bytes, bytes]]:
    """Extents over random chunks, of which they use parts, and holes."""
    extents: list[Extent] = []
    chunks: dict[bytes, bytes] = {}
    at = 0
    while at < size:
        length = min(size - at, draw(st.integers(1, 9)))
        if draw(st.integers(0, 4)) == 0:
            extents.append(Extent(None, 0, length))
        else:
            offset = draw(st.integers(0, 3))
            chunk_id = name + len(chunks).to_bytes(2, "big")
            chunks[chunk_id] = draw(st.binary(min_size=offset + length, max_size=offset + length + 2))
            extents.append(Extent(chunk_id, offset, length))
        at += length
    return extents, chunks


@given(st.data())
def test_reads_as_the_changed_blocks_over_the_earlier_file(data: st.DataObject) -> None:
    old, old_chunks = data.draw(files(b"old", data.draw(st.integers(0, 10)) * BLOCK))
    blocks = sorted(data.draw(st.sets(st.integers(0, 14), max_size=8)))
    kept = data.draw(st.integers(0, 12)) * BLOCK
    size = max([kept, *((block + 1) * BLOCK for block in blocks)])
    new, new_chunks = data.draw(files(b"new", len(blocks) * BLOCK))

    merged = lay_over(old, Changes(BLOCK, blocks, size, kept), new)

    model = bytearray(size)
    old_bytes = content(old, old_chunks)[:kept]
    model[: len(old_bytes)] = old_bytes
    new_bytes = content(new, new_chunks)
    for i, block in enumerate(blocks):
        model[block * BLOCK : (block + 1) * BLOCK] = new_bytes[i * BLOCK : (i + 1) * BLOCK]
    assert content(merged, {**old_chunks, **new_chunks}) == model
    assert all(extent.length > 0 for extent in merged)


def test_neighbours_in_one_chunk_become_one_extent() -> None:
    old = [Extent(b"a", 0, 16)]
    assert lay_over(old, Changes(BLOCK, [], 16, 16), []) == old
    new = [Extent(b"n", 0, 12)]
    assert lay_over(old, Changes(BLOCK, [1, 2, 3], 20, 20), new) == [
        Extent(b"a", 0, 4),
        Extent(b"n", 0, 12),
        Extent(None, 0, 4),
    ]


def test_fewer_blocks_than_were_named_are_no_hole() -> None:
    with pytest.raises(SourceError, match="fewer changed blocks"):
        lay_over([Extent(b"a", 0, 16)], Changes(BLOCK, [1, 2], 16, 16), [Extent(b"n", 0, 4)])


def test_a_hole_of_the_earlier_file_joins_what_it_never_had() -> None:
    assert lay_over([Extent(b"a", 0, 4), Extent(None, 0, 4)], Changes(BLOCK, [], 16, 16), []) == [
        Extent(b"a", 0, 4),
        Extent(None, 0, 12),
    ]
