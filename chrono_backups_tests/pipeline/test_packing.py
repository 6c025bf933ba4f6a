"""Packs: chunks and their directory, found again from the end."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.pipeline.encryption import HEADER_SIZE, TAG_SIZE, Keys, NotAuthentic
from chrono_backups.pipeline.packing import (
    FRAME_OVERHEAD,
    ROW,
    TRAILER,
    PackBuilder,
    directory_size,
    pack_digest,
    read_directory,
)

KEYS = Keys("AES-256-GCM", bytes(range(32)), bytes(range(16)))
SALT = bytes(range(100, 132))


def identity(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def pack_of(contents: list[bytes], room: int = 1_000_000) -> tuple[bytes, bytes, PackBuilder]:
    builder = PackBuilder(bytearray(room))
    builder.start(KEYS.sealer("pack", SALT))
    for number, content in enumerate(contents):
        builder.add(identity(number), memoryview(b"\0" + content), len(content))
    digest, data = builder.finish()
    return digest, bytes(data), builder


@settings(max_examples=40, deadline=None)
@given(contents=st.lists(st.binary(max_size=2000), max_size=30))
def test_everything_is_found_from_the_end(contents: list[bytes]) -> None:
    digest, data, builder = pack_of(contents)
    assert digest == blake3(data).digest() == pack_digest(data)
    size = directory_size(data[-TRAILER.size :])
    start = len(data) - TRAILER.size - size
    rows = read_directory(KEYS, data[:HEADER_SIZE], memoryview(data)[start : start + size], start)
    assert rows == list(builder.chunks)
    opened = KEYS.opener("pack", data[:HEADER_SIZE])
    for number, (row, content) in enumerate(zip(rows, contents, strict=True)):
        assert row.chunk_id == identity(number)
        assert row.content_size == len(content)
        frame = data[row.offset : row.offset + row.sealed_size]
        assert opened.open(row.offset, row.chunk_id, frame) == b"\0" + content


def test_fits_is_exact() -> None:
    """Whatever fits leaves room for the directory; a byte less of buffer, and it does not fit."""
    content = bytes(1000)
    whole = HEADER_SIZE + 2 * (len(content) + FRAME_OVERHEAD + ROW.size) + TAG_SIZE + TRAILER.size
    for room, fits in ((whole, True), (whole - 1, False)):
        builder = PackBuilder(bytearray(room))
        builder.start(KEYS.sealer("pack", SALT))
        builder.add(identity(0), memoryview(b"\0" + content), len(content))
        assert builder.fits(len(content)) is fits
    _, data, _ = pack_of([content, content], whole)
    assert len(data) == whole


def test_a_pack_that_is_too_full_is_refused_not_overrun() -> None:
    builder = PackBuilder(bytearray(500))
    builder.start(KEYS.sealer("pack", SALT))
    with pytest.raises(ValueError):
        builder.add(identity(0), memoryview(bytes(1000)), 999)


def test_a_buffer_is_used_again() -> None:
    buffer = bytearray(100_000)
    builder = PackBuilder(buffer)
    found = []
    for number in range(3):
        builder.start(KEYS.sealer("pack", bytes([number]) * 32))
        builder.add(identity(number), memoryview(b"\0content"), 7)
        digest, data = builder.finish()
        found.append((digest, bytes(data), builder.chunks))
    for number, (digest, stored, rows) in enumerate(found):
        assert digest == blake3(stored).digest() == pack_digest(stored)
        opened = KEYS.opener("pack", stored[:HEADER_SIZE])
        assert rows[0].chunk_id == identity(number)
        assert opened.open(40, identity(number), stored[40 : 40 + rows[0].sealed_size]) == b"\0content"


def test_every_damage_of_directory_and_trailer_is_noticed() -> None:
    _, data, _ = pack_of([b"one", b"two"])
    size = directory_size(data[-TRAILER.size :])
    start = len(data) - TRAILER.size - size

    def opened(stored: bytes) -> object:
        found = directory_size(stored[-TRAILER.size :])
        begin = len(stored) - TRAILER.size - found
        if begin < HEADER_SIZE:
            raise NotAuthentic("larger than the pack")
        sealed = memoryview(stored)[begin : begin + found]
        return read_directory(KEYS, stored[:HEADER_SIZE], sealed, begin)

    opened(data)
    for position in [*range(HEADER_SIZE), *range(start, len(data))]:
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        with pytest.raises(NotAuthentic):
            opened(bytes(flipped))


@pytest.mark.parametrize("trailer", [bytes(8), TRAILER.pack(15, b"CBPD"), TRAILER.pack(17, b"CBPD")])
def test_no_trailer_of_a_pack(trailer: bytes) -> None:
    with pytest.raises(NotAuthentic, match="not that of a pack"):
        directory_size(trailer)
