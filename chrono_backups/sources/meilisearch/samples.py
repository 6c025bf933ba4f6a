"""What a capture records of an index for a drill: digests of some documents, and a search with what it finds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from chrono_backups.sources.meilisearch.client import Meilisearch, of_index

_WORD = re.compile(r"[A-Za-z]{5,24}")


def digest(document: Mapping[str, Any]) -> str:
    """A document's digest, whatever the order of its fields; without its vectors."""
    return _digest({name: value for name, value in document.items() if name != "_vectors"})


def vectors_digest(document: Mapping[str, Any]) -> str | None:
    """The digest of a document's vectors; None where it has none."""
    vectors = document.get("_vectors")
    if not vectors:
        return None
    shown = {name: one.get("embeddings") if isinstance(one, dict) else one for name, one in vectors.items()}
    return _digest(shown)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sample(document: Mapping[str, Any], primary_key: str) -> dict[str, Any]:
    """What is recorded of a document."""
    return {
        "key": document.get(primary_key),
        "digest": digest(document),
        "vectors": vectors_digest(document),
    }


class Sampler:
    """Picks a few documents spread over an index, whose size is known about."""

    def __init__(self, primary_key: str, count: int, most: int) -> None:
        self._key = primary_key
        self._every = max(1, count // max(1, most))
        self._most = most
        self._seen = 0
        self.samples: list[dict[str, Any]] = []
        self.word = ""
        """A word of one of them, to be searched for."""

    def see(self, page: Sequence[tuple[bytes, Any]]) -> None:
        """A page of documents, in order."""
        first = -self._seen % self._every
        for at in range(first, len(page), self._every):
            if len(self.samples) >= self._most:
                break
            document = json.loads(page[at][0])
            self.samples.append(sample(document, self._key))
            if not self.word:
                self.word = _word(document)
        self._seen += len(page)


def _word(document: Mapping[str, Any]) -> str:
    for name, value in document.items():
        if isinstance(value, str) and not name.startswith("_") and "://" not in value:
            found = _WORD.search(value)
            if found is not None:
                return found[0]
    return ""


def search(server: Meilisearch, uid: str, word: str) -> int:
    """How many documents a search for the word finds."""
    found = server.send("POST", of_index(uid, "/search"), {"q": word, "limit": 1})
    return int(found.get("estimatedTotalHits", found.get("totalHits", 0)))
