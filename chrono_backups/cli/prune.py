"""``prune``: free the space of what no backup refers to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.maintenance.locks import LockedObject
from chrono_backups.maintenance.prune import PackUse, PrunePlan, PruneReport, plan_prune, prune
from chrono_backups.maintenance.wal_retention import WalVerdict

DESCRIPTION = """\
Free the space of forgotten backups, and of the WAL from before the oldest base backup that is kept. What nothing refers
to is condemned first, and deleted by a later prune, once BACKUP_PRUNE_GRACE_HOURS have passed without a writer taking
it back: any number of backups may run meanwhile.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``prune``."""
    parser = add_verb(
        subparsers,
        "prune",
        DESCRIPTION,
        [
            ("--dry-run", "what would be condemned and deleted"),
            ("", "do it; run it daily, after `forget`"),
        ],
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, and change nothing")
    add_storage_option(parser, "the repository in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Show the plan, then carry it out."""
    context.when_cancelled = "the repository is whole; the next prune does the rest"
    grace = timedelta(hours=context.settings.retention.prune_grace_hours)
    undertaken = None if arguments.dry_run else context.undertake("retention", "retention-failed")
    with context.repository(arguments.storage) as repository, context.progress() as listener:
        plan = plan_prune(repository, grace=grace, now=context.clock.now(), listener=listener)
        if not context.output.json and (arguments.dry_run or not context.output.quiet):
            context.output.lines(_plan(plan) or ["there is nothing to prune"])
        report = None if arguments.dry_run else prune(repository, plan, listener)
    document = {"dry_run": arguments.dry_run, "plan": plan.to_json()}
    if report is None:
        context.output.report(document, [])
        context.output.message("Nothing was changed.")
        return DONE
    if undertaken is not None:
        undertaken.findings += [finding for finding in report.findings if finding.severity == "error"]
    context.output.report({**document, "report": report.to_json()}, _done(report))
    return PARTIAL if any(finding.severity == "error" for finding in report.findings) else DONE


def _plan(plan: PrunePlan) -> list[str]:
    sweep = f"{quantities.moment(plan.next_sweep)} UTC" if plan.next_sweep else ""
    records = [(len(plan.backups), "forgotten backup"), (len(plan.snapshots), "snapshot"), (len(plan.leases), "lease")]
    return facts(
        [
            ("to remove", ", ".join(quantities.count(number, what) for number, what in records if number)),
            ("to delete", _packs(plan.sweep, "condemned long enough ago")),
            ("to condemn", _packs(plan.condemn, "nothing needs them")),
            ("to copy", _packs(plan.repack, "less than half of each is needed")),
            ("to spare", _packs(plan.spare, "condemned, and needed again")),
            ("waiting", _packs(plan.waiting, f"condemned, deleted from {sweep} on" if sweep else "condemned")),
            ("held up by", ", ".join(plan.blocked_by)),
            *(("WAL", _wal(one)) for one in plan.wal),
            ("locked", _locked(plan.locked)),
        ]
    )


def _wal(verdict: WalVerdict) -> str:
    """What goes, what stays, and why."""
    going = f"{quantities.count(len(verdict.remove), 'object')}, {quantities.size(verdict.bytes_to_remove)} to delete; "
    kept = f"{quantities.count(verdict.objects_kept, 'object')}, {quantities.size(verdict.bytes_kept)} kept: "
    return (going if verdict.remove else "") + kept + verdict.reason


def _packs(packs: Sequence[PackUse], why: str) -> str:
    if not packs:
        return ""
    return f"{quantities.count(len(packs), 'pack')}, {quantities.size(sum(one.size for one in packs))}: {why}"


def _locked(locked: Sequence[LockedObject]) -> str:
    """How much the storage keeps, and until when."""
    if not locked:
        return ""
    first, last = (quantities.moment(pick(one.until for one in locked)) for pick in (min, max))
    until = f"until {first} UTC" if first == last else f"the first until {first}, the last until {last} UTC"
    size = quantities.size(sum(one.size for one in locked))
    return f"{quantities.count(len(locked), 'object')}, {size}: {until}; a prune after that deletes them"


def _done(report: PruneReport) -> list[str]:
    freed = f"{quantities.size(report.bytes_freed)}, {quantities.count(report.packs_deleted, 'pack')}"
    condemned = f"{quantities.count(report.packs_condemned, 'pack')}, {quantities.size(report.bytes_condemned)}"
    wal = quantities.count(report.wal_objects_deleted, "object")
    copied = f"{quantities.count(report.packs_repacked, 'pack')}, {quantities.size(report.bytes_repacked)}"
    return facts(
        [
            ("freed", f"{freed}, in {quantities.duration(report.seconds)}"),
            ("WAL", f"{wal} deleted" if report.wal_objects_deleted else ""),
            ("removed", quantities.count(report.backups_removed, "backup") if report.backups_removed else ""),
            ("condemned", condemned if report.packs_condemned else ""),
            ("copied", copied if report.packs_repacked else ""),
            ("locked", _locked(report.still_locked)),
            ("locks extended", quantities.count(report.locks_extended, "object") if report.locks_extended else ""),
        ]
    )
