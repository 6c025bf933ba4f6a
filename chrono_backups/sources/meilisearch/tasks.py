"""A server's queue of tasks: what waits, where it stands, and whether an index was changed meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.sources.meilisearch.client import Meilisearch

_LISTED = 1000
_WAITS = (0.05, 0.1, 0.2, 0.5, 1.0)
_HARMLESS = frozenset({"taskCancelation", "taskDeletion", "dumpCreation", "snapshotCreation", "export"})
"""Types of tasks that change no index; one that is not known here is taken for one that does."""


@dataclass(frozen=True)
class Boundary:
    """Where the queue stood at a moment."""

    last: int
    """The newest task's uid; -1 before the first."""
    finished: int
    """The newest finished task's uid; -1 before the first."""
    unfinished: tuple[int, ...]
    """Tasks that were enqueued or under way, oldest first."""

    @property
    def oldest_open(self) -> int:
        """From this uid on, tasks may have been finished since."""
        return min((self.last + 1, *self.unfinished))


def boundary(server: Meilisearch) -> Boundary:
    """Where the queue stands."""
    # What is open comes first: a task that ends between the two is then still among what may have changed something.
    unfinished = tuple(sorted(task["uid"] for task in unfinished_tasks(server)))
    newest = server.get("/tasks", limit=1)["results"]
    finished = server.get("/tasks", limit=1, statuses="succeeded,failed,canceled")["results"]
    return Boundary(_uid(newest), _uid(finished), unfinished)


def _uid(tasks: list[dict[str, Any]]) -> int:
    return int(tasks[0]["uid"]) if tasks else -1


def unfinished_tasks(server: Meilisearch, uid: str | None = None) -> list[dict[str, Any]]:
    """Tasks that are enqueued or under way and may change an index, or this one, as far as one page lists them."""
    of_index = {} if uid is None else {"indexUids": uid}
    found = server.get("/tasks", limit=_LISTED, statuses="enqueued,processing", **of_index)["results"]
    return [task for task in found if task["type"] not in _HARMLESS]


def wait_until_idle(server: Meilisearch, clock: Clock, seconds: float, uid: str | None = None) -> list[dict[str, Any]]:
    """Wait until no task is under way, or none of that index, at most so long; what still is then."""
    end = clock.monotonic() + seconds
    for wait in _rising():
        left = unfinished_tasks(server, uid)
        remaining = end - clock.monotonic()
        if not left or remaining <= 0:
            return left
        clock.sleep(min(wait, remaining))
    raise AssertionError("waits are endless")


def _rising() -> Iterator[float]:
    yield from _WAITS
    while True:
        yield _WAITS[-1]


def changes_since(server: Meilisearch, uid: str, since: Boundary) -> list[dict[str, Any]]:
    """Tasks that changed the index since then, or may be doing so, oldest first."""
    found = [*_since(server, since, indexUids=uid), *_since(server, since, types="indexSwap,upgradeDatabase")]
    return sorted((task for task in found if _changes(task, uid)), key=lambda task: int(task["uid"]))


def _since(server: Meilisearch, since: Boundary, **query: str) -> Iterable[dict[str, Any]]:
    first = since.oldest_open
    start: dict[str, int] = {}
    while True:
        page = server.get("/tasks", limit=_LISTED, statuses="succeeded,processing", **query, **start)
        for task in page["results"]:
            if task["uid"] < first:
                return
            yield task
        if page.get("next") is None:
            return
        start = {"from": page["next"]}


def _changes(task: dict[str, Any], uid: str) -> bool:
    if task["type"] in _HARMLESS:
        return False
    if task["type"] == "indexSwap":
        swaps = (task.get("details") or {}).get("swaps")
        return swaps is None or any(uid in one.get("indexes", ()) for one in swaps)
    return True


def deletes(task: dict[str, Any]) -> bool:
    """Whether the task may have taken documents away, or put others in their place."""
    return task["type"] not in {"documentAdditionOrUpdate", "settingsUpdate", "documentEdition"}
