"""A page of documents taken apart without being written anew: each document's own bytes.

The server writes a document compactly and always the same way, so that its bytes are kept as they are: they are what
tells whether it changed. Parsing is needed to find where it ends, and costs about five microseconds a kilobyte; what is
parsed is let go at once, or the collector of garbage would go through it. (A parser of another library would not pay:
two thirds of a capture's time go elsewhere.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chrono_backups.errors import SourceError

_START = '{"results":['
_NO_VECTORS = b',"_vectors":{}}'
_decode = json.JSONDecoder().raw_decode

Document = tuple[bytes, Any]
"""A document's bytes, and its key."""


def documents(page: bytes, primary_key: str) -> Iterator[Document]:
    """The page's documents in order. Raises ``SourceError`` where it is not such a page."""
    text = page.decode()
    if not text.startswith(_START):
        yield from _rewritten(text, primary_key)
        return
    plain = len(text) == len(page)
    at = len(_START)
    try:
        if text[at] == "]":
            return
        while True:
            found, end = _decode(text, at)
            raw = page[at:end] if plain else text[at:end].encode()
            if raw.endswith(_NO_VECTORS):
                raw = raw[: -len(_NO_VECTORS)] + b"}"
            yield raw, found.get(primary_key)
            if text[end] == "]":
                return
            if text[end] != ",":
                raise ValueError(f"{text[end]!r} between documents")
            at = end + 1
    except (ValueError, IndexError) as error:
        raise _no_page(error) from error


def _rewritten(text: str, primary_key: str) -> Iterator[Document]:
    """Of a server that writes its answers another way: each document is written anew, the same way each time."""
    try:
        results = json.loads(text)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_page(error) from error
    for found in results:
        kept = {name: value for name, value in found.items() if name != "_vectors" or value}
        yield json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode(), found.get(primary_key)


def _no_page(error: Exception) -> SourceError:
    return SourceError(f"the server's answer is no page of documents: {error}", source="meilisearch")
