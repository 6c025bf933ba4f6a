"""Who asks a drilled Meilisearch what the operator's checks want to know."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from chrono_backups.errors import RestoreError
from chrono_backups.recovery.checks.judge import Ask
from chrono_backups.recovery.checks.syntax import Query
from chrono_backups.recovery.meilisearch.content import BackedUp
from chrono_backups.recovery.meilisearch.indexes import BATCH
from chrono_backups.sources.meilisearch.client import Meilisearch, of_index
from chrono_backups.sources.meilisearch.samples import search


def ask_meilisearch(server: Meilisearch) -> Ask:
    """How many documents an index has, or a filter chooses; how many a search finds; a field of one document."""

    def ask(query: Query) -> object:
        verb, uid, *rest = query.text.split()
        if verb == "search":
            return search(server, uid, " ".join(rest))
        if verb == "document":
            key, field = rest
            document = server.get(of_index(uid, f"/documents/{quote(key, safe='')}"))
            return _field(document, key, uid, field)
        if rest:
            chosen = {"filter": query.text.split(maxsplit=3)[3], "limit": 1}
            return server.send("POST", of_index(uid, "/documents/fetch"), chosen)["total"]
        return server.get(of_index(uid, "/stats"))["numberOfDocuments"]

    return ask


def ask_stored(content: BackedUp) -> Ask:
    """What is stored says, where this machine has no server: of whole indexes and of single documents."""

    def ask(query: Query) -> object:
        verb, uid, *rest = query.text.split()
        index = content.indexes.get(uid)
        if index is None:
            raise RestoreError(f"the backup has no index {uid}")
        if verb == "documents" and not rest:
            return index.documents
        if verb == "document":
            key, field = rest
            for line in (line for batch in content.batches(uid, BATCH // 16) for line in batch.splitlines()):
                document = json.loads(line)
                if str(document.get(index.primary_key or "id")) == key:
                    return _field(document, key, uid, field)
            raise RestoreError(f"{uid} has no document {key}")
        raise RestoreError(f"{query} needs a server, and this machine has no meilisearch: set BACKUP_MEILISEARCH_BIN")

    return ask


def _field(document: Any, key: str, uid: str, path: str) -> object:
    """A field, or one within fields, by names with dots between them."""
    found = document
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            raise RestoreError(f"the document {key} of {uid} has no field {path}")
        found = found[name]
    return found
