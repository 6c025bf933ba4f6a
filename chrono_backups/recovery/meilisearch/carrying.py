"""Carrying tasks through on a server that is restored to: enqueued, waited for, and their failures told."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import RestoreError, SourceRefused, SourceUnavailable, TaskFailed
from chrono_backups.sources.meilisearch.client import Meilisearch, of_index
from chrono_backups.sources.meilisearch.tasks import boundary

_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_OPEN_MOST = 8
"""Batches of documents that lie in the server's queue at once: it puts some together, and each lies on its disk."""
_QUEUE_PATIENCE = 120.0
"""Seconds that a full queue is waited for, once nothing of ours is in it any more."""
_SMALLEST = 64 * 1024
_SWAP_TRIES = 3

_REMEDIES = {
    "no_space_left_on_device": "Make room on the server's disk, then restore again.",
    "database_size_limit_reached": "The index is as large as the server allows: restore into another server.",
    "max_fields_limit_exceeded": "The server takes fewer fields than the backup's: restore into a newer one.",
}


def _failed(task: dict[str, Any]) -> TaskFailed:
    error = task.get("error") or {}
    code = str(error.get("code", task["status"]))
    place = f" of {task['indexUid']}" if task.get("indexUid") else ""
    return TaskFailed(
        f"the task {task['uid']} ({task['type']}{place}) {task['status']}: {code}:"
        f" {error.get('message', 'no reason is given')}",
        code=code,
        hint=_REMEDIES.get(code, ""),
    )


class Carrier:
    """Has tasks done, in order. Raises ``TaskFailed``, ``RestoreError``, ``SourceError``."""

    def __init__(self, server: Meilisearch, clock: Clock) -> None:
        self.server = server
        self._clock = clock
        self._open: deque[int] = deque()
        self._most = 1 << 62
        """Bytes of documents that the server takes at once, once that is known."""

    def wait(self, uid: int) -> dict[str, Any]:
        """Until that task has ended well."""
        for wait in _rising():
            task: dict[str, Any] = self.server.get(f"/tasks/{uid}")
            if task["status"] == "succeeded":
                return task
            if task["status"] in {"failed", "canceled"}:
                raise _failed(task)
            self._clock.sleep(wait)
        raise AssertionError("waits are endless")

    def do(self, method: str, path: str, document: Any = None) -> dict[str, Any]:
        """Enqueue a task, and wait for it."""
        return self.wait(self._enqueue(method, path, document))

    def _enqueue(self, method: str, path: str, document: Any = None) -> int:
        return int(self._patiently(lambda: self.server.send(method, path, document))["taskUid"])

    def create(self, uid: str, primary_key: str | None) -> None:
        """A new index. One that is there and empty is as good: the answer to an earlier try was lost."""
        try:
            self.do("POST", "/indexes", {"uid": uid, "primaryKey": primary_key})
        except TaskFailed as error:
            if error.code != "index_already_exists" or self.count(uid):
                raise

    def count(self, uid: str) -> int:
        """How many documents an index has."""
        return int(self.server.get(of_index(uid, "/stats"))["numberOfDocuments"])

    def add(self, uid: str, lines: bytes) -> None:
        """Enqueue documents, in pieces that the server takes; ``settle`` waits for them."""
        if len(lines) > self._most:
            self._add_halves(uid, lines)
            return
        while len(self._open) >= _OPEN_MOST:
            self.wait(self._open.popleft())
        path = of_index(uid, "/documents")
        try:
            told = self._patiently(
                lambda: self.server.ask("POST", path, body=lines, content_type="application/x-ndjson")
            )
        except SourceRefused as error:
            if error.code != "payload_too_large" and error.status != 413:
                raise
            if len(lines) < _SMALLEST or lines.find(b"\n") == len(lines) - 1:
                raise RestoreError(
                    f"the server takes no document of {len(lines)} bytes for the index {uid}",
                    hint="Raise its MEILI_HTTP_PAYLOAD_SIZE_LIMIT.",
                ) from error
            self._most = min(self._most, len(lines) - 1)
            self._add_halves(uid, lines)
            return
        self._open.append(_task_uid(told))

    def _add_halves(self, uid: str, lines: bytes) -> None:
        middle = lines.rfind(b"\n", 0, len(lines) // 2) + 1 or lines.find(b"\n") + 1
        self.add(uid, lines[:middle])
        if middle < len(lines):
            self.add(uid, lines[middle:])

    def settle(self) -> None:
        """Wait for all documents that were added."""
        while self._open:
            self.wait(self._open.popleft())

    def cancel_open(self) -> None:
        """Have documents that were added and not taken in yet left out."""
        if self._open:
            uids = ",".join(map(str, self._open))
            self.server.ask("POST", "/tasks/cancel", query={"uids": uids})
            self._open.clear()

    def _patiently(self, send: Callable[[], Any]) -> Any:
        """Send, and where the queue is full wait for our own tasks, then for others'."""
        waited = 0.0
        while True:
            try:
                return send()
            except SourceRefused as error:
                if error.code != "no_space_left_on_device":
                    raise
                if self._open:
                    self.wait(self._open.popleft())
                    continue
                if waited >= _QUEUE_PATIENCE:
                    raise RestoreError(
                        f"the server has taken no further task for {_QUEUE_PATIENCE:.0f} seconds: {error.message}",
                        hint="Delete finished tasks there (DELETE /tasks), or make room on its disk.",
                    ) from error
                self._clock.sleep(_WAITS[-1])
                waited += _WAITS[-1]

    def swap(self, pairs: list[tuple[str, str]]) -> None:
        """Swap all pairs at once. A lost answer is looked for in the queue, so that nothing is swapped back."""
        before = boundary(self.server).last
        swaps = [{"indexes": list(pair)} for pair in pairs]
        for attempt in range(1, _SWAP_TRIES + 1):
            try:
                told = self._patiently(lambda: self.server.send("POST", "/swap-indexes", swaps, once=True))
                self.wait(int(told["taskUid"]))
                return
            except SourceUnavailable:
                found = self._swaps_since(before)
                if found:
                    self.wait(found[0])
                    return
                if attempt == _SWAP_TRIES:
                    raise

    def _swaps_since(self, before: int) -> list[int]:
        tasks = self.server.get("/tasks", types="indexSwap", limit=20)["results"]
        return [int(task["uid"]) for task in tasks if task["uid"] > before]


def _rising() -> Iterator[float]:
    yield from _WAITS
    while True:
        yield _WAITS[-1]


def _task_uid(answer: bytes) -> int:
    return int(json.loads(answer)["taskUid"])
