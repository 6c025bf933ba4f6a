"""Which keys a server is known by: OpenSSH's known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT")."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["trusted", "changed", "revoked", "unknown"]

_DEFAULT_PORT = 22


@dataclass(frozen=True)
class HostKeys:
    """The keys that a server is known by, in the order of the file, and those it must not show any more."""

    trusted: tuple[bytes, ...]
    revoked: frozenset[bytes]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types of the trusted keys (``ssh-ed25519``), each once: what to ask the server for first."""
        return tuple(dict.fromkeys(kind_of(key) for key in self.trusted))

    def judge(self, key: bytes) -> Verdict:
        """``changed``: the server is known by another key of the same type."""
        if key in self.revoked:
            return "revoked"
        if key in self.trusted:
            return "trusted"
        return "changed" if kind_of(key) in self.kinds else "unknown"


def known_as(host: str, port: int) -> str:
    """The server's name in the file: the port is part of it where it is not SSH's own."""
    return host.lower() if port == _DEFAULT_PORT else f"[{host.lower()}]:{port}"


def find_host_keys(text: str, host: str, port: int) -> HostKeys:
    """What a file's text says of the server. Lines that make no sense are passed over, as ssh does.

    Authorities of host certificates (``@cert-authority``) are not made use of.
    """
    name = known_as(host, port)
    trusted, revoked = [], set()
    for marker, patterns, key in _lines(text):
        if not _names(patterns, name):
            continue
        if marker == "@revoked":
            revoked.add(key)
        elif marker == "":
            trusted.append(key)
    return HostKeys(tuple(trusted), frozenset(revoked))


def kind_of(key: bytes) -> str:
    """The type that a public key says of itself (RFC 4253, section 6.6); "" where it is none."""
    length = int.from_bytes(key[:4], "big")
    return key[4 : 4 + length].decode("ascii", "replace") if 4 + length <= len(key) else ""


def fingerprint(key: bytes) -> str:
    """As ``ssh-keygen -l`` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _lines(text: str) -> Iterator[tuple[str, str, bytes]]:
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        if kind_of(key) == words[1]:
            yield marker, words[0], key


def _names(patterns: str, name: str) -> bool:
    """A pattern that begins with ``!`` and fits rules the line out, whatever the others say."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            found = found or _is_hash_of(pattern, name)
        elif _fits(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _fits(pattern: str, name: str) -> bool:
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(char) or re.escape(char) for char in pattern.lower()), name) is not None


def _is_hash_of(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern.split("|")[2:])
    except (binascii.Error, ValueError):
        return False
    # SHA-1 is the format's; it hides names from those who read the file, and guards no key.
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)
