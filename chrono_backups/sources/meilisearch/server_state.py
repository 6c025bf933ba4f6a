"""What is set on a server beside its indexes: version, keys, experimental features, network, chats, webhooks.

Keys' values are not kept. A server makes them from its master key and the key's uid, so that the same uid under the
same master key is the same value; a digest of each value tells whether the master key is still the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from chrono_backups.errors import SourceRefused
from chrono_backups.events import Finding, Listener
from chrono_backups.sources.meilisearch.client import Meilisearch, denied, missing, of_index

_MASK = "XX..."
"""What a secret ends with that the server shows masked."""


@dataclass(frozen=True)
class ServerState:
    """All of it; None where the server has no such thing, or does not tell."""

    version: str
    keys: list[dict[str, Any]] | None
    features: dict[str, Any] | None
    network: dict[str, Any] | None
    webhooks: list[dict[str, Any]] | None
    chats: dict[str, dict[str, Any]] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """As files: name → content."""
        found: dict[str, Any] = {"server.json": {"version": self.version}}
        named = {
            "keys.json": self.keys,
            "experimental-features.json": self.features,
            "network.json": self.network,
            "webhooks.json": self.webhooks,
        }
        found |= {name: content for name, content in named.items() if content is not None}
        found |= {f"chats/{quote(name, safe='')}.json": settings for name, settings in self.chats.items()}
        return {name: as_json(content) for name, content in sorted(found.items())}


def server_state(server: Meilisearch, listener: Listener) -> ServerState:
    """Ask for all of it. What the key may not see is a finding. Raises ``SourceError``."""
    version = version_of(server)
    ask = _Asking(server, listener)
    keys = ask.all("/keys", "the keys", "keys.get")
    features = ask.one("/experimental-features", "the experimental features", "experimental.get")
    network = ask.one("/network", "the network", "network.get")
    hooks = ask.one("/webhooks", "the webhooks", "webhooks.get")
    chats = {}
    for chat in ask.all("/chats", "the chats", "chats.get") or ():
        path = f"/chats/{quote(chat['uid'], safe='')}/settings"
        settings = ask.one(path, f"the settings of the chat {chat['uid']}", "chatsSettings.get")
        if settings is not None:
            chats[chat["uid"]] = settings
    state = ServerState(
        version,
        None if keys is None else sorted(map(key_record, keys), key=lambda key: str(key["uid"])),
        features,
        network,
        None if hooks is None else hooks["results"],
        chats,
    )
    hidden = [f"chat {name}" for name, settings in chats.items() if masked_in(settings)]
    hidden += [f"webhook {hook.get('uuid')}" for hook in state.webhooks or () if masked_in(hook)]
    tell_hidden(hidden, listener)
    return state


def version_of(server: Meilisearch) -> str:
    """The server's version."""
    return str(server.get("/version").get("pkgVersion", "unknown"))


def key_record(key: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a key."""
    kept = {name: value for name, value in key.items() if name != "key"}
    return {**kept, "valueDigest": value_digest(str(key.get("key", "")))}


def value_digest(value: str) -> str:
    """By which a key's value is known again; it tells nothing of the value, which is 256 random bits."""
    return hashlib.sha256(f"meilisearch key {value}".encode()).hexdigest()


def index_settings(server: Meilisearch, uid: str) -> dict[str, Any]:
    """An index's settings."""
    found: dict[str, Any] = server.get(of_index(uid, "/settings"))
    return found


def masked_in(value: Any) -> bool:
    """Whether a secret in it is masked."""
    if isinstance(value, str):
        return value.endswith(_MASK)
    if isinstance(value, Mapping):
        return any(map(masked_in, value.values()))
    return isinstance(value, list) and any(map(masked_in, value))


def tell_hidden(places: list[str], listener: Listener) -> None:
    """A finding that names where the server hides secrets."""
    if places:
        shown = ", ".join(places[:10]) + (f" and {len(places) - 10} more" if len(places) > 10 else "")
        listener(
            Finding(
                "meilisearch-secrets-hidden",
                "info",
                "meilisearch",
                f"the server shows API keys masked, so that they are not in this backup: {shown}",
                "Keep them elsewhere, or mount the server's dumps (BACKUP_MEILISEARCH_DUMP_DIR), which have them.",
            )
        )


def as_json(content: Any) -> bytes:
    """Readable, and the same each time."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


class _Asking:
    """Asks for what a server may not have, or a key may not see."""

    def __init__(self, server: Meilisearch, listener: Listener) -> None:
        self._server = server
        self._listener = listener

    def one(self, path: str, what: str, action: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._server.get(path)
        except SourceRefused as error:
            self._left_out(error, what, action)
            return None
        return found

    def all(self, path: str, what: str, action: str) -> list[dict[str, Any]] | None:
        try:
            return list(self._server.pages(path))
        except SourceRefused as error:
            self._left_out(error, what, action)
            return None

    def _left_out(self, error: SourceRefused, what: str, action: str) -> None:
        if missing(error) or error.code == "missing_master_key":
            return
        if not denied(error):
            raise error
        message = f"the key may not see {what}, so that this backup is without"
        hint = f"Use the master key, or give the key the action {action}."
        self._listener(Finding("meilisearch-not-seen", "warning", "meilisearch", message, hint))
