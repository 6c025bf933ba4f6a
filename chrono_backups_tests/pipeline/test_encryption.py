"""Sealing: what comes back is what went in, or nothing comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.pipeline.encryption import (
    HEADER_SIZE,
    KINDS,
    TAG_SIZE,
    Algorithm,
    Keys,
    Kind,
    NotAuthentic,
)
from chrono_backups.pipeline.packing import PackBuilder

MASTER = bytes(range(32))
REPOSITORY = bytes(range(16))
SALT = bytes(range(100, 132))
ALGORITHMS: list[Algorithm] = ["AES-256-GCM", "CHACHA20-POLY1305", "none"]


def keys_of(algorithm: Algorithm, master: bytes = MASTER, repository: bytes = REPOSITORY) -> Keys:
    return Keys(algorithm, master, repository)


def sealed(keys: Keys, kind: Kind, offset: int, name: bytes, content: bytes, salt: bytes = SALT) -> tuple[bytes, bytes]:
    sealer = keys.sealer(kind, salt)
    out = bytearray(len(content) + TAG_SIZE)
    assert sealer.seal_into(offset, name, content, memoryview(out)) == len(out)
    return sealer.header, bytes(out)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("content", [b"", b"a content of some length", b"content" * 10_000])
def test_round_trip(algorithm: Algorithm, content: bytes) -> None:
    keys = keys_of(algorithm)
    header, frame = sealed(keys, "pack", 40, b"name", content)
    assert keys.opener("pack", header).open(40, b"name", frame) == content
    assert (content in frame) is (algorithm == "none" or not content)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_flipped_byte_is_noticed(algorithm: Algorithm) -> None:
    keys = keys_of(algorithm)
    header, frame = sealed(keys, "index", 40, b"name", b"the content of a frame")
    stored = header + frame
    for position in range(len(stored)):
        for mask in (0x01, 0x80):
            flipped = bytearray(stored)
            flipped[position] ^= mask
            with pytest.raises(NotAuthentic):
                keys.opener("index", bytes(flipped[:HEADER_SIZE])).open(40, b"name", flipped[HEADER_SIZE:])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cut_frame_is_noticed(algorithm: Algorithm) -> None:
    keys = keys_of(algorithm)
    header, frame = sealed(keys, "index", 40, b"name", b"the content of a frame")
    for size in range(len(frame)):
        with pytest.raises(NotAuthentic):
            keys.opener("index", header).open(40, b"name", frame[:size])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_frame_is_bound_to_its_place(algorithm: Algorithm) -> None:
    keys = keys_of(algorithm)
    header, frame = sealed(keys, "pack", 40, b"name", b"content")
    other_header, _ = sealed(keys, "pack", 40, b"name", b"content", bytes(32))
    of_index, _ = sealed(keys, "index", 40, b"name", b"content")
    opened = keys.opener("pack", header)
    wrong: list[Callable[[], object]] = [
        lambda: opened.open(41, b"name", frame),
        lambda: opened.open(40, b"nam", frame),
        lambda: opened.open(40, b"name2", frame),
        lambda: opened.open(40, b"", frame),
        lambda: keys.opener("pack", other_header).open(40, b"name", frame),
        lambda: keys.opener("index", of_index).open(40, b"name", frame),
        lambda: keys.opener("index", header),
        lambda: keys_of(algorithm, repository=bytes(16)).opener("pack", header).open(40, b"name", frame),
        lambda: keys_of(algorithm, master=bytes(32)).opener("pack", header).open(40, b"name", frame),
    ]
    for attempt in wrong:
        with pytest.raises(NotAuthentic):
            attempt()


def test_ciphers_do_not_open_each_other() -> None:
    for algorithm in ALGORITHMS:
        header, frame = sealed(keys_of(algorithm), "pack", 40, b"name", b"content")
        for other in ALGORITHMS:
            if other != algorithm:
                with pytest.raises(NotAuthentic):
                    keys_of(other).opener("pack", header).open(40, b"name", frame)


def header_of(kind: Kind, salt: bytes = SALT) -> bytes:
    return b"CBOX" + bytes((1, KINDS[kind], 0, 0)) + salt


@pytest.mark.parametrize(
    ("algorithm", "cipher", "frame"),
    [
        ("AES-256-GCM", AESGCM, "701ecfae2c6d2a35b687c9db705966063e6ca0"),
        ("CHACHA20-POLY1305", ChaCha20Poly1305, "8e23fbf3d42ebe6fb13a3fc3bb45b99bff1ca2"),
    ],
)
def test_the_construction_is_the_documented_one(algorithm: Algorithm, cipher: Any, frame: str) -> None:
    """Derived here anew from ``docs/repository-format.md``, "Sealing"; and the golden bytes of today."""
    salt = bytes(32)
    header = header_of("pack", salt)
    kind_key = blake3(MASTER, derive_key_context="chrono_backups 2026 objects of kind pack").digest()
    object_key = blake3(header, key=kind_key).digest()
    nonce = bytes(8) + (40).to_bytes(4, "big")
    expected = cipher(object_key).encrypt(nonce, b"abc", header + REPOSITORY + b"n")
    assert sealed(keys_of(algorithm), "pack", 40, b"n", b"abc", salt) == (header, expected)
    assert expected.hex() == frame


def test_the_plain_construction_is_the_documented_one() -> None:
    salt = bytes(32)
    header = header_of("pack", salt)
    master = REPOSITORY * 2
    kind_key = blake3(master, derive_key_context="chrono_backups 2026 objects of kind pack").digest()
    object_key = blake3(header, key=kind_key).digest()
    associated = header + REPOSITORY + b"n"
    nonce = (40).to_bytes(12, "big")
    checked = nonce + len(associated).to_bytes(4, "big") + associated + b"abc"
    expected = b"abc" + blake3(checked, key=object_key).digest(16)
    assert sealed(keys_of("none", master), "pack", 40, b"n", b"abc", salt) == (header, expected)
    assert expected.hex() == "616263a13491ebe66b0aefc3304649c3d9499e"


def test_chunk_ids_are_keyed_and_golden() -> None:
    keys = keys_of("AES-256-GCM")
    ids_key = blake3(MASTER, derive_key_context="chrono_backups 2026 chunk ids").digest()
    assert keys.chunk_id(b"abc") == blake3(b"abc", key=ids_key).digest()
    assert keys.chunk_id(b"abc").hex() == "eb3aa5680187709e03c5364ecb3a08d5e0e169957d5101febb8466b24c8a4abb"
    assert keys.content_hash(b"abc") == keys.chunk_id(b"abc")[:16]
    assert keys.chunk_id(b"abc") != keys_of("AES-256-GCM", bytes(32)).chunk_id(b"abc")


def test_blake3_is_the_published_one() -> None:
    """Vectors of the reference's ``test_vectors.json``: three bytes, its published key and context."""
    message = bytes(range(3))
    key = b"whats the Elvish word for friend"
    context = "BLAKE3 2019-12-27 16:29:52 test vectors context"
    assert blake3(message).hexdigest() == "e1be4d7a8ab5560aa4199eea339849ba8e293d55ca0a81006726d184519e647f"
    keyed = "39e67b76b5a007d4921969779fe666da67b5213b096084ab674742f0d5ec62b9"
    assert blake3(message, key=key).hexdigest() == keyed
    derived = "440aba35cb006b61fc17c0529255de438efc06a8c9ebf3f2ddac3b5a86705797"
    assert blake3(message, derive_key_context=context).hexdigest() == derived


