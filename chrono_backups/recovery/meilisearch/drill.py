"""Drilling a Meilisearch: restored into a server of the drill's own by the same code that restores one in place.

Where this machine has no program of a server, what is stored is read through instead, and the drill says that no server
was asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import RestoreError
from chrono_backups.events import Finding, Listener
from chrono_backups.recovery.checks.judge import Ask
from chrono_backups.recovery.drill_report import DrillOptions, SourceDrill
from chrono_backups.recovery.in_place import Wanted
from chrono_backups.recovery.meilisearch.asking import ask_meilisearch, ask_stored
from chrono_backups.recovery.meilisearch.content import BackedUp
from chrono_backups.recovery.meilisearch.indexes import BATCH
from chrono_backups.recovery.meilisearch.proofs import (
    check_content,
    check_documents,
    check_keys,
    check_samples,
    check_searches,
    check_settings,
)
from chrono_backups.recovery.meilisearch.restore import plan_for
from chrono_backups.recovery.meilisearch.throwaway import find_program, throwaway
from chrono_backups.recovery.postgres.proof import proved
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.meilisearch.client import Meilisearch, Server

_LOOKED_AT = 1000
"""Documents in which vectors are looked for, to learn how long they are."""
_EXPECTED = frozenset(
    {"meilisearch-master-key", "meilisearch-embedders-without-keys", "meilisearch-chat-without-key",
     "meilisearch-webhook-without-key"}
)  # fmt: skip
"""Findings of a restore that a drill always has: its server has a master key of its own, and calls nobody."""


def check_drill(options: DrillOptions) -> None:
    """Raises ``RestoreError`` where the program that is named is none."""
    named = options.meilisearch_bin
    if named is not None and find_program(named) is None:
        raise RestoreError(f"{named} can't be run", hint="Set BACKUP_MEILISEARCH_BIN to the server's program.")


def drill_meilisearch(
    repository: Repository,
    manifest: Manifest,
    directory: Path,
    options: DrillOptions,
    done: SourceDrill,
    listener: Listener,
    standing: Callable[[Ask], None],
) -> None:
    """Drill the Meilisearch of a backup below ``directory``; what is found goes into ``done``.

    ``standing`` is called once a server stands and was found right or wrong, with who can ask it; without a server with
    who can ask what is stored.
    """
    program = find_program(options.meilisearch_bin)
    if program is None:
        content = BackedUp(repository, manifest)
        done.proofs.append(proved("content", check_content(content), listener))
        message = "what is stored was read through; no server was started, for this machine has no meilisearch"
        found = Finding("drill-without-server", "warning", "meilisearch", message, "Set BACKUP_MEILISEARCH_BIN.")
        done.findings.append(found)
        listener(found)
        standing(ask_stored(content))
        return
    with restored(repository, manifest, directory, program, done, listener) as (server, content):
        prove(server, content, repository.clock, done, listener)
        with Meilisearch(server, repository.clock) as asked:
            standing(ask_meilisearch(asked))


@contextmanager
def restored(
    repository: Repository,
    manifest: Manifest,
    directory: Path,
    program: Path,
    done: SourceDrill,
    listener: Listener,
) -> Iterator[tuple[Server, BackedUp]]:
    """A throwaway server that holds the backup, while the context lasts. Raises ``RestoreError``, ``Damaged``."""
    began = repository.clock.monotonic()
    with throwaway(program, directory, repository.clock) as server:
        plan = plan_for(repository, manifest, server, repository.clock, Wanted())
        content = plan.content
        plan.overrides = {uid: offline(content, uid) for uid in content.indexes}
        plan.offline = True
        report = plan.execute(listener)
        done.files, done.bytes = report.items, report.bytes
        done.ready_seconds = repository.clock.monotonic() - began
        found = [*plan.findings, *report.findings]
        done.findings += [one for one in found if one.code not in _EXPECTED]
        yield server, content


def prove(server: Server, content: BackedUp, clock: Clock, done: SourceDrill, listener: Listener) -> None:
    """Ask everything of a server that a backup was restored to."""
    with Meilisearch(server, clock) as asked:
        version = str(asked.get("/version").get("pkgVersion"))
        same = version.split(".")[:2] == content.version.split(".")[:2]
        for name, ask in (
            ("documents", check_documents(asked, content)),
            ("settings", check_settings(asked, content)),
            ("samples", check_samples(asked, content)),
            ("searches", check_searches(asked, content, same_version=same)),
            ("keys", check_keys(asked, content)),
        ):
            done.proofs.append(proved(name, ask, listener))


def offline(content: BackedUp, uid: str) -> dict[str, Any]:
    """An index's settings with embedders that call nobody, and take the vectors that come with the documents."""
    settings = content.settings(uid)
    embedders = settings.get("embedders") or {}
    if embedders:
        found = _dimensions(content, uid, set(embedders))
        settings["embedders"] = {
            name: {
                "source": "userProvided",
                "dimensions": found.get(name) or how.get("dimensions") or 1,
                **({"binaryQuantized": True} if how.get("binaryQuantized") else {}),
            }
            for name, how in embedders.items()
        }
    return settings


def _dimensions(content: BackedUp, uid: str, names: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    looked_at = 0
    for batch in content.batches(uid, BATCH // 16):
        for line in batch.splitlines():
            looked_at += 1
            for name, one in json.loads(line).get("_vectors", {}).items():
                vectors = one.get("embeddings") if isinstance(one, dict) else one
                if vectors:
                    found[name] = len(vectors[0]) if isinstance(vectors[0], list) else len(vectors)
            if names <= set(found) or looked_at >= _LOOKED_AT:
                return found
    return found
