"""What a Meilisearch server tells at a glance, whatever its size."""

from __future__ import annotations

from dataclasses import dataclass

from chrono_backups.clock import Clock
from chrono_backups.sources.meilisearch.client import Meilisearch, Server
from chrono_backups.sources.meilisearch.server_state import version_of
from chrono_backups.sources.meilisearch.tasks import boundary
from chrono_backups.sources.settings import MeilisearchSettings

_ATTEMPTS = 2


@dataclass(frozen=True)
class SeenIndex:
    """One index."""

    uid: str
    documents: int
    indexing: bool


@dataclass(frozen=True)
class SeenServer:
    """A server at a moment. ``size``: bytes of its database; ``last_task``: the newest task's uid, -1 before any."""

    version: str
    indexes: tuple[SeenIndex, ...]
    size: int
    last_task: int
    unfinished: int


def see(settings: MeilisearchSettings, clock: Clock) -> SeenServer:
    """Look at the server. Raises ``SourceError``."""
    with Meilisearch(Server.of(settings), clock, attempts=_ATTEMPTS) as server:
        stats = server.get("/stats")
        queue = boundary(server)
        indexes = tuple(
            SeenIndex(uid, int(one.get("numberOfDocuments", 0)), bool(one.get("isIndexing")))
            for uid, one in sorted(stats["indexes"].items())
        )
        size = int(stats.get("databaseSize") or 0)
        return SeenServer(version_of(server), indexes, size, queue.last, len(queue.unfinished))
