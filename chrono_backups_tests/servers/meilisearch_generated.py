"""Documents of about a kilobyte, each known by its number, made quickly: text that compresses as text does."""

from __future__ import annotations

import random
from collections.abc import Iterator

_WORDS = [
    f"{'bcdfghklmnprst'[i % 14]}{'aeiou'[i % 5]}{'lmnrst'[i % 6]}{'aeiou'[i // 7 % 5]}{i % 97}" for i in range(3000)
]
_TEXT = " ".join(random.Random(11).choices(_WORDS, k=400_000))


def document(number: int, edition: int = 0) -> bytes:
    """A document as a server writes it: compact, about 1000 bytes."""
    at = (number * 2654435761 + edition * 40503) % (len(_TEXT) - 1000)
    digits = f"{(number * 6364136223846793005 + edition * 1442695040888963407 + 1) % 2**64:016x}"
    return (
        f'{{"id":{number},"title":"{_TEXT[at : at + 60]}","url":"https://example.org/{digits}/{number}",'
        f'"edition":{edition},"score":{number % 997 / 7:.4f},"digest":"{digits[::-1]}{number * 2654435761:016x}",'
        f'"body":"{_TEXT[at + 60 : at + 410]}{_TEXT[-at - 400 : -at - 1]}"}}'
    ).encode()


def documents(count: int, edition: int = 0) -> Iterator[bytes]:
    """The first ``count`` of them."""
    return (document(number, edition) for number in range(count))
