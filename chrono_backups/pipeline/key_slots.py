"""Key slots: the master key wrapped under an operator's key (``docs/repository-format.md``, "Key slots").

An operator's key has 32 bytes. Its **key id** is 16 hexadecimal digits that are derived one-way from
it, so that a key finds its slot, and a wrong key can be told from a damaged slot, without trial. Each
slot wraps under a key of its own, derived from the operator's key and the slot's random salt, so no
key meets a nonce twice however often slots are added. The slot is bound to the repository's header:
a header that was altered opens no slot.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chrono_backups.pipeline.encryption import KEY_SIZE, NotAuthentic

SLOT_SALT_SIZE = 32
WRAPPED_SIZE = SLOT_SALT_SIZE + KEY_SIZE + 16
_NONCE = bytes(12)


@dataclass(frozen=True)
class WrappedKey:
    """A slot's content: 32 bytes of salt and 48 of wrapped master key."""

    salt: bytes
    wrapped: bytes


def key_id(operator_key: bytes) -> str:
    """The id by which an operator's key is spoken of; it tells nothing of the key."""
    return blake3(operator_key, derive_key_context="chrono_backups 2026 key id").hexdigest(8)


def _wrapping_key(operator_key: bytes, salt: bytes) -> bytes:
    return blake3(operator_key + salt, derive_key_context="chrono_backups 2026 key slot").digest()


def wrap(operator_key: bytes, master: bytes, salt: bytes, bound: bytes) -> WrappedKey:
    """Wrap ``master``; ``salt`` is 32 fresh random bytes, ``bound`` is authenticated with it."""
    wrapped = AESGCM(_wrapping_key(operator_key, salt)).encrypt(_NONCE, master, bound)
    return WrappedKey(salt, wrapped)


def unwrap(operator_key: bytes, slot: WrappedKey, bound: bytes) -> bytes:
    """The master key. Raises ``NotAuthentic`` where key, slot or ``bound`` is another."""
    try:
        return AESGCM(_wrapping_key(operator_key, slot.salt)).decrypt(_NONCE, slot.wrapped, bound)
    except InvalidTag as error:
        raise NotAuthentic("the key slot does not open") from error


def encode_key(operator_key: bytes) -> str:
    """The text form: URL-safe base64 of the 32 bytes, 44 characters."""
    return base64.urlsafe_b64encode(operator_key).decode()
