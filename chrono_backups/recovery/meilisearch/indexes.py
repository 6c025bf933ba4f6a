"""Building the backup's indexes beside the present ones, and swapping them in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import RestoreError, SourceError, SourceRefused, TaskFailed
from chrono_backups.events import Finding
from chrono_backups.recovery.meilisearch.carrying import Carrier
from chrono_backups.recovery.meilisearch.content import BackedUp, BackedUpIndex
from chrono_backups.sources.meilisearch.client import Meilisearch, of_index
from chrono_backups.sources.meilisearch.names import IN_BUILD
from chrono_backups.sources.meilisearch.server_state import masked_in

BATCH = 16 * 1024 * 1024
"""Bytes of documents that are sent at once; a server takes 100 MB where nothing else is set."""
_UID_MOST = 400
_UNKNOWN = re.compile(r"Unknown field `(\w+)`")
_EMBEDDER_TROUBLE = ("embed", "vector")


def built_beside(uid: str) -> str:
    """The name under which an index is built."""
    if len(uid) + len(IN_BUILD) <= _UID_MOST:
        return uid + IN_BUILD
    digest = hashlib.sha256(uid.encode()).hexdigest()[:16]
    return uid[: _UID_MOST - len(IN_BUILD) - len(digest)] + digest + IN_BUILD


@dataclass
class Building:
    """What was done and found so far."""

    documents: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)


class Builder:
    """Builds indexes on a server. What it made it can take away again, whatever happens."""

    def __init__(self, server: Meilisearch, clock: Clock, content: BackedUp, told: Callable[[Building], None]) -> None:
        self._server = server
        self._carrier = Carrier(server, clock)
        self._content = content
        self._told = told
        self.done = Building()
        self._made: list[str] = []

    def build(self, index: BackedUpIndex, *, settings: Mapping[str, Any] | None = None) -> None:
        """Build an index beside the present one: its settings first, so that documents are indexed once."""
        uid = built_beside(index.uid)
        self._made.append(uid)
        self._carrier.create(uid, index.primary_key)
        self._set(uid, index.uid, dict(settings if settings is not None else self._content.settings(index.uid)))
        for batch in self._content.batches(index.uid, BATCH):
            self._carrier.add(uid, batch)
            self.done.bytes += len(batch)
            self.done.documents += batch.count(b"\n")
            self._told(self.done)
        self._carrier.settle()
        found = self._carrier.count(uid)
        if found != index.documents:
            message = f"{index.uid} has {found} documents, and the backup {index.documents}"
            if not index.changed:
                raise RestoreError(message, hint="See what the server logged; what was there is untouched.")
            self.done.findings.append(
                Finding("meilisearch-count", "warning", index.uid, f"{message}: it changed while it was captured")
            )

    def _set(self, uid: str, name: str, settings: dict[str, Any]) -> None:
        """Settings, less what this server does not know and what the backup can't have."""
        settings = self._without_masked(name, settings)
        while True:
            try:
                self._carrier.do("PATCH", of_index(uid, "/settings"), settings)
                return
            except SourceRefused as error:
                unknown = _UNKNOWN.search(error.message)
                if unknown is None or settings.pop(unknown[1], _NOTHING) is _NOTHING:
                    raise
                self._find(
                    "setting-unknown", name, f"the server does not know the setting {unknown[1]}; it is left out"
                )
            except TaskFailed as error:
                keyless = self._keyless(settings)
                if not keyless or not any(
                    word in f"{error.code} {error.message}".lower() for word in _EMBEDDER_TROUBLE
                ):
                    raise
                settings = deepcopy(settings)
                for one in keyless:
                    del settings["embedders"][one]
                what = f"the server refuses {', '.join(keyless)} without API key; set with its key once more"
                self._find("embedder-left-out", name, what, "error")

    def _without_masked(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        settings = deepcopy(settings)
        for embedder, how in (settings.get("embedders") or {}).items():
            if isinstance(how, dict) and masked_in(how.get("apiKey")):
                del how["apiKey"]
                self._find("embedder-without-key", name, f"the embedder {embedder} is restored without its API key")
        return settings

    @staticmethod
    def _keyless(settings: Mapping[str, Any]) -> list[str]:
        embedders = settings.get("embedders") or {}
        return [one for one, how in embedders.items() if how.get("source") != "userProvided" and "apiKey" not in how]

    def _find(self, code: str, name: str, message: str, severity: Any = "warning") -> None:
        hint = "Set it: PATCH /indexes/UID/settings/embedders." if "embedder" in code else ""
        self.done.findings.append(Finding(f"meilisearch-{code}", severity, name, message, hint))

    def swap_in(self, uids: list[str], present: set[str]) -> None:
        """Let what was built take the place of what is there, all at once."""
        new = [uid for uid in uids if uid not in present]
        for uid in new:  # both sides of a swap must exist
            self._made.append(uid)
            self._carrier.create(uid, None)
        # From here on these names may be the restored indexes: only a swap that surely failed gives them back.
        self._made = [uid for uid in self._made if uid not in new]
        try:
            self._carrier.swap([(uid, built_beside(uid)) for uid in uids])
        except TaskFailed:
            self._made += new
            raise

    def take_away(self) -> None:
        """Remove what was there before the swap. Failing that is a finding."""
        for uid in self._made:
            try:
                self._carrier.do("DELETE", of_index(uid))
            except (TaskFailed, SourceError) as error:
                message = f"the index {uid} could not be removed: {error.message}"
                self.done.findings.append(Finding("meilisearch-left-over", "warning", uid, message, "Delete it."))

    def give_up(self) -> None:
        """Have what was built removed, after a failure: tasks are worked off in order, so that it need not be
        waited for. What can't be asked for now is done by the next restore.
        """
        with suppress(SourceError):
            self._carrier.cancel_open()
            for uid in self._made:
                self._server.send("DELETE", of_index(uid))

    def clear(self, uids: list[str]) -> None:
        """Remove what an earlier restore that was killed left behind."""
        for uid in uids:
            self._carrier.do("DELETE", of_index(uid))


_NOTHING = object()
