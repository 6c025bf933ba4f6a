"""What a Meilisearch server says of its configuration: what is set on it, and each index's settings."""

from __future__ import annotations

from collections.abc import Mapping

from chrono_backups.clock import Clock
from chrono_backups.events import Listener
from chrono_backups.sources.meilisearch.client import Meilisearch, Server
from chrono_backups.sources.meilisearch.server_state import (
    as_json,
    index_settings,
    masked_in,
    server_state,
    tell_hidden,
)
from chrono_backups.sources.settings import MeilisearchSettings


def server_settings(settings: MeilisearchSettings, clock: Clock, listener: Listener) -> Mapping[str, bytes]:
    """Name of a file → its content. Raises ``SourceError`` where the server does not answer."""
    with Meilisearch(Server.of(settings), clock) as server:
        found = {name.replace("/", "-"): content for name, content in server_state(server, listener).files().items()}
        indexes = list(server.pages("/indexes"))
        described = {one["uid"]: {"primaryKey": one["primaryKey"]} for one in indexes}
        hidden = []
        for uid, shown in described.items():
            shown["settings"] = index_settings(server, uid)
            if masked_in(shown["settings"].get("embedders")):
                hidden.append(f"embedders of {uid}")
        tell_hidden(hidden, listener)
        found["indexes.json"] = as_json(described)
        return found
