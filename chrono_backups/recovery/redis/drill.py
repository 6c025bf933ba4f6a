"""Drilling Redis: restored online into a server of the drill's own, by the code that restores one in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from chrono_backups.errors import RestoreError
from chrono_backups.events import Listener
from chrono_backups.recovery.drill_report import DrillOptions, SourceDrill
from chrono_backups.recovery.in_place import Stores, Wanted
from chrono_backups.recovery.postgres.proof import proved
from chrono_backups.recovery.redis.dumps import dumps_of
from chrono_backups.recovery.redis.proofs import (
    Summary,
    check_content,
    check_counts,
    check_functions,
    check_sample,
    held_by,
    stored_in,
)
from chrono_backups.recovery.redis.restore import plan_redis
from chrono_backups.recovery.redis.target import newest_rdb
from chrono_backups.recovery.redis.throwaway import find_program, program_version, throwaway
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.redis.records import Record
from chrono_backups.sources.settings import MeilisearchSettings, RedisSettings

Standing = Callable[[RedisSettings], None]
"""The restored server runs, and is reached so: what is done before it is ended."""


_NEWEST_KNOWN = (8, 0)


def check_redis(repository: Repository, manifest: Manifest, options: DrillOptions) -> None:
    """Raises ``RestoreError`` where this machine has no server that could read the backup's files."""
    program = find_program(options.redis_programs)
    major, minor = program_version(program)
    newest = max(dump.rdb_version for dump in dumps_of(repository, manifest))
    known = (major, minor) <= _NEWEST_KNOWN  # what a newer one reads is found out when it runs
    if known and newest > newest_rdb(f"{major}.{minor}"):
        raise RestoreError(
            f"{program} is Redis {major}.{minor}, and the backup's RDB version {newest} needs a newer one",
            hint="Set BACKUP_REDIS_BIN_DIR to the folder of a redis-server as new as the one that is backed up.",
        )


def drill_redis(
    repository: Repository,
    manifest: Manifest,
    directory: Path,
    options: DrillOptions,
    done: SourceDrill,
    listener: Listener,
    standing: Standing,
) -> None:
    """Drill the Redis of a backup below ``directory``; what is found goes into ``done``."""
    began = time.monotonic()
    dumps = dumps_of(repository, manifest)
    most = max((number for dump in dumps for number in dump.databases), default=0)
    with throwaway(find_program(options.redis_programs), directory, most + 1) as settings:
        stores = Stores(settings, MeilisearchSettings(), repository.clock)
        plan = plan_redis(repository, manifest, stores, Wanted())
        plan.check()
        report = plan.execute(listener)
        done.files, done.bytes = report.items, report.bytes
        done.findings += report.findings
        done.ready_seconds = time.monotonic() - began
        expired = int(report.details.get("expired", 0))
        now = time.time() * 1000

        def left_out(one: Record) -> bool:
            """Where keys are restored one by one, those whose time had passed are not."""
            return expired > 0 and one.expires_ms is not None and one.expires_ms <= now

        def each() -> tuple[Iterable[Record], Iterable[Record]]:
            return stored_in(dumps), held_by(settings, repository.clock)

        stored = Summary(stored_in(dumps), left_out=left_out)
        held = Summary(held_by(settings, repository.clock), left_out=left_out)
        for name, ask in (
            ("counts", check_counts(held, dumps, expired)),
            ("content", check_content(stored, held, each)),
            ("sample", check_sample(settings, dumps)),
            ("functions", check_functions(settings, dumps, cluster=len(dumps) > 1)),
        ):
            done.proofs.append(proved(name, ask, listener))
        standing(settings)
