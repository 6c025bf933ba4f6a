"""Who asks a drilled Meilisearch what the operator's checks want to know."""

from __future__ import annotations

from urllib.parse import quote

from chrono_backups.errors import RestoreError
from chrono_backups.recovery.checks.judge import Ask
from chrono_backups.recovery.checks.syntax import Query
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
            if field not in document:
                raise RestoreError(f"the document {key} of {uid} has no field {field}")
            return document[field]
        if rest:
            chosen = {"filter": query.text.split(maxsplit=3)[3], "limit": 1}
            return server.send("POST", of_index(uid, "/documents/fetch"), chosen)["total"]
        return server.get(of_index(uid, "/stats"))["numberOfDocuments"]

    return ask
