"""The index against a dictionary; tables that are merged; chunks that are stored twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.errors import Damaged
from chrono_backups.pipeline.packing import PackedChunk
from chrono_backups.repository import index as index_module
from chrono_backups.repository.index import Index, IndexTable, Location, Pack, by_pack, encode_index


def identity(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def pack(number: int) -> Pack:
    return Pack(identity(-number - 1), hashlib.sha256(b"salt %d" % number).digest(), 1_000_000 + number)


def rows(numbers: list[int], start: int = 40) -> list[PackedChunk]:
    return [PackedChunk(identity(n), start + 100 * i, 90 + n % 10, 200 + n) for i, n in enumerate(numbers)]


Model = dict[bytes, set[Location]]
# Tables of packs of chunks; few numbers, so that chunks come several times.
TABLES = st.lists(st.lists(st.lists(st.integers(0, 60), max_size=12, unique=True), max_size=4), max_size=30)


def built(tables: list[list[list[int]]]) -> tuple[Index, Model]:
    index, model = Index(), defaultdict[bytes, set[Location]](set)
    number = 0
    for table in tables:
        packs = []
        for chunks in table:
            number += 1
            packs.append((pack(number), rows(chunks)))
            for row in packs[-1][1]:
                model[row.chunk_id].add(Location(pack(number), row.offset, row.sealed_size, row.content_size))
        index.add(IndexTable(encode_index(packs)))
    return index, dict(model)


@settings(max_examples=80, deadline=None)
@given(tables=TABLES, distrusted=st.sets(st.integers(1, 60)))
def test_it_answers_like_a_dictionary(tables: list[list[list[int]]], distrusted: set[int]) -> None:
    index, model = built(tables)
    without = {pack(number).digest for number in distrusted}
    for number in range(61):
        places = model.get(identity(number), set())
        assert set(index.find_all(identity(number))) == places
        found = index.find(identity(number))
        assert (found in places) if places else (found is None)
        trusted = {place for place in places if place.pack.digest not in without}
        found = index.find(identity(number), without)
        assert (found in trusted) if trusted else (found is None)
    everyone = {identity(number) for number in range(61)}
    assert set(index.lacking(everyone)) == everyone - set(model)
    assert set(index.lacking(everyone, without)) == {one for one in everyone if index.find(one, without) is None}
    listed: Model = defaultdict(set)
    for chunk_id, place in index.chunks():
        listed[chunk_id].add(place)
    assert dict(listed) == model
    named = {place.pack for places in model.values() for place in places}
    assert named <= set(index.packs().values())


@settings(max_examples=30, deadline=None)
@given(tables=TABLES)
def test_merging_loses_nothing_and_repeats_nothing(tables: list[list[list[int]]]) -> None:
    index, model = built([*tables, *tables])
    merged = index_module._merged(index._tables) if index._tables else IndexTable(encode_index([]))
    assert sorted(merged._keys) == list(merged._keys)
    found: Model = defaultdict(set)
    for chunk_id, place in merged.chunks():
        assert place not in found[chunk_id]
        found[chunk_id].add(place)
    by_digest = {digest: len(chunks) for digest, (_, chunks) in by_pack(merged.chunks()).items()}
    assert sum(by_digest.values()) == len(merged)
    assert {key: places for key, places in found.items() if places} == model or not tables


def test_many_small_tables_become_few_without_being_merged_over_and_over() -> None:
    merged: list[int] = []
    original = index_module._merged

    def counting(tables: list[IndexTable]) -> IndexTable:
        merged.append(sum(map(len, tables)))
        return original(tables)

    index_module._merged = counting  # type: ignore[assignment]
    try:
        index, _ = built([[[50 * n + i for i in range(50)]] for n in range(400)])
    finally:
        index_module._merged = original
    assert len(index) == 400 * 50
    assert len(index._tables) < 40
    assert sum(merged) < 5 * len(index)


def test_ids_that_agree_in_their_first_bytes_are_told_apart() -> None:
    alike = [b"\x01" * 8 + bytes([n]) * 24 for n in range(5)]
    chunks = [PackedChunk(chunk_id, 40 + n, 20, n) for n, chunk_id in enumerate(reversed(alike))]
    table = IndexTable(encode_index([(pack(1), chunks)]))
    for chunk in chunks:
        assert [place.offset for place in table.find(chunk.chunk_id)] == [chunk.offset]
    assert list(table.find(b"\x01" * 8 + b"x" * 24)) == []
    assert list(table.find(bytes(32))) == []
    assert list(table.find(b"\xff" * 32)) == []
    index = Index()
    index.add(table)
    strangers = [bytes(32), b"\x01" * 8 + b"x" * 24, b"\xff" * 32]
    assert sorted(index.lacking([*alike, *strangers])) == sorted(strangers)


def test_an_empty_table() -> None:
    table = IndexTable(encode_index([]))
    assert len(table) == 0
    assert list(table.find(bytes(32))) == []
    index = Index()
    index.add(table)
    assert index.find(bytes(32)) is None


def test_what_does_not_fit_is_damaged() -> None:
    content = bytes(encode_index([(pack(1), rows([1, 2, 3]))]))
    wrong = [content[:size] for size in (0, 4, 7, 8, 79, len(content) - 1)]
    wrong.append(content + b"x")
    outside = bytearray(content)
    outside[8 + 72 + 32 * 3] = 9  # a chunk in the tenth pack
    wrong.append(bytes(outside))
    for damaged in wrong:
        with pytest.raises(Damaged, match="index/x is no index") as raised:
            IndexTable(damaged, "index/x")
        assert raised.value.key == "index/x"


def test_a_table_takes_48_bytes_a_chunk() -> None:
    content = encode_index([(pack(1), rows(list(range(1000))))])
    assert len(content) == 8 + 72 + 48 * 1000


def test_the_largest_numbers_fit() -> None:
    most = 2**32 - 1
    table = IndexTable(
        encode_index([(Pack(bytes(32), bytes(32), 2**64 - 1), [PackedChunk(bytes(32), most, most, most)])])
    )
    assert list(table.find(bytes(32))) == [Location(Pack(bytes(32), bytes(32), 2**64 - 1), most, most, most)]
