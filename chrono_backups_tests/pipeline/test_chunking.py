"""Where streams are cut. The golden ends must never change: other cuts deduplicate with nothing stored before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.pipeline.chunking import (
    AVERAGE_CHUNK,
    BUNDLE_TARGET,
    MAX_CHUNK,
    MIN_CHUNK,
    ContentChunker,
    FixedChunker,
    closes_bundle,
)

MIB = 1024 * 1024
NOISE = hashlib.shake_256(b"chrono backups").digest(16 * MIB)
LOG = b"".join(b"%d: a line of a log that says little\n" % number for number in range(200_000))

GOLDEN_NOISE = [
    *(587922, 1320213, 1898027, 2433855, 3093175, 3735244, 4524085, 5173753, 5951445, 6908047, 7448296, 8015895),
    *(8613078, 9152768, 9700892, 10079547, 10826126, 11376870, 12264858, 12588734, 13141066, 13825140, 14836929),
    *(15660912, 16243791, 16777216),
]
GOLDEN_LOG = [630374, 1209503, 1841067, 2503577, 3309745, 4137738, 4887499, 5730340, 7550076, 8088890]

Chunker = ContentChunker | FixedChunker


def cut_in_windows(chunker: Chunker, content: bytes, window: int) -> list[int]:
    """The ends found when the content is presented ``window`` bytes at a time, what is uncut again each time."""
    ends: list[int] = []
    begun = 0
    shown = 0
    while True:
        shown = min(max(shown + window, begun + 1), len(content))
        last = shown == len(content)
        found = chunker.cut(memoryview(content)[begun:shown], last=last) if shown > begun else []
        ends += [begun + end for end in found]
        begun = ends[-1] if ends else 0
        if last:
            return ends


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (NOISE, GOLDEN_NOISE),
        (LOG, GOLDEN_LOG),
        (bytes(10 * MIB), [4 * MIB, 8 * MIB, 10 * MIB]),
        (b"x", [1]),
        (NOISE[:MIN_CHUNK], [MIN_CHUNK]),
    ],
    ids=["noise", "log", "zeros", "one byte", "least"],
)
def test_the_golden_cuts(content: bytes, ends: list[int]) -> None:
    assert list(ContentChunker().cut(memoryview(content), last=True)) == ends


def test_nothing_is_cut_into_nothing() -> None:
    assert list(ContentChunker().cut(memoryview(b""), last=True)) == []
    assert list(FixedChunker(4).cut(memoryview(b""), last=True)) == []


def test_chunks_keep_their_sizes() -> None:
    ends = [0, *ContentChunker().cut(memoryview(NOISE), last=True)]
    sizes = [end - start for start, end in pairwise(ends)]
    assert all(MIN_CHUNK <= size <= MAX_CHUNK for size in sizes[:-1])
    assert sizes[-1] <= MAX_CHUNK
    assert 0.7 * AVERAGE_CHUNK < sum(sizes) / len(sizes) < 1.6 * AVERAGE_CHUNK


@pytest.mark.parametrize("window", [1, 4096, 300_000, MIB, 4 * MIB - 1, 4 * MIB, 8 * MIB, 100 * MIB])
def test_windows_cut_as_one(window: int) -> None:
    content = NOISE[: 5 * MIB] + bytes(9 * MIB) + LOG[:MIB]
    step = max(window, 200_001)  # a window a byte larger each time would take all day
    whole = list(ContentChunker().cut(memoryview(content), last=True))
    assert cut_in_windows(ContentChunker(), content, step) == whole


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 8 * MIB), size=st.integers(0, 7 * MIB), window=st.integers(100_000, 9 * MIB))
def test_any_windows_cut_as_one(start: int, size: int, window: int) -> None:
    content = NOISE[start : start + size]
    whole = list(ContentChunker().cut(memoryview(content), last=True))
    assert cut_in_windows(ContentChunker(), content, window) == whole


def test_an_insertion_moves_only_the_cuts_near_it() -> None:
    changed = NOISE[:5_000_000] + b"inserted" + NOISE[5_000_000:]

    def chunks(content: bytes) -> set[bytes]:
        ends = [0, *ContentChunker().cut(memoryview(content), last=True)]
        return {content[start:end] for start, end in pairwise(ends)}

    assert len(chunks(changed) - chunks(NOISE)) <= 3


def test_fixed_blocks_are_aligned() -> None:
    chunker = FixedChunker(8192)
    assert list(chunker.cut(memoryview(bytes(20_000)), last=True)) == [8192, 16384, 20_000]
    assert list(chunker.cut(memoryview(bytes(20_000)), last=False)) == [8192, 16384]
    assert list(chunker.cut(memoryview(bytes(16_384)), last=False)) == [8192, 16384]
    assert list(chunker.cut(memoryview(bytes(16_384)), last=True)) == [8192, 16384]


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 100_000), block=st.integers(1, 9000), window=st.integers(1, 50_000))
def test_fixed_windows_cut_as_one(size: int, block: int, window: int) -> None:
    content = bytes(size)
    whole = [*range(block, size + 1, block)]
    whole += [size] if size % block else []
    assert cut_in_windows(FixedChunker(block), content, max(window, 1000)) == whole


@pytest.mark.parametrize("size", [0, -1, MAX_CHUNK + 1])
def test_no_block_of_an_impossible_size(size: int) -> None:
    with pytest.raises(ValueError, match="a block has"):
        FixedChunker(size)


def draw(value: int) -> bytes:
    return value.to_bytes(4, "little") + bytes(12)


@pytest.mark.parametrize(
    ("bundle", "file", "content_hash", "closes"),
    [
        (BUNDLE_TARGET // 2 - 1, 1000, draw(0), False),  # too small, whatever the draw
        (BUNDLE_TARGET // 2, 1000, draw(0), True),
        (BUNDLE_TARGET // 2, 1000, draw(0xFFFFFFFF), False),
        (2 * BUNDLE_TARGET - 1, 1, draw(0xFFFFFFFF), False),
        (2 * BUNDLE_TARGET, 1, draw(0xFFFFFFFF), True),  # too large, whatever the draw
        (BUNDLE_TARGET, BUNDLE_TARGET // 4, draw(2**31 - 1), True),  # half a chance: its share of half a target
        (BUNDLE_TARGET, BUNDLE_TARGET // 4, draw(2**31), False),
    ],
)
def test_when_a_bundle_closes(bundle: int, file: int, content_hash: bytes, closes: bool) -> None:
    assert closes_bundle(bundle, file, content_hash) is closes


@pytest.mark.parametrize("size_of", [lambda n: 100, lambda n: 20_000, lambda n: 200_000], ids=["100", "20k", "200k"])
def test_bundles_are_about_their_target_for_files_of_any_size(size_of: Callable[[int], int]) -> None:
    sizes: list[int] = []
    bundle = 0
    for number in range(int(60 * BUNDLE_TARGET / size_of(0))):
        bundle += size_of(number)
        if closes_bundle(bundle, size_of(number), hashlib.sha256(b"%d" % number).digest()):
            sizes.append(bundle)
            bundle = 0
    assert 0.7 * BUNDLE_TARGET < sum(sizes) / len(sizes) < 1.4 * BUNDLE_TARGET
