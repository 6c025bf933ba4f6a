"""The source ``meilisearch``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from stat import S_IFREG
from typing import Any, Literal

from chrono_backups.clock import Clock, SystemClock, to_text
from chrono_backups.errors import SourceError, SourceRefused
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.base import Earlier, StreamedCapture, StreamedEntry
from chrono_backups.sources.meilisearch.client import Meilisearch, Server
from chrono_backups.sources.meilisearch.documents import IndexDocuments
from chrono_backups.sources.meilisearch.mounted import mounted_files
from chrono_backups.sources.meilisearch.names import IN_BUILD
from chrono_backups.sources.meilisearch.paging import Paging, check_primary_key
from chrono_backups.sources.meilisearch.probe import probe
from chrono_backups.sources.meilisearch.samples import Sampler, search
from chrono_backups.sources.meilisearch.server_state import (
    ServerState,
    as_json,
    index_settings,
    masked_in,
    server_state,
    tell_hidden,
)
from chrono_backups.sources.meilisearch.tasks import Boundary, boundary, changes_since, deletes, wait_until_idle
from chrono_backups.sources.settings import MeilisearchSettings

Effective = Literal["full", "incremental", "differential"]
_ATTEMPTS = 3
"""How often an index is read at most, while it changes meanwhile."""
_SAMPLES = 2048
"""Documents that are recorded for a drill, over all indexes; of each at least four and at most 64."""
SAMPLES = "samples.json"
"""The file that has them."""
_NAMED = 10


class MeilisearchSource:
    """A Meilisearch server, over the network.

    A snapshot of it lists ``server.json``, ``keys.json``, …; ``indexes/UID/index.json``, ``settings.json``,
    ``documents.ndjson`` and ``documents.rows``; ``samples.json``, for a drill; and ``dumps/…`` where the server's own
    are mounted.
    """

    name: SourceName = "meilisearch"
    compares: Literal[True] = True

    def __init__(self, settings: MeilisearchSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    def probe(self) -> list[Finding]:
        """What would keep a capture from being good. Changes nothing."""
        return probe(self._settings, self._clock)

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: Effective, listener: Listener) -> Iterator[StreamedCapture]:
        """Begin a capture: tasks under way are waited for, so long as the settings say. Raises ``SourceError``."""
        with Meilisearch(Server.of(self._settings), self._clock) as server:
            state = server_state(server, listener)
            wait_until = self._clock.monotonic() + self._settings.task_wait_seconds
            left = wait_until_idle(server, self._clock, self._settings.task_wait_seconds)
            tell_unfinished(left, listener)
            capture = _Capture(server, self._settings, state, earlier, asked, listener, self._clock)
            capture.wait_until = wait_until
            yield capture


def tell_unfinished(tasks: list[dict[str, Any]], listener: Listener) -> None:
    """A finding that names tasks whose work a capture may not have."""
    if not tasks:
        return
    named = ", ".join(f"{task['uid']} ({task['type']} of {task['indexUid']})" for task in tasks[-_NAMED:])
    more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
    message = f"tasks were under way that this backup may not have: {named}{more}"
    hint = "Raise BACKUP_MEILISEARCH_TASK_WAIT_SECONDS to wait longer for them."
    listener(Finding("meilisearch-tasks-under-way", "warning", "meilisearch", message, hint))


@dataclass(frozen=True)
class _Index:
    uid: str
    primary_key: str | None
    view: Mapping[str, Any]
    documents: int

    @property
    def folder(self) -> str:
        return f"indexes/{self.uid}"


class _Capture:
    """One capture."""

    effective: Effective = "full"

    def __init__(
        self,
        server: Meilisearch,
        settings: MeilisearchSettings,
        state: ServerState,
        earlier: Earlier | None,
        asked: Effective,
        listener: Listener,
        clock: Clock,
    ) -> None:
        self._server = server
        self._settings = settings
        self._state = state
        self._earlier = earlier
        self._listener = listener
        self._clock = clock
        self._now = int(clock.now().timestamp() * 1e9)
        self._started = to_text(clock.now())
        self._start = boundary(server)
        self._end: Boundary | None = None
        self._finished = ""
        stats = server.get("/stats")["indexes"]
        self._indexes = [
            _Index(one["uid"], one["primaryKey"], one, int(stats.get(one["uid"], {}).get("numberOfDocuments", 0)))
            for one in server.pages("/indexes")
            if not one["uid"].endswith(IN_BUILD)
        ]
        self._found: dict[str, Any] = {}
        self._recorded: dict[str, Any] = {}
        self.wait_until = 0.0
        """Until this moment of the clock tasks are waited for, all in all."""
        self._hidden: list[str] = []
        self.reason = "" if asked == "full" else "Meilisearch does not tell what changed: every document is read"
        sizes = [int(stats.get(one.uid, {}).get("rawDocumentDbSize", 0)) for one in self._indexes]
        self.expected_bytes: int | None = sum(sizes) or None

    def entries(self) -> Iterator[StreamedEntry]:
        for name, content in self._state.files().items():
            yield self._made(name, content)
        for index in self._indexes:
            try:
                yield from self._index(index)
            except SourceRefused as error:
                if error.code != "index_not_found":
                    raise
                self._gone(index)
        yield self._made(SAMPLES, as_json(self._recorded))
        self._end, self._finished = boundary(self._server), to_text(self._clock.now())
        tell_hidden(self._hidden, self._listener)
        if self._settings.dump_dir is not None:
            yield from mounted_files(self._settings.dump_dir)

    def _made(self, name: str, content: bytes, *, again: bool = False) -> StreamedEntry:
        left = memoryview(content)

        def read_into(view: memoryview) -> int:
            nonlocal left
            count = min(len(view), len(left))
            view[:count], left = left[:count], left[count:]
            return count

        return StreamedEntry(name.encode(), S_IFREG | 0o600, len(content), self._now, again=again, read_into=read_into)

    def _index(self, index: _Index) -> Iterator[StreamedEntry]:
        check_primary_key(index.uid, index.primary_key, index.documents)
        kept = {name: index.view.get(name) for name in ("uid", "primaryKey", "createdAt", "updatedAt")}
        yield self._made(f"{index.folder}/index.json", as_json(kept))
        settings = index_settings(self._server, index.uid)
        self._hidden += [
            f"embedder {name} of {index.uid}"
            for name, how in (settings.get("embedders") or {}).items()
            if masked_in(how)
        ]
        yield self._made(f"{index.folder}/settings.json", as_json(settings))
        most = max(4, min(64, _SAMPLES // max(1, len(self._indexes))))
        for attempt in range(1, _ATTEMPTS + 1):
            paging = Paging(self._server, index.uid, index.primary_key)
            sampler = Sampler(index.primary_key or "id", index.documents, most)
            began = boundary(self._server)
            documents = IndexDocuments(paging, sampler, index.folder, self._now, self._earlier, again=attempt > 1)
            yield from documents.entries()
            if documents.gone:
                self._gone(index)
                return
            changing = changes_since(self._server, index.uid, began)
            self._found[index.uid] = {
                **documents.count.to_json(),
                "primary_key": index.primary_key,
                "changed_by": [int(task["uid"]) for task in changing][:_NAMED],
            }
            self._recorded[index.uid] = {"samples": sampler.samples}
            if not changing and not paging.lost:
                break
            if attempt < _ATTEMPTS:
                wait_until_idle(self._server, self._clock, self.wait_until - self._clock.monotonic(), index.uid)
            else:
                self._tell_changing(index, changing, lost=paging.lost)
        if sampler.word and not changing:
            self._search(index.uid, sampler.word)
        if attempt > 1:  # settings may have changed with the documents
            yield self._made(
                f"{index.folder}/settings.json", as_json(index_settings(self._server, index.uid)), again=True
            )

    def _search(self, uid: str, word: str) -> None:
        try:
            self._recorded[uid]["search"] = {"q": word, "hits": search(self._server, uid, word)}
        except SourceRefused:  # the key may not search; the drill does without
            return

    def _gone(self, index: _Index) -> None:
        self._found.pop(index.uid, None)
        self._recorded.pop(index.uid, None)
        message = f"the index {index.uid} was deleted while it was read; what was read of it is kept"
        self._listener(Finding("meilisearch-index-deleted", "warning", index.uid, message))

    def _tell_changing(self, index: _Index, changing: list[dict[str, Any]], *, lost: bool) -> None:
        shown = ", ".join(str(task["uid"]) for task in changing[:_NAMED])
        message = f"it changed while it was read, {_ATTEMPTS} times over (tasks {shown or 'unknown'})"
        if lost:
            message += "; documents that were deleted and added meanwhile may be missing, or in it still"
        elif any(map(deletes, changing)):
            message += "; documents that were deleted meanwhile may be in it still"
        else:
            message += "; documents that changed meanwhile are as they were before or after"
        hint = "Take backups while little is written, or mount the server's dumps: each is of one moment."
        severity: Literal["warning", "error"] = "error" if lost else "warning"
        self._listener(Finding("meilisearch-changed-meanwhile", severity, index.uid, message, hint))

    def facts(self) -> Mapping[str, Any]:
        if self._end is None:
            raise SourceError("the capture has not ended", source="meilisearch")
        still = self._start == self._end and not self._end.unfinished
        return {
            "version": self._state.version,
            "boundary": {
                "task_uid": self._start.finished,
                "task_uid_at_end": self._end.finished,
                "unfinished": list(self._start.unfinished)[:_NAMED],
                "first": self._started,
                # Where no task ended meanwhile, nothing changed: all of it is as it was at the start.
                "last": self._started if still else self._finished,
            },
            "keys": len(self._state.keys or ()),
            "indexes": self._found,
        }