def test_kinds_have_keys_of_their_own() -> None:
    keys = keys_of("AES-256-GCM")
    frames = {sealed(keys, kind, 40, b"name", bytes(64))[1] for kind in KINDS}
    assert len(frames) == len(KINDS)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_master_key_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        keys_of("AES-256-GCM", bytes(size))


def test_no_key_in_repr() -> None:
    keys = keys_of("AES-256-GCM")
    assert MASTER.hex() not in repr(keys) + repr(vars(keys)["_ids"])
    assert REPOSITORY.hex() in repr(keys)


class _Recording:
    """A sealer that notes the nonces (offsets) it is given."""

    def __init__(self, keys: Keys) -> None:
        self._sealer = keys.sealer("pack", SALT)
        self.header = self._sealer.header
        self.frames: list[tuple[int, int]] = []

    def seal_into(self, offset: int, name: bytes, data: Any, out: memoryview) -> int:
        size = self._sealer.seal_into(offset, name, data, out)
        self.frames.append((offset, size))
        return size


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), max_size=40))
def test_no_nonce_comes_twice_within_an_object(sizes: list[int]) -> None:
    """Nonces are offsets: as long as frames do not overlap, none repeats."""
    recording = _Recording(keys_of("AES-256-GCM"))
    builder = PackBuilder(bytearray(400_000))
    builder.start(recording)  # type: ignore[arg-type]
    for number, size in enumerate(sizes):
        if builder.fits(size + 1):
            chunk_id = hashlib.sha256(b"%d" % number).digest()
            builder.add(chunk_id, memoryview(bytes(size + 1)), size)
    builder.finish()
    end = HEADER_SIZE
    for offset, size in recording.frames:
        assert offset == end
        end = offset + size
    assert len({offset for offset, _ in recording.frames}) == len(recording.frames)
