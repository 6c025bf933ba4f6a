"""Drilling a tree: restored to a throwaway directory and read back."""

from __future__ import annotations

import time
from pathlib import Path

from chrono_backups.events import Listener, Progress
from chrono_backups.recovery.drill_report import SourceDrill
from chrono_backups.recovery.plan import plan_restore
from chrono_backups.recovery.postgres.proof import Proof
from chrono_backups.recovery.readback import read_back
from chrono_backups.recovery.restore import restore
from chrono_backups.repository.records import Manifest, SnapshotSummary
from chrono_backups.repository.repository import Repository

_READ_BACK = frozenset({"files", "configuration"})


def drill_tree(
    repository: Repository,
    manifest: Manifest,
    summary: SnapshotSummary,
    target: Path,
    done: SourceDrill,
    listener: Listener,
) -> None:
    """Restore a tree and, unless it is PostgreSQL's dumps, read it back."""
    plan = plan_restore(repository, manifest.backup_id, target, sources=[summary.source])
    report = restore(repository, plan, listener=listener)
    done.files, done.bytes, done.ready_seconds = report.files, report.bytes, report.seconds
    done.findings += report.findings
    if summary.source not in _READ_BACK:
        return
    proof = Proof("read back")
    began = time.monotonic()
    listener(Progress("drill", "read back", 0, 0))
    compared = read_back(
        repository, repository.snapshot(summary.snapshot_id), target / summary.source, listener=listener
    )
    proof.seconds = time.monotonic() - began
    proof.done = f"{compared.entries:,} entries, {compared.bytes:,} bytes compared"
    proof.findings = compared.findings
    for finding in proof.findings:
        listener(finding)
    done.proofs.append(proof)
