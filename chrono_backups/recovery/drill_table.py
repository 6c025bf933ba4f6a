"""How each source is drilled: a source joins with a line in ``DRILLS``.

A drill restores the source into a throwaway place below a directory of its own, starts what has to run there, finds
out whether it is what was captured, and ends it. What is wrong goes into the source's ``SourceDrill``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chrono_backups.errors import Damaged
from chrono_backups.events import Listener
from chrono_backups.recovery.checks.asking import ask_files, ask_redis, ask_sql
from chrono_backups.recovery.checks.judge import Ask
from chrono_backups.recovery.checks.syntax import Asked
from chrono_backups.recovery.drill_report import DrillOptions, SourceDrill
from chrono_backups.recovery.drill_tree import drill_tree
from chrono_backups.recovery.meilisearch.drill import check_drill, drill_meilisearch
from chrono_backups.recovery.postgres.drill import drill_cluster, plan_drill
from chrono_backups.recovery.postgres.restore import holds_cluster
from chrono_backups.recovery.postgres.server import Server
from chrono_backups.recovery.redis.drill import check_redis, drill_redis
from chrono_backups.repository.records import Manifest, SnapshotSummary
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.settings import RedisSettings

Standing = Callable[[Asked, Ask], None]
"""A restored store stands, and can be asked: what is done with it before it is ended."""


def stands_alone(_asked: Asked, _ask: Ask) -> None:
    """Nothing is done with it."""


@dataclass(frozen=True)
class Drilling:
    """One source of a backup that is drilled."""

    repository: Repository
    manifest: Manifest
    summary: SnapshotSummary
    directory: Path
    """Throwaway; it does not exist yet, and is removed afterwards whatever comes."""
    options: DrillOptions
    standing: Standing = stands_alone
    """Called once everything of the source was found, while its server runs and its files are there."""


Run = Callable[[Drilling, SourceDrill, Listener], None]
"""Drill; what is found goes into the ``SourceDrill``. Other errors than findings may be raised: of the storage, the
call or the machine they end the drill of the backup, every other one counts against the source."""
Check = Callable[[Drilling], None]
"""Raises ``RestoreError`` or ``UsageError`` where this machine lacks what the drill needs; writes nothing."""


def _nothing_needed(_drilling: Drilling) -> None:
    """Of a drill that needs no programs."""


@dataclass(frozen=True)
class Drill:
    """How one source is drilled."""

    run: Run
    check: Check = _nothing_needed


def _run_tree(drilling: Drilling, done: SourceDrill, listener: Listener) -> None:
    one, source = drilling, drilling.summary.source
    drill_tree(one.repository, one.manifest, one.summary, one.directory, done, listener)
    if source == "files":
        drilling.standing(source, ask_files(drilling.directory / source))


def _run_postgres(drilling: Drilling, done: SourceDrill, listener: Listener) -> None:
    if not holds_cluster(drilling.manifest):
        return _run_tree(drilling, done, listener)

    def standing(server: Server) -> None:
        drilling.standing("sql", ask_sql(server, drilling.options.database))

    one = drilling
    return drill_cluster(one.repository, one.manifest, one.directory, one.options, done, listener, standing)


def _check_postgres(drilling: Drilling) -> None:
    if holds_cluster(drilling.manifest):
        with suppress(Damaged):  # that is said of the backup, and found again by the drill
            plan_drill(drilling.repository, drilling.manifest, drilling.directory, drilling.options)


def _run_redis(drilling: Drilling, done: SourceDrill, listener: Listener) -> None:
    def standing(server: RedisSettings) -> None:
        drilling.standing("redis", ask_redis(server))

    one = drilling
    drill_redis(one.repository, one.manifest, one.directory, one.options, done, listener, standing)


def _check_redis(drilling: Drilling) -> None:
    check_redis(drilling.repository, drilling.manifest, drilling.options)


def _run_meilisearch(drilling: Drilling, done: SourceDrill, listener: Listener) -> None:
    def standing(ask: Ask) -> None:
        drilling.standing("meilisearch", ask)

    one = drilling
    drill_meilisearch(one.repository, one.manifest, one.directory, one.options, done, listener, standing)


def _check_meilisearch(drilling: Drilling) -> None:
    check_drill(drilling.options)


DRILLS: Mapping[str, Drill] = {
    "postgres": Drill(_run_postgres, _check_postgres),
    "redis": Drill(_run_redis, _check_redis),
    "meilisearch": Drill(_run_meilisearch, _check_meilisearch),
    "files": Drill(_run_tree),
    "configuration": Drill(_run_tree),
}
"""Every source that can be drilled."""
