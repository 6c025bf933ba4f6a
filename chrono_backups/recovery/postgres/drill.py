"""Drilling a cluster: restored, started on its own, recovered, asked, shut down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from chrono_backups.events import Listener
from chrono_backups.recovery.drill_report import DrillOptions, SourceDrill
from chrono_backups.recovery.plan import plan_restore
from chrono_backups.recovery.postgres.proof import (
    check_counts,
    check_databases,
    check_pages,
    check_sample,
    check_structure,
    proved,
)
from chrono_backups.recovery.postgres.restore import (
    SOURCE,
    ClusterOptions,
    ClusterPlan,
    fetch_supply,
    plan_cluster,
    run_to_target,
)
from chrono_backups.recovery.postgres.server import THROWN_AWAY, Server
from chrono_backups.recovery.postgres.target import TARGETS
from chrono_backups.recovery.restore import restore
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

_TO_THE_END: Mapping[str, str] = {
    **{name: "" for name in TARGETS if name != "recovery_target"},
    "recovery_target": "immediate",
    "recovery_target_timeline": "current",
    "recovery_target_action": "pause",
}
"""Above the configured target: stop where the base backup ends, open for reading. The target comes last."""


def plan_drill(repository: Repository, manifest: Manifest, directory: Path, options: DrillOptions) -> ClusterPlan:
    """As ``plan_cluster``."""
    asked = ClusterOptions(target=options.target, start=True, programs=options.programs, restore_command="false")
    return plan_cluster(repository, manifest, directory, asked)


def drill_cluster(
    repository: Repository,
    manifest: Manifest,
    directory: Path,
    options: DrillOptions,
    done: SourceDrill,
    listener: Listener,
    standing: Callable[[Server], None],
) -> None:
    """Drill the cluster of a backup below ``directory``; what is found goes into ``done``.

    ``standing`` is called with the server at its target, once it was found right.

    Asked for a target behind the end of the base backup, the server stops at both: what was recorded at capture
    holds at the first only. Raises ``RestoreError`` where the server ends by itself, ``Damaged``.
    """
    clock = repository.clock
    began = clock.monotonic()
    plan = plan_drill(repository, manifest, directory, options)
    restoring = plan_restore(repository, manifest.backup_id, directory, sources=[SOURCE])
    report = restore(repository, restoring, listener=listener, arrangements={SOURCE: plan.arrangement()})
    done.files, done.bytes = report.files, report.bytes
    done.findings += report.findings
    supply = fetch_supply(repository, plan, listener=listener)
    done.ready_seconds += clock.monotonic() - began
    if options.target.kind != "end":
        settings = {**THROWN_AWAY, **_TO_THE_END}
        server, _ = run_to_target(plan, supply, clock=clock, settings=settings, listener=listener)
        _ask(server, plan, done, listener, as_captured=True)
    began = clock.monotonic()
    settings = {**THROWN_AWAY, "recovery_target_action": "promote"}
    server, reached = run_to_target(plan, supply, clock=clock, settings=settings, listener=listener)
    done.reached = reached.to_json()
    done.ready_seconds += clock.monotonic() - began
    as_captured = options.target.kind == "end"
    _ask(server, plan, done, listener, as_captured=as_captured, structure=options.structure, standing=standing)
    pages = check_pages(server.programs, plan.data, server.user, plan.facts)
    done.proofs.append(proved("pg_checksums", pages, listener))


def _ask(
    server: Server,
    plan: ClusterPlan,
    done: SourceDrill,
    listener: Listener,
    *,
    as_captured: bool,
    structure: bool = False,
    standing: Callable[[Server], None] | None = None,
) -> None:
    """Ask the server, then shut it down, whatever comes."""
    try:
        if as_captured:
            done.proofs.append(proved("databases", check_databases(server, plan.facts), listener))
            done.proofs.append(proved("sample", check_sample(server, plan.facts), listener))
        done.proofs.append(proved("visibility maps", check_counts(server), listener))
        if structure:
            done.proofs.append(proved("pg_amcheck", check_structure(server), listener))
        if standing is not None:
            standing(server)
    except BaseException:
        server.stop(fast=False)
        raise
    server.stop()
