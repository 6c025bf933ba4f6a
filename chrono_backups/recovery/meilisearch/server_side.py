"""What is set on a server beside its indexes, brought back: experimental features, keys, network, chats, webhooks.

Nothing is taken away: a key that the backup does not hold stays. What can't be brought back is a finding each, as the
indexes are worth having without it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from chrono_backups.errors import SourceRefused
from chrono_backups.events import Finding, Severity
from chrono_backups.recovery.meilisearch.content import BackedUp
from chrono_backups.sources.meilisearch.client import Meilisearch, missing
from chrono_backups.sources.meilisearch.server_state import masked_in, value_digest

_KEY_FIELDS = ("uid", "name", "description", "actions", "indexes", "expiresAt")
Find = Callable[[Finding], None]


def _finding(code: str, severity: Severity, subject: str, message: str, hint: str = "") -> Finding:
    return Finding(f"meilisearch-{code}", severity, subject, message, hint)


def another_master_key(server: Meilisearch, content: BackedUp) -> bool:
    """Whether the configured key is a server's master key under which the backup's keys would have other values."""
    kept = content.json("keys.json") or []
    master = server.server.key
    if not kept or master is None:
        return False
    try:
        here = next(server.pages("/keys"), None)
    except SourceRefused:
        return False
    if here is not None and _value(master, here["uid"]) != here.get("key"):
        return False  # it is no master key, so that it can't be told before the keys are made
    return all(value_digest(_value(master, key["uid"])) != key["valueDigest"] for key in kept)


def _value(master: str, uid: str) -> str:
    return hmac.new(master.encode(), uid.encode(), hashlib.sha256).hexdigest()


def set_features(server: Meilisearch, wanted: Mapping[str, bool], find: Find) -> dict[str, bool]:
    """Turn on what the backup has on; what was on before. Settings and chats may need it."""
    try:
        before: dict[str, bool] = server.get("/experimental-features")
    except SourceRefused as error:
        find(_finding("features", "warning", "experimental features", f"they can't be set: {error.message}"))
        return {}
    unknown = sorted(name for name, on in wanted.items() if on and name not in before)
    if unknown:
        message = f"the server does not know {', '.join(unknown)}, which was on"
        find(_finding("features-unknown", "warning", "experimental features", message))
    changed = {name: True for name, on in wanted.items() if on and before.get(name) is False}
    if changed:
        server.send("PATCH", "/experimental-features", changed)
    return dict.fromkeys(changed, False)


def bring_back(server: Meilisearch, content: BackedUp, find: Find, *, offline: bool = False) -> int:
    """All but the features; how many keys were made. ``offline``: nothing that makes the server call others."""
    made = _keys(server, content.json("keys.json") or [], find)
    network = content.json("network.json") if not offline else None
    if network is not None and (network.get("self") or network.get("remotes")):
        kept = {name: network[name] for name in ("self", "remotes") if network.get(name)}
        _try(lambda: server.send("PATCH", "/network", kept), "network", find)
    for name, settings in content.chats().items():
        known = {one: value for one, value in settings.items() if value is not None}
        if masked_in(settings.get("apiKey")):
            del known["apiKey"]
            hint = f"Set it: PATCH /chats/{quote(name, safe='')}/settings."
            find(_finding("chat-without-key", "warning", name, "the chat is restored without its API key", hint))
        path = f"/chats/{quote(name, safe='')}/settings"
        _try(lambda path=path, known=known: server.send("PATCH", path, known), f"chat {name}", find)  # type: ignore[misc]
    _webhooks(server, content.json("webhooks.json") or [] if not offline else [], find)
    return made


def _keys(server: Meilisearch, keys: list[dict[str, Any]], find: Find) -> int:
    made = 0
    changed = []
    for key in keys:
        given = {name: key.get(name) for name in _KEY_FIELDS}
        try:
            found = server.send("POST", "/keys", given)
            made += 1
        except SourceRefused as error:
            if error.code == "missing_master_key":
                find(_finding("keys", "error", "keys", "the server has no master key, and so no keys", error.hint))
                return made
            if error.code != "api_key_already_exists":
                message = f"the key {key.get('name') or key['uid']} can't be made: {error.message}"
                severity: Severity = "info" if error.code == "invalid_api_key_expires_at" else "error"
                find(_finding("key", severity, str(key["uid"]), message))
                continue
            found = server.get(f"/keys/{key['uid']}")
        if value_digest(str(found.get("key"))) != key["valueDigest"]:
            changed.append(str(key.get("name") or key["uid"]))
    if changed:
        message = f"the master key is another one, so that these keys have other values: {', '.join(changed)}"
        hint = "Start the server with the old master key, or give the applications the new values (GET /keys)."
        find(_finding("master-key", "warning", "keys", message, hint))
    return made


def _webhooks(server: Meilisearch, hooks: list[dict[str, Any]], find: Find) -> None:
    if not hooks:
        return
    try:
        there = {hook["url"] for hook in server.get("/webhooks")["results"]}
    except SourceRefused as error:
        find(_finding("webhooks", "warning", "webhooks", f"they can't be brought back: {error.message}"))
        return
    for hook in hooks:
        if hook["url"] in there or not hook.get("isEditable", True):
            continue
        headers = {name: value for name, value in (hook.get("headers") or {}).items() if not masked_in(value)}
        if headers != (hook.get("headers") or {}):
            message = "the webhook is brought back without the headers that the server masks"
            find(_finding("webhook-without-key", "warning", hook["url"], message, "Set them: PATCH /webhooks/UUID."))
        given = {"url": hook["url"], "headers": headers}
        _try(lambda given=given: server.send("POST", "/webhooks", given), "webhook", find)  # type: ignore[misc]


def _try(do: Callable[[], Any], what: str, find: Find) -> None:
    try:
        do()
    except SourceRefused as error:
        severity: Severity = "warning" if missing(error) else "error"
        find(_finding("not-brought-back", severity, what, error.message, error.hint))
