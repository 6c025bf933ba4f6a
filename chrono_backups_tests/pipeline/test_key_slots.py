"""Key slots: one key opens them, bound to one header, and nothing else does."""

from __future__ import annotations

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chrono_backups.pipeline.encryption import NotAuthentic
from chrono_backups.pipeline.key_slots import WrappedKey, encode_key, key_id, unwrap, wrap
from chrono_backups.pipeline.settings import key_bytes

OPERATOR = bytes(range(32))
MASTER = bytes(range(50, 82))
SALT = bytes(range(100, 132))
BOUND = b"header and name"


def test_round_trip() -> None:
    assert unwrap(OPERATOR, wrap(OPERATOR, MASTER, SALT, BOUND), BOUND) == MASTER


def test_the_construction_is_the_documented_one() -> None:
    wrapping = blake3(OPERATOR + SALT, derive_key_context="chrono_backups 2026 key slot").digest()
    expected = AESGCM(wrapping).encrypt(bytes(12), MASTER, BOUND)
    assert wrap(OPERATOR, MASTER, SALT, BOUND) == WrappedKey(SALT, expected)
    assert len(expected) == 48


def test_another_key_header_salt_or_byte_opens_nothing() -> None:
    slot = wrap(OPERATOR, MASTER, SALT, BOUND)
    attempts = [(bytes(32), slot, BOUND), (OPERATOR, slot, b"another header"), (OPERATOR, slot, BOUND + b"x")]
    attempts.append((OPERATOR, WrappedKey(bytes(32), slot.wrapped), BOUND))
    for position in range(48):
        flipped = bytearray(slot.wrapped)
        flipped[position] ^= 1
        attempts.append((OPERATOR, WrappedKey(SALT, bytes(flipped)), BOUND))
    for key, altered, bound in attempts:
        with pytest.raises(NotAuthentic):
            unwrap(key, altered, bound)


def test_two_slots_of_one_key_share_nothing() -> None:
    assert wrap(OPERATOR, MASTER, SALT, BOUND).wrapped != wrap(OPERATOR, MASTER, bytes(32), BOUND).wrapped


def test_the_key_id_is_golden_and_tells_nothing() -> None:
    assert key_id(OPERATOR) == "c182c41949dc6eea"
    assert key_id(OPERATOR) not in OPERATOR.hex()


def test_the_text_form_is_what_settings_read() -> None:
    assert len(encode_key(OPERATOR)) == 44
    assert key_bytes(encode_key(OPERATOR)) == OPERATOR
    assert key_bytes(encode_key(b"\xff" * 32)) == b"\xff" * 32
