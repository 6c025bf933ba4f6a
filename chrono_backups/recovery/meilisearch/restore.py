"""Restoring a Meilisearch in place: planned with both sides looked at, and carried out beside what is there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import EntryMissing, SourceError, UsageError
from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.in_place import StoreReport, Stores, Wanted
from chrono_backups.recovery.meilisearch.content import BackedUp, BackedUpIndex
from chrono_backups.recovery.meilisearch.indexes import Builder, Building
from chrono_backups.recovery.meilisearch.server_side import another_master_key, bring_back, set_features
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.meilisearch.client import Meilisearch, Server
from chrono_backups.sources.meilisearch.names import IN_BUILD
from chrono_backups.sources.meilisearch.server_state import masked_in, version_of
from chrono_backups.sources.meilisearch.tasks import unfinished_tasks

_SHOWN = 10


def plan_meilisearch(repository: Repository, manifest: Manifest, stores: Stores, wanted: Wanted) -> MeilisearchPlan:
    """As ``in_place.Planner``: what of the backup goes to the configured server."""
    if stores.meilisearch.host is None:
        raise UsageError("there is no Meilisearch to restore to", hint="Set BACKUP_MEILISEARCH_HOST.")
    if wanted.databases:
        raise UsageError("Meilisearch has no numbered databases", hint="Choose indexes: --path 'movies*'.")
    return plan_for(repository, manifest, Server.of(stores.meilisearch), stores.clock, wanted)


def plan_for(
    repository: Repository, manifest: Manifest, target: Server, clock: Clock, wanted: Wanted
) -> MeilisearchPlan:
    """A restore to that server. Raises ``EntryMissing`` where no index is chosen, ``SourceError``, ``Damaged``."""
    content = BackedUp(repository, manifest)
    chosen = [index for uid, index in content.indexes.items() if _matches(uid, wanted.patterns)]
    if wanted.patterns and not chosen:
        held = ", ".join(list(content.indexes)[:_SHOWN]) or "none"
        message = f"no index of {manifest.backup_id} is chosen by {', '.join(wanted.patterns)}"
        raise EntryMissing(message, hint=f"It has {held}.")
    with Meilisearch(target, clock) as server:
        version = version_of(server)
        present = {
            one["uid"]: int(stats.get("numberOfDocuments", 0))
            for stats_of in [server.get("/stats")["indexes"]]
            for one in server.pages("/indexes")
            for stats in [stats_of.get(one["uid"], {})]
        }
        findings = _findings(server, content, chosen, version, whole=wanted.everything)
    return MeilisearchPlan(
        manifest.backup_id, content, target, clock, version, tuple(chosen), present, wanted.everything, findings
    )


def _matches(uid: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(uid, pattern.strip("/")) for pattern in patterns)


def _findings(
    server: Meilisearch, content: BackedUp, chosen: Sequence[BackedUpIndex], version: str, *, whole: bool
) -> list[Finding]:
    found = []
    if _numbers(version) < _numbers(content.version):
        message = f"the server is Meilisearch {version}, and the backup is of {content.version}, which is newer"
        hint = "Settings that the server does not know are left out. Restore to the same version to have all."
        found.append(Finding("meilisearch-older-server", "warning", "meilisearch", message, hint))
    if whole and another_master_key(server, content):
        message = "the server has another master key than the backup's: the keys get other values"
        hint = "Start the server with the old master key, or give the applications the new values (GET /keys)."
        found.append(Finding("meilisearch-master-key", "warning", "meilisearch", message, hint))
    hidden = [index.uid for index in chosen if masked_in(content.settings(index.uid).get("embedders"))]
    if hidden:
        message = f"embedders of {', '.join(hidden[:_SHOWN])} come without their API keys, which no server gives out"
        hint = "Set them afterwards: PATCH /indexes/UID/settings/embedders."
        found.append(Finding("meilisearch-embedders-without-keys", "warning", "meilisearch", message, hint))
    waiting = unfinished_tasks(server)
    if waiting:
        message = f"{len(waiting)} tasks are under way on the server; what they write before the swap is overwritten"
        found.append(Finding("meilisearch-tasks-under-way", "warning", "meilisearch", message))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())


@dataclass
class MeilisearchPlan:
    """A restore to a server, computed and not yet carried out."""

    backup_id: str
    content: BackedUp
    target: Server
    clock: Clock
    version: str
    """Of the server."""
    indexes: tuple[BackedUpIndex, ...]
    present: Mapping[str, int]
    """The server's indexes, and how many documents each has."""
    whole: bool
    """Keys, features, network, chats and webhooks too."""
    findings: Sequence[Finding] = field(default_factory=list)
    source: SourceName = "meilisearch"
    when_cancelled: str = (
        f"every index has its old content, or, once all were swapped in, its new; indexes …{IN_BUILD} are removed"
    )
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings that take the place of the backup's, by index."""
    offline: bool = False
    """Nothing is set that makes the server call others: no network, no webhooks."""

    @property
    def replaced(self) -> list[str]:
        """Indexes whose content is replaced."""
        return [one.uid for one in self.indexes if one.uid in self.present]

    def facts(self) -> Sequence[tuple[str, str]]:
        documents, size = sum(one.documents for one in self.indexes), sum(one.bytes for one in self.indexes)
        kept = [uid for uid in self.present if uid not in self.replaced and not uid.endswith(IN_BUILD)]
        return [
            ("server", f"{self.target.url}, Meilisearch {self.version} (the backup: {self.content.version})"),
            ("indexes", f"{_named([one.uid for one in self.indexes])}: {documents:,} documents, {size:,} bytes"),
            ("replaced", _named([f"{uid} ({self.present[uid]:,} documents)" for uid in self.replaced])),
            ("untouched", _named(kept)),
            ("beside", "keys, experimental features, network, chats" if self.whole else ""),
        ]

    def check(self) -> None:
        """Nothing is refused: what is there stays until all is built, and the server says where it has no room."""

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "server": self.target.url,
            "version": self.version,
            "backup_version": self.content.version,
            "indexes": [{"uid": one.uid, "documents": one.documents, "bytes": one.bytes} for one in self.indexes],
            "replaced": {uid: self.present[uid] for uid in self.replaced},
            "whole": self.whole,
            "findings": [finding.to_json() for finding in self.findings],
        }

    def execute(self, listener: Listener) -> StoreReport:
        """Build every index beside the present one, swap all in at once, remove the old ones."""
        report = StoreReport("meilisearch")
        began = time.monotonic()
        total = sum(one.bytes for one in self.indexes), sum(one.documents for one in self.indexes)

        def told(done: Building) -> None:
            listener(Progress("restore", "meilisearch", done.bytes, done.documents, *total))

        with Meilisearch(self.target, self.clock) as server:
            builder = Builder(server, self.clock, self.content, told)
            self._carry_out(server, builder)
        report.items, report.bytes = builder.done.documents, builder.done.bytes
        report.findings = builder.done.findings
        for finding in report.findings:
            listener(finding)
        report.details = {"indexes": [one.uid for one in self.indexes], "replaced": self.replaced}
        report.seconds = time.monotonic() - began
        return report

    def _carry_out(self, server: Meilisearch, builder: Builder) -> None:
        find = builder.done.findings.append
        turned_on: dict[str, bool] = {}
        try:
            builder.clear([uid for uid in self.present if uid.endswith(IN_BUILD)])
            if self.whole:
                turned_on = set_features(server, self.content.json("experimental-features.json") or {}, find)
            for index in self.indexes:
                builder.build(index, settings=self.overrides.get(index.uid))
            if self.indexes:
                builder.swap_in([one.uid for one in self.indexes], set(self.present))
        except BaseException:
            builder.give_up()
            if turned_on:
                with suppress(SourceError):
                    server.send("PATCH", "/experimental-features", turned_on)
            raise
        builder.take_away()
        if self.whole:
            bring_back(server, self.content, find, offline=self.offline)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
