"""What the tests' Meilisearch answers: a method and a path, the action that a key needs for it, and what is done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chrono_backups_tests.servers.meilisearch_contract import PAGE, SETTINGS, UID_MOST, masked
from chrono_backups_tests.servers.meilisearch_engine import ApiError, Engine, Index, Json


@dataclass
class Request:
    """One request, taken apart."""

    engine: Engine
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    content_type: str
    token: str | None

    def json(self) -> Any:
        """The body. Raises ``ApiError``."""
        try:
            return json.loads(self.body or b"null")
        except ValueError as error:
            raise ApiError("malformed_payload", f"The json payload provided is malformed. `{error}`.") from error

    def paged(self, found: list[Any]) -> Json:
        offset, limit = int(self.query.get("offset", 0)), int(self.query.get("limit", PAGE))
        return {"results": found[offset : offset + limit], "offset": offset, "limit": limit, "total": len(found)}


Answer = tuple[int, bytes]
Handler = Callable[..., Any]
_ROUTES: list[tuple[str, re.Pattern[str], str, Handler]] = []


def _route(method: str, path: str, action: str) -> Callable[[Handler], Handler]:
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + r"\Z")

    def keep(handler: Handler) -> Handler:
        _ROUTES.append((method, pattern, action, handler))
        return handler

    return keep


def answer(request: Request) -> Answer:
    """Status and body. An ``ApiError`` is an answer too."""
    try:
        for method, pattern, action, handler in _ROUTES:
            match = pattern.match(request.path)
            if match is not None and method == request.method:
                words = match.groupdict()
                _authorize(request, action, words.get("uid"))
                with request.engine.lock:
                    done = handler(request, **words)
                status = 200
                if isinstance(done, tuple):
                    status, done = done
                return status, done if isinstance(done, bytes) else json.dumps(done).encode()
        raise ApiError("not_found", f"The requested path `{request.path}` could not be found.")
    except ApiError as error:
        return error.status, json.dumps(error.body()).encode()


def _authorize(request: Request, action: str, index: str | None) -> None:
    engine = request.engine
    if not action:
        return
    if engine.master_key is None:
        if action.startswith("keys."):
            message = "Meilisearch is running without a master key. To access this API endpoint, you must have set a"
            raise ApiError("missing_master_key", message + " master key at launch.")
        return
    if request.token is None:
        message = "The Authorization header is missing. It must use the bearer authorization method."
        raise ApiError("missing_authorization_header", message)
    if request.token == engine.master_key:
        return
    for uid, key in engine.keys.items():
        if engine.key_value(uid) != request.token:
            continue
        expires = key["expiresAt"]
        alive = expires is None or datetime.fromisoformat(expires) > datetime.now(UTC)
        within = index is None or any(_matches(one, index) for one in key["indexes"])
        if alive and within and any(_allows(one, action) for one in key["actions"]):
            return
    raise ApiError("invalid_api_key", "The provided API key is invalid.")


def _allows(granted: str, action: str) -> bool:
    if granted == "*.get":
        return action.endswith(".get") and action != "keys.get"
    return granted in ("*", action) or (granted.endswith(".*") and action.startswith(granted[:-1]))


def _matches(pattern: str, uid: str) -> bool:
    return uid.startswith(pattern[:-1]) if pattern.endswith("*") else uid == pattern


def _check_uid(uid: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+", uid) is None or len(uid) > UID_MOST:
        raise ApiError("invalid_index_uid", f"`{uid}` is not a valid index uid.")
    return uid


# The server.


@_route("GET", "/health", "")
def _health(_request: Request) -> Json:
    return {"status": "available"}


@_route("GET", "/version", "version")
def _version(request: Request) -> Json:
    return {"commitSha": "unknown", "commitDate": "unknown", "pkgVersion": request.engine.version}


@_route("GET", "/stats", "stats.get")
def _stats(request: Request) -> Json:
    busy = {task.index for task in request.engine.tasks[-100:] if task.status == "processing"}
    indexes = {
        uid: {
            "numberOfDocuments": index.count(),
            "isIndexing": uid in busy,
            "fieldDistribution": dict.fromkeys(index.fields, index.count()),
        }
        for uid, index in sorted(request.engine.indexes.items())
    }
    return {"databaseSize": 0, "usedDatabaseSize": 0, "lastUpdate": None, "indexes": indexes}


# Indexes.


@_route("GET", "/indexes", "indexes.get")
def _indexes(request: Request) -> Json:
    return request.paged([index.view() for _, index in sorted(request.engine.indexes.items())])


@_route("POST", "/indexes", "indexes.create")
def _create_index(request: Request) -> Any:
    given, engine = request.json(), request.engine
    uid = _check_uid(given["uid"])
    return 202, engine.enqueue("indexCreation", uid, lambda: engine.create(uid, given.get("primaryKey")))


@_route("GET", "/indexes/{uid}", "indexes.get")
def _index(request: Request, uid: str) -> Json:
    return request.engine.index(uid).view()


@_route("DELETE", "/indexes/{uid}", "indexes.delete")
def _delete_index(request: Request, uid: str) -> Any:
    engine = request.engine
    return 202, engine.enqueue("indexDeletion", uid, lambda: engine.delete(uid))


@_route("GET", "/indexes/{uid}/stats", "stats.get")
def _index_stats(request: Request, uid: str) -> Json:
    index = request.engine.index(uid)
    found: Json = _stats(request)["indexes"][index.uid]
    return found


@_route("GET", "/indexes/{uid}/settings", "settings.get")
def _settings(request: Request, uid: str) -> Json:
    shown = deepcopy({**SETTINGS, **request.engine.index(uid).settings})
    embedders: Any = shown["embedders"]
    for how in embedders.values():
        if how.get("apiKey"):
            how["apiKey"] = masked(how["apiKey"])
    return shown


@_route("PATCH", "/indexes/{uid}/settings", "settings.update")
def _update_settings(request: Request, uid: str) -> Any:
    given, engine = request.json(), request.engine
    unknown = [name for name in given if name not in SETTINGS]
    if unknown:
        raise ApiError("bad_request", f"Unknown field `{unknown[0]}`: expected one of {', '.join(SETTINGS)}")
    return 202, engine.enqueue("settingsUpdate", _check_uid(uid), lambda: engine.update_settings(uid, given))


@_route("POST", "/swap-indexes", "indexes.swap")
def _swap(request: Request) -> Any:
    engine = request.engine
    pairs = [tuple(one["indexes"]) for one in request.json()]
    named = [uid for pair in pairs for uid in pair]
    if any(len(pair) != 2 for pair in pairs) or len(set(named)) != len(named):
        raise ApiError("invalid_swap_indexes", "Two indexes must be given for each swap, each once.")
    return 202, engine.enqueue("indexSwap", None, lambda: engine.swap(pairs))


# Documents.


@_route("POST", "/indexes/{uid}/documents/fetch", "documents.get")
def _fetch(request: Request, uid: str) -> bytes:
    given = request.json()
    offset, limit = given.get("offset", 0), given.get("limit", PAGE)
    request.engine.on_page(uid, offset)
    index = request.engine.index(uid)
    vectors = given.get("retrieveVectors", False)
    if "filter" in given:
        chosen = _filtered(index, str(given["filter"]))
        rows, total = index.at(chosen[offset : offset + limit], vectors=vectors), len(chosen)
        return b'{"results":[%b],"offset":%d,"limit":%d,"total":%d}' % (b",".join(rows), offset, limit, total)
    rows = index.page(offset, limit, vectors=vectors)
    return b'{"results":[%b],"offset":%d,"limit":%d,"total":%d}' % (b",".join(rows), offset, limit, index.count())


def _filtered(index: Index, text: str) -> list[int]:
    """Internal ids of the documents that a filter takes: one field and the value that it has."""
    match = re.fullmatch(r"\s*(\w+)\s*=\s*[\"']?(.*?)[\"']?\s*", text)
    if match is None or match[1] not in index.settings.get("filterableAttributes", ()):
        raise ApiError("invalid_document_filter", f"Attribute of `{text}` is not filterable.")
    rows = ((place, json.loads(row)) for place, row in enumerate(index.rows) if row is not None)
    return [place for place, row in rows if str(row.get(match[1])).lower() == match[2].lower()]


@_route("GET", "/indexes/{uid}/documents/{document}", "documents.get")
def _document(request: Request, uid: str, document: str) -> bytes:
    index = request.engine.index(uid)
    place = index.places.get(document)
    if place is None and document.isdigit():
        place = index.places.get(int(document))
    if place is None:
        raise ApiError("document_not_found", f"Document `{document}` not found.")
    return index.at([place], vectors=request.query.get("retrieveVectors") == "true")[0]


@_route("POST", "/indexes/{uid}/documents", "documents.add")
def _add_documents(request: Request, uid: str) -> Any:
    engine, body, primary_key = request.engine, request.body, request.query.get("primaryKey")
    if request.content_type not in ("application/json", "application/x-ndjson"):
        raise ApiError("invalid_content_type", f"The Content-Type `{request.content_type}` is invalid.")
    if not body:
        raise ApiError("missing_payload", "A payload is missing.")
    lines = request.content_type == "application/x-ndjson"
    return 202, engine.enqueue(
        "documentAdditionOrUpdate",
        _check_uid(uid),
        lambda: engine.add_documents(uid, body, primary_key, lines=lines),
    )


@_route("POST", "/indexes/{uid}/documents/delete-batch", "documents.delete")
def _delete_documents(request: Request, uid: str) -> Any:
    engine, keys = request.engine, request.json()
    return 202, engine.enqueue("documentDeletion", uid, lambda: engine.delete_documents(uid, keys))


@_route("POST", "/indexes/{uid}/search", "search")
def _search(request: Request, uid: str) -> Json:
    """Documents that hold every word of ``q``, in the order of their internal ids."""
    given, index = request.json() or {}, request.engine.index(uid)
    words = str(given.get("q") or "").lower().split()
    offset, limit = given.get("offset", 0), given.get("limit", PAGE)

    def matching() -> Iterator[bytes]:
        for row in index.rows:
            if row is not None and all(word in row.decode().lower() for word in words):
                yield row

    found = list(matching()) if words else [row for row in index.rows if row is not None]
    hits = [json.loads(row) for row in found[offset : offset + limit]]
    shown = {"hits": hits, "query": given.get("q") or "", "processingTimeMs": 0, "limit": limit, "offset": offset}
    return {**shown, "estimatedTotalHits": len(found)}


# Tasks.


@_route("GET", "/tasks", "tasks.get")
def _tasks(request: Request) -> Json:
    query = request.query
    limit, start = int(query.get("limit", PAGE)), int(query.get("from", len(request.engine.tasks)))
    wanted = {
        name: set(query[given].split(","))
        for name, given in (("status", "statuses"), ("type", "types"), ("index", "indexUids"), ("uid", "uids"))
        if given in query and query[given] != "*"
    }
    found = [
        task
        for task in reversed(request.engine.tasks[: start + 1])
        if all(str(getattr(task, name)) in allowed for name, allowed in wanted.items())
    ]
    results = [task.view() for task in found[:limit]]
    following = found[limit].uid if len(found) > limit else None
    first = results[0]["uid"] if results else None
    return {"results": results, "total": len(found), "limit": limit, "from": first, "next": following}


@_route("GET", "/tasks/{task}", "tasks.get")
def _task(request: Request, task: str) -> Json:
    if not task.isdigit() or int(task) >= len(request.engine.tasks):
        raise ApiError("task_not_found", f"Task `{task}` not found.")
    return request.engine.tasks[int(task)].view()


@_route("POST", "/tasks/cancel", "tasks.cancel")
def _cancel(request: Request) -> Json:
    return request.engine.cancel([int(uid) for uid in request.query.get("uids", "").split(",") if uid])


# Keys.


@_route("GET", "/keys", "keys.get")
def _keys(request: Request) -> Json:
    return request.paged([request.engine.key_view(uid) for uid in request.engine.keys])


@_route("POST", "/keys", "keys.create")
def _add_key(request: Request) -> Any:
    return 201, request.engine.add_key(request.json())


@_route("GET", "/keys/{key}", "keys.get")
def _key(request: Request, key: str) -> Json:
    if key not in request.engine.keys:
        raise ApiError("api_key_not_found", f"API key `{key}` not found.")
    return request.engine.key_view(key)


@_route("DELETE", "/keys/{key}", "keys.delete")
def _delete_key(request: Request, key: str) -> Any:
    _key(request, key)
    del request.engine.keys[key]
    return 204, b""


# What is set on the server.


@_route("GET", "/experimental-features", "experimental.get")
def _features(request: Request) -> Json:
    return request.engine.features


@_route("PATCH", "/experimental-features", "experimental.update")
def _set_features(request: Request) -> Json:
    given, known = request.json(), request.engine.features
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ApiError("bad_request", f"Unknown field `{unknown[0]}`: expected one of {', '.join(known)}")
    known.update(given)
    return known


def _needs(request: Request, feature: str, doing: str) -> None:
    if feature not in request.engine.features:
        raise ApiError("not_found", f"The requested path `{request.path}` could not be found.")
    if not request.engine.features[feature]:
        raise ApiError("feature_not_enabled", f"{doing} requires enabling the `{feature}` experimental feature.")


@_route("GET", "/network", "network.get")
def _network(request: Request) -> Json:
    _needs(request, "network", "Using the /network route")
    return request.engine.network


@_route("PATCH", "/network", "network.update")
def _set_network(request: Request) -> Json:
    _needs(request, "network", "Using the /network route")
    given, network = request.json(), request.engine.network
    network["self"] = given.get("self", network["self"])
    network["remotes"].update(given.get("remotes") or {})
    return network


@_route("GET", "/chats", "chats.get")
def _chats(request: Request) -> Json:
    _needs(request, "chatCompletions", "listing the chats")
    return request.paged([{"uid": name} for name in sorted(request.engine.chats)])


@_route("GET", "/chats/{chat}/settings", "chatsSettings.get")
def _chat(request: Request, chat: str) -> Json:
    _needs(request, "chatCompletions", "using the /chats/settings route")
    if chat not in request.engine.chats:
        raise ApiError("chat_not_found", f"Chat `{chat}` not found")
    shown = deepcopy(request.engine.chats[chat])
    if shown.get("apiKey"):
        shown["apiKey"] = masked(shown["apiKey"])
    return shown


@_route("PATCH", "/chats/{chat}/settings", "chatsSettings.update")
def _set_chat(request: Request, chat: str) -> Json:
    _needs(request, "chatCompletions", "using the /chats/settings route")
    request.engine.chats.setdefault(chat, {"source": "openAi"}).update(request.json())
    shown: Json = _chat(request, chat)
    return shown
