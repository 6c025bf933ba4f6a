"""The tests' Meilisearch without its HTTP: indexes, documents, settings, keys, and a queue of tasks done in order.

What it takes for true of a real one is written down in ``meilisearch_contract.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chrono_backups_tests.servers.meilisearch_contract import STATUS, VERSION, error_type, features_of

Json = dict[str, Any]
_NO_VECTORS = b',"_vectors":{}}'


class ApiError(Exception):
    """An answer, or the end of a task, that is an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.status = STATUS.get(code, 400)

    def body(self) -> Json:
        """In the service's shape."""
        link = f"https://docs.meilisearch.com/errors#{self.code}"
        return {"message": self.message, "code": self.code, "type": error_type(self.code), "link": link}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Index:
    """An index: its rows are documents as they are given out, by internal id; None where one was deleted."""

    uid: str
    primary_key: str | None = None
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    rows: list[bytes | None] = field(default_factory=list)
    vectors: dict[int, bytes] = field(default_factory=dict)
    places: dict[Any, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    fields: dict[str, int] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)
    swallowed: int = 0
    """Documents that were counted and not kept."""

    def count(self) -> int:
        return len(self.rows) - len(self.free) + self.swallowed

    def add(self, document: Json) -> None:
        """Add or replace a document."""
        key = document.get(self.primary_key or "")
        if key is None:
            raise ApiError("missing_document_id", f"Document doesn't have a `{self.primary_key}` attribute.")
        given = document.pop("_vectors", None)
        fields = self.fields
        order = [fields.setdefault(name, len(fields)) for name in document]
        if order != sorted(order):
            document = dict(sorted(document.items(), key=lambda item: fields[item[0]]))
        row = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        place = self.places.get(key)
        if place is None:
            if self.free:
                place = self.free.pop(0)
            else:
                place = len(self.rows)
                self.rows.append(None)
            self.places[key] = place
        self.rows[place] = row
        self.vectors.pop(place, None)
        if given:
            self.vectors[place] = _vectors(given)

    def delete(self, key: Any) -> bool:
        """Whether there was such a document."""
        place = self.places.pop(key, None)
        if place is None:
            return False
        self.rows[place] = None
        self.vectors.pop(place, None)
        self.free.append(place)
        self.free.sort()
        return True

    def page(self, offset: int, limit: int, *, vectors: bool) -> list[bytes]:
        """Documents in the order of their internal ids."""
        if not self.free:
            places: Iterator[int] | range = range(offset, min(offset + limit, len(self.rows)))
        else:
            found = [place for place, row in enumerate(self.rows) if row is not None]
            places = iter(found[offset : offset + limit])
        return self.at(places, vectors=vectors)

    def at(self, places: Iterable[int], *, vectors: bool) -> list[bytes]:
        """Documents by their internal ids."""
        if not vectors:
            return [self.rows[place] or b"" for place in places]
        if not self.vectors:
            return [(self.rows[place] or b"")[:-1] + _NO_VECTORS for place in places]
        return [
            (self.rows[place] or b"")[:-1] + b',"_vectors":' + self.vectors.get(place, b"{}") + b"}" for place in places
        ]

    def view(self) -> Json:
        return {
            "uid": self.uid,
            "createdAt": self.created,
            "updatedAt": self.updated,
            "primaryKey": self.primary_key,
        }


def _vectors(given: Json) -> bytes:
    """As they are given out, whatever of the allowed forms they came in."""
    shown = {}
    for name, value in given.items():
        told = value if isinstance(value, dict) else {"embeddings": value}
        found = told.get("embeddings") or []
        found = [found] if found and not isinstance(found[0], list) else found
        shown[name] = {"embeddings": found, "regenerate": told.get("regenerate", False)}
    return json.dumps(shown, separators=(",", ":")).encode()


@dataclass
class Task:
    """One entry of the queue."""

    uid: int
    type: str
    index: str | None
    work: Callable[[], Json | None]
    status: str = "enqueued"
    error: Json | None = None
    details: Json | None = None
    enqueued: str = field(default_factory=now)
    started: str | None = None
    finished: str | None = None

    def view(self) -> Json:
        return {
            "uid": self.uid,
            "batchUid": self.uid if self.started else None,
            "indexUid": self.index,
            "status": self.status,
            "type": self.type,
            "canceledBy": None,
            "details": self.details,
            "error": self.error,
            "duration": None,
            "enqueuedAt": self.enqueued,
            "startedAt": self.started,
            "finishedAt": self.finished,
        }


