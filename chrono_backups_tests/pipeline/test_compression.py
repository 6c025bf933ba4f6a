"""Compression round trips; nothing grows; nothing but what was compressed comes back."""

from __future__ import annotations

import hashlib
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.pipeline.compression import STORED, ZLIB, ZSTD, Compressor, Decompressor, NotDecodable, Type

NOISE = hashlib.shake_256(b"noise").digest(5 * 1024 * 1024)
TEXT = b"".join(b"line %d\n" % number for number in range(500_000))
AROUND = [0, 1, 2, 100, 4096, 262_143, 262_144, 262_145, 1_000_000, 4 * 1024 * 1024]
KINDS: list[Type] = ["zstd", "gzip", "none"]


def compressed(kind: Type, content: bytes, level: int | None = None) -> tuple[int, bytes]:
    out = bytearray(len(content) + 10)
    codec, size = Compressor(kind, level).compress_into(memoryview(content), memoryview(out))
    return codec, bytes(out[:size])


def decompressed(codec: int, data: bytes, size: int) -> bytes:
    return bytes(Decompressor().decompress(codec, memoryview(data), size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", AROUND)
@pytest.mark.parametrize("content", [NOISE, TEXT, bytes(5 * 1024 * 1024)], ids=["noise", "text", "zeros"])
def test_round_trip(kind: Type, size: int, content: bytes) -> None:
    content = content[:size]
    codec, data = compressed(kind, content)
    assert len(data) <= len(content)
    assert decompressed(codec, data, size) == content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", AROUND)
def test_what_does_not_shrink_is_stored_as_it_is(kind: Type, size: int) -> None:
    assert compressed(kind, NOISE[:size]) == (STORED, NOISE[:size])


@pytest.mark.parametrize(("kind", "codec"), [("zstd", ZSTD), ("gzip", ZLIB), ("none", STORED)])
@pytest.mark.parametrize("size", [5000, 300_000])
def test_the_codec_is_the_one_asked_for(kind: Type, codec: int, size: int) -> None:
    found, data = compressed(kind, TEXT[:size])
    assert found == codec
    assert (len(data) < size) is (kind != "none")


def test_codecs_are_the_public_formats() -> None:
    assert zlib.decompress(compressed("gzip", TEXT)[1]) == TEXT
    assert zstandard.ZstdDecompressor().decompressobj().decompress(compressed("zstd", TEXT)[1]) == TEXT
    assert zstandard.ZstdDecompressor().decompressobj().decompress(compressed("zstd", TEXT[:999])[1]) == TEXT[:999]


def test_a_level_counts() -> None:
    text = b"".join(b"%d %s\n" % (number * number % 9973, b"abcdefgh"[number % 7 :]) for number in range(40_000))
    assert len(compressed("zstd", text, 15)[1]) < len(compressed("zstd", text, 1)[1])
    assert len(compressed("gzip", text, 9)[1]) < len(compressed("gzip", text, 1)[1])


def test_one_compressor_serves_many_contents() -> None:
    compressor, decompressor = Compressor("zstd"), Decompressor()
    out = bytearray(len(TEXT))
    for content in (TEXT, NOISE[:300_000], TEXT[:400_000], b"", b"a" * 300_000, NOISE[:10], TEXT):
        codec, size = compressor.compress_into(memoryview(content), memoryview(out))
        assert bytes(decompressor.decompress(codec, memoryview(out)[:size], len(content))) == content


def test_barely_compressible_content() -> None:
    # A few repeated bytes in noise: what zstd saves must be more than what it adds.
    for repeated in range(0, 600, 40):
        content = NOISE[:400_000] + bytes(repeated)
        codec, data = compressed("zstd", content)
        assert len(data) <= len(content)
        assert decompressed(codec, data, len(content)) == content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [TEXT[:1000], TEXT[:500_000]], ids=["small", "large"])
@pytest.mark.parametrize("wrong", [-1, 1, 1000])
def test_a_wrong_size_is_an_error(kind: Type, content: bytes, wrong: int) -> None:
    codec, data = compressed(kind, content)
    with pytest.raises(NotDecodable):
        decompressed(codec, data, len(content) + wrong)


@pytest.mark.parametrize("codec", [ZSTD, ZLIB, 3, 255])
def test_garbage_is_an_error(codec: int) -> None:
    with pytest.raises(NotDecodable):
        decompressed(codec, NOISE[:1000], 1000)


@pytest.mark.parametrize("kind", ["zstd", "gzip"])
def test_cut_data_is_an_error(kind: Type) -> None:
    codec, data = compressed(kind, TEXT[:300_000])
    with pytest.raises(NotDecodable):
        decompressed(codec, data[: len(data) // 2], 300_000)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), parts=st.lists(st.binary(max_size=300), max_size=20), repeat=st.integers(1, 30))
def test_any_content(kind: Type, parts: list[bytes], repeat: int) -> None:
    content = b"".join(parts) * repeat
    codec, data = compressed(kind, content)
    assert len(data) <= len(content)
    assert decompressed(codec, data, len(content)) == content


def test_many_at_once_are_each_what_they_are_alone() -> None:
    wanted = [("zstd", TEXT[n * 1000 : n * 1000 + 70_000]) for n in range(5)]
    wanted += [("gzip", TEXT[:5000]), ("none", NOISE[:3000]), ("zstd", NOISE[:9000]), ("zstd", TEXT[:1])]
    wanted += [("zstd", TEXT[:90_000])] * 2
    frames = []
    for kind, content in wanted:
        codec, data = compressed(kind, content)  # type: ignore[arg-type]
        frames.append((codec, memoryview(data), len(content)))
    decompressor = Decompressor()
    for some in (frames, frames[:1], frames[5:7], [], frames * 3):
        found = [bytes(one) for one in decompressor.decompress_all(some)]  # type: ignore[arg-type]
        assert found == [decompressed(codec, bytes(data), size) for codec, data, size in some]


@pytest.mark.parametrize("bad", [0, 2, 4])
@pytest.mark.parametrize("how", ["cut", "noise", "too long", "too short", "codec"])
def test_one_that_does_not_decode_costs_itself_alone(bad: int, how: str) -> None:
    contents = [TEXT[n * 1000 : n * 1000 + 70_000] for n in range(5)]
    frames = [(ZSTD, memoryview(compressed("zstd", content)[1]), len(content)) for content in contents]
    codec, data, size = frames[bad]
    frames[bad] = {
        "cut": (codec, data[:-7], size),
        "noise": (codec, memoryview(NOISE)[: len(data)], size),
        "too long": (codec, data, size - 1),
        "too short": (codec, data, size + 1),
        "codec": (9, data, size),
    }[how]
    found = Decompressor().decompress_all(frames)
    assert isinstance(found[bad], NotDecodable)
    others = [n for n in range(5) if n != bad]
    assert [bytes(found[n]) for n in others] == [contents[n] for n in others]  # type: ignore[arg-type]
