"""What would keep a Meilisearch server's backups from being good. Changes nothing."""

from __future__ import annotations

from chrono_backups.clock import Clock
from chrono_backups.errors import SourceError, SourceRefused, SourceUnavailable
from chrono_backups.events import Finding
from chrono_backups.sources.meilisearch.client import Meilisearch, Server, of_index
from chrono_backups.sources.meilisearch.server_state import version_of
from chrono_backups.sources.settings import MeilisearchSettings

OLDEST = (1, 8)
"""The first version that gives out vectors, and so the oldest of which all can be had."""
_ATTEMPTS = 2


def probe(settings: MeilisearchSettings, clock: Clock) -> list[Finding]:
    """Every finding about the server, the key and the mounted folder. Raises nothing."""
    found = list(_mounted(settings))
    try:
        with Meilisearch(Server.of(settings), clock, attempts=_ATTEMPTS) as server:
            found += _server(server)
    except SourceError as error:
        found.append(Finding(_code(error), "error", "meilisearch", error.message, error.hint))
    return found


def _code(error: SourceError) -> str:
    if isinstance(error, SourceUnavailable):
        return "meilisearch-unavailable"
    code = error.code if isinstance(error, SourceRefused) else ""
    return f"meilisearch-{code.replace('_', '-')}" if code else "meilisearch-refused"


def _server(server: Meilisearch) -> list[Finding]:
    found = []
    version = version_of(server)
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        message = f"Meilisearch {version} does not give out vectors: {'.'.join(map(str, OLDEST))} or later does"
        found.append(Finding("meilisearch-too-old", "error", "meilisearch", message, "Update the server."))
    try:
        next(server.pages("/keys"), None)
    except SourceRefused as error:
        what = "without a master key, anybody who reaches it may do everything"
        if error.code != "missing_master_key":
            what = "and the key may not see the keys, so that backups are without them"
        found.append(Finding("meilisearch-keys-not-seen", "warning", "meilisearch", f"it runs {what}", error.hint))
    stats = server.get("/stats")
    indexes = stats["indexes"]
    server.get("/tasks", limit=1)
    if indexes:
        uid = next(iter(indexes))
        server.get(of_index(uid, "/settings"))
        server.ask("POST", of_index(uid, "/documents/fetch"), body=b'{"limit":1,"retrieveVectors":true}')
    if not any(one.severity == "error" for one in found):
        documents = sum(int(one.get("numberOfDocuments", 0)) for one in indexes.values())
        message = f"Meilisearch {version} at {server.server.url}: {len(indexes)} indexes, {documents} documents"
        found.append(Finding("meilisearch-ready", "info", "meilisearch", message))
    return found


def _mounted(settings: MeilisearchSettings) -> list[Finding]:
    folder = settings.dump_dir
    if folder is None or folder.is_dir():
        return []
    message = f"{folder} is no directory: the server's dumps are not mounted there"
    hint = "Mount the folder that the server writes its dumps to, or unset BACKUP_MEILISEARCH_DUMP_DIR."
    return [Finding("meilisearch-dumps-not-mounted", "error", "meilisearch", message, hint)]