@dataclass
class TaskFault:
    """What becomes of the next tasks of a type."""

    type: str
    code: str = "internal"
    message: str = "An internal error has occurred."
    skip: int = 0
    times: int = 1


class Engine:
    """All that a server holds. Tasks are worked off by a thread, in order, while ``paused`` is not set."""

    def __init__(self, *, version: str = VERSION, master_key: str | None = None) -> None:
        self.version = version
        self.master_key = master_key
        self.lock = threading.RLock()
        self.indexes: dict[str, Index] = {}
        self.keys: dict[str, Json] = {}
        self.features: dict[str, bool] = dict.fromkeys(features_of(version), False)
        self.network: Json = {"self": None, "remotes": {}}
        self.chats: dict[str, Json] = {}
        self.webhooks: dict[str, Json] = {}
        self.tasks: list[Task] = []
        self.task_faults: list[TaskFault] = []
        self.task_seconds = 0.0
        self.swallows = False
        """Documents are counted and not kept, so that the server costs next to nothing. For benchmarks."""
        self.spoilt: Any = None
        """Key of a document that is another one once it was added."""
        self.queue_limit: int | None = None
        """Tasks that may wait; beyond, the queue is full."""
        self.document_limit: int | None = None
        """Documents that an index can take; beyond, it is full."""
        self.on_page: Callable[[str, int], None] = lambda _uid, _offset: None
        """Called before each page of documents, with the index and the offset."""
        self.on_task: Callable[[Task], None] = lambda _task: None
        """Called before each task is worked off."""
        self.paused = threading.Event()
        self._wake = threading.Condition(self.lock)
        self._next = 0
        self._ending = False
        if master_key is not None:
            self.add_key({"name": "Default Search API Key", "actions": ["search"], "indexes": ["*"]})
            self.add_key({"name": "Default Admin API Key", "actions": ["*"], "indexes": ["*"]})
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._wake:
            self._ending = True
            self._wake.notify_all()
        self._thread.join()

    # Keys.

    def key_value(self, uid: str) -> str:
        assert self.master_key is not None
        return hmac.new(self.master_key.encode(), uid.encode(), hashlib.sha256).hexdigest()

    def add_key(self, given: Mapping[str, Any]) -> Json:
        """A key; raises where its uid is taken, or it has expired."""
        uid = str(given.get("uid") or uuid.uuid4())
        if uid in self.keys:
            raise ApiError("api_key_already_exists", f"`uid` field value `{uid}` is already an existing API key.")
        expires = given.get("expiresAt")
        if expires is not None and datetime.fromisoformat(expires) <= datetime.now(UTC):
            raise ApiError("invalid_api_key_expires_at", f"Invalid value at `.expiresAt`: `{expires}` is in the past.")
        moment = now()
        key = {
            "name": given.get("name"),
            "description": given.get("description"),
            "uid": uid,
            "actions": list(given["actions"]),
            "indexes": list(given["indexes"]),
            "expiresAt": expires,
            "createdAt": moment,
            "updatedAt": moment,
        }
        self.keys[uid] = key
        return self.key_view(uid)

    def key_view(self, uid: str) -> Json:
        return {**self.keys[uid], "key": self.key_value(uid)}

    # Tasks.

    def enqueue(self, kind: str, index: str | None, work: Callable[[], Json | None]) -> Json:
        """Put a task into the queue; its summary."""
        with self._wake:
            waiting = sum(task.status == "enqueued" for task in self.tasks[self._next :])
            if self.queue_limit is not None and waiting >= self.queue_limit:
                message = "Meilisearch cannot receive write operations because the limit of the task database has been"
                message += " reached. Please delete tasks to continue performing write operations."
                raise ApiError("no_space_left_on_device", message)
            task = Task(len(self.tasks), kind, index, work)
            self.tasks.append(task)
            self._wake.notify_all()
        return {
            "taskUid": task.uid,
            "indexUid": index,
            "status": "enqueued",
            "type": kind,
            "enqueuedAt": task.enqueued,
        }

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._ending and (self._next == len(self.tasks) or self.paused.is_set()):
                    self._wake.wait(0.02)
                if self._ending:
                    return
                task = self.tasks[self._next]
                self._next += 1
                if task.status != "enqueued":
                    continue
                task.status, task.started = "processing", now()
            self.on_task(task)
            if self.task_seconds:
                time.sleep(self.task_seconds)
            self._finish(task)

    def _finish(self, task: Task) -> None:
        fault = next((one for one in self.task_faults if one.type in ("", task.type)), None)
        if fault is not None and fault.skip:
            fault.skip, fault = fault.skip - 1, None
        with self.lock:
            try:
                if fault is not None:
                    fault.times -= 1
                    if not fault.times:
                        self.task_faults.remove(fault)
                    raise ApiError(fault.code, fault.message)
                task.details = task.work()
                task.status = "succeeded"
            except ApiError as error:
                task.status, task.error = "failed", error.body()
            task.work = lambda: None
            task.finished = now()

    def cancel(self, uids: list[int]) -> Json:
        """Have tasks that wait not be done; one that is under way is."""
        with self.lock:
            for task in self.tasks:
                if task.uid in uids and task.status == "enqueued":
                    task.status, task.finished = "canceled", now()
        return self.enqueue("taskCancelation", None, lambda: None)

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until nothing is to be done. For tests."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self.lock:
                if not any(task.status in ("enqueued", "processing") for task in self.tasks):
                    return
            time.sleep(0.005)
        raise AssertionError("the tests' Meilisearch did not work off its tasks")

    # What tasks do.

    def index(self, uid: str) -> Index:
        if uid not in self.indexes:
            raise ApiError("index_not_found", f"Index `{uid}` not found.")
        return self.indexes[uid]

    def create(self, uid: str, primary_key: str | None) -> Json:
        if uid in self.indexes:
            raise ApiError("index_already_exists", f"Index `{uid}` already exists.")
        self.indexes[uid] = Index(uid, primary_key)
        return {"primaryKey": primary_key}

    def delete(self, uid: str) -> Json:
        count = self.index(uid).count()
        del self.indexes[uid]
        return {"deletedDocuments": count}

    def add_documents(self, uid: str, body: bytes, primary_key: str | None, *, lines: bool) -> Json:
        """Add documents that came as JSON, or as NDJSON."""
        index = self.indexes.setdefault(uid, Index(uid))
        if self.swallows:
            index.swallowed += body.count(b"\n")
            return {"receivedDocuments": body.count(b"\n"), "indexedDocuments": body.count(b"\n")}
        documents = (json.loads(line) for line in body.splitlines() if line) if lines else json.loads(body)
        received = 0
        for document in documents:
            if index.primary_key is None:
                index.primary_key = primary_key or next((one for one in document if one.lower().endswith("id")), None)
            if self.document_limit is not None and index.count() >= self.document_limit:
                raise ApiError("database_size_limit_reached", "Maximum database size has been reached.")
            if self.spoilt is not None and document.get(index.primary_key or "") == self.spoilt:
                document["spoilt"] = True
            index.add(document)
            received += 1
        index.updated = now()
        return {"receivedDocuments": received, "indexedDocuments": received}

    def delete_documents(self, uid: str, keys: list[Any]) -> Json:
        index = self.index(uid)
        deleted = sum(index.delete(key) for key in keys)
        index.updated = now()
        return {"providedIds": len(keys), "deletedDocuments": deleted}

    def update_settings(self, uid: str, given: Json) -> Json:
        index = self.indexes.setdefault(uid, Index(uid))
        for name, value in given.items():
            if value is None:
                index.settings.pop(name, None)
            elif name == "embedders":
                kept = {one: how for one, how in {**index.settings.get(name, {}), **value}.items() if how is not None}
                index.settings[name] = kept
            else:
                index.settings[name] = deepcopy(value)
        index.updated = now()
        return given

    def swap(self, pairs: list[tuple[str, str]]) -> Json:
        missing = sorted({uid for pair in pairs for uid in pair if uid not in self.indexes})
        if missing:
            raise ApiError("index_not_found", f"Indexes {', '.join(f'`{uid}`' for uid in missing)} not found.")
        for one, other in pairs:
            self.indexes[one], self.indexes[other] = self.indexes[other], self.indexes[one]
            self.indexes[one].uid, self.indexes[other].uid = one, other
        return {"swaps": [{"indexes": list(pair)} for pair in pairs]}
