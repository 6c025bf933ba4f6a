"""``restore``: put data back, whole, by source or by path."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from chrono_backups.cli import restore_cluster, restore_whole
from chrono_backups.cli.arguments import Subparsers, add_backup_argument, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE, PARTIAL
from chrono_backups.cli.restore_cluster import ClusterRestore
from chrono_backups.cli.restore_plan import conclusion, lines
from chrono_backups.cli.restore_safety import secure
from chrono_backups.errors import UsageError
from chrono_backups.identifiers import SOURCE_NAMES
from chrono_backups.recovery.plan import RestorePlan, plan_restore
from chrono_backups.recovery.point import RecoveryPoint
from chrono_backups.recovery.postgres.restore import SOURCE
from chrono_backups.recovery.restore import RestoreReport
from chrono_backups.recovery.restore import restore as carry_out

DESCRIPTION = """\
Put back what a backup holds: into an empty directory (--to), or over what is there now (--in-place). It needs the
repository, the key and this program, nothing else. Into DIR go DIR/files/… and DIR/configuration/…, each with the
original absolute path below it, DIR/postgres, a data directory, and DIR/redis/dump.rdb. The plan is made first, and
space is checked before the first byte.

A cluster is recovered to a target once its server is started, by --start or by the operator: to the end of the base
backup, or with --target-… to a later moment. For `latest` the base backup that suits the target is chosen. A target
that can't be reached is refused, and what can be is named.

--in-place is the consent to overwrite. A safety backup of what is there comes first and its id is printed;
--no-safety-backup leaves it out. With --to as well all sources come back as one recovery point: PostgreSQL into DIR, to
where it meets the other stores or to the target, then configuration, files, Meilisearch and Redis in place. Whatever
ends it early, it is said which of them are old and which are new.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``restore``."""
    parser = add_verb(
        subparsers,
        "restore",
        DESCRIPTION,
        [
            ("latest --to /srv/restored", "everything"),
            ("latest --to /tmp/r --path '/srv/app/media/**'", "what a pattern matches"),
            ("latest --to /tmp/r --source configuration --dry-run", "the plan only"),
            ("latest --to /srv/r --target-time 2026-01-04T14:05:00Z --start", "the database as it was then"),
            ("full_20260104_020000 --in-place --source files", "over the present files, after a safety backup"),
            ("latest --in-place --to /srv/pg --start", "the whole recovery point, with PostgreSQL beside the old one"),
        ],
    )
    add_backup_argument(parser)
    parser.add_argument(
        "--to",
        metavar="DIR",
        help="restore into DIR, which is empty or does not exist; with --in-place PostgreSQL's data directory alone",
    )
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="restore over the original places what --source names, or with --to the whole recovery point",
    )
    parser.add_argument(
        "--source",
        metavar="NAME",
        action="append",
        default=[],
        choices=SOURCE_NAMES,
        help=f"restore this source ({', '.join(SOURCE_NAMES)}); may be repeated (default with --to: all)",
    )
    parser.add_argument(
        "--path",
        metavar="PATTERN",
        action="append",
        default=[],
        help="restore what this pattern matches, and all below it; may be repeated (default: everything)",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, and write nothing")
    parser.add_argument("--no-safety-backup", action="store_true", help="overwrite without a backup of what is there")
    add_storage_option(parser, "restore from the repository in this storage")
    restore_cluster.add_options(parser)
    restore_whole.add_options(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Plan, show, secure what is there, carry out. Exit code 3 or 4 where a file could not be put back."""
    _check(arguments)
    if restore_whole.is_meant(arguments):
        return restore_whole.run(arguments, context)
    target = None if arguments.to is None else Path(os.path.abspath(arguments.to))
    safety = None
    with context.reading(arguments.storage) as repository:
        manifest, point = restore_cluster.choose(repository, arguments)
        context.about(manifest.backup_id)
        cluster = None
        if target is not None and restore_cluster.is_asked_for(manifest, arguments):
            goal = point.target if point is not None else None
            cluster = ClusterRestore(arguments, context, repository, manifest, target, goal)
        plan = plan_restore(
            repository,
            manifest.backup_id,
            target,
            sources=tuple(dict.fromkeys(arguments.source)),
            patterns=tuple(arguments.path),
            in_place=arguments.in_place,
            placed=cluster.placed if cluster else None,
            captures=point.captures if point is not None else None,
        )
        _show_plan(context, plan, cluster, arguments, point)
        if arguments.dry_run:
            return _dry_run(context, plan, cluster, point)
        if arguments.in_place:
            safety = secure(
                arguments, context, plan.backup_id, [one.source for one in plan.sources], repository.storage.name
            )
        if cluster is not None:
            plan.check()
            cluster.check()
        context.when_cancelled = _state(plan)
        with context.progress() as listener:
            report = carry_out(
                repository, plan, listener=listener, arrangements={SOURCE: cluster.arrangement} if cluster else None
            )
            for finding in cluster.findings() if cluster else ():
                listener(finding)
                report.findings.append(finding)
        if cluster is not None:
            cluster.start()
    return _conclude(context, plan, report, safety, cluster)


def _check(arguments: argparse.Namespace) -> None:
    """Raises ``UsageError`` for words that don't go together."""
    if not arguments.in_place and arguments.to is None:
        raise UsageError("a restore needs a place to go to", hint="Give --to DIR, or --in-place --source NAME.")
    restore_cluster.check_words(arguments)
    if arguments.in_place and arguments.to is None and SOURCE in arguments.source:
        raise UsageError(
            "a cluster is not restored in place: it would be over a server that runs",
            hint="Restore it with --to DIR --start, look at it, then let it take the old one's place.",
        )
    if arguments.in_place and arguments.to is None and not arguments.source:
        raise UsageError(
            "--in-place needs --source",
            hint="Say what may be overwritten: --in-place --source files; or with --to DIR, for PostgreSQL, all of it.",
        )
    if arguments.no_safety_backup and not arguments.in_place:
        raise UsageError("--no-safety-backup goes with --in-place only: --to overwrites nothing")


def _show_plan(
    context: Context,
    plan: RestorePlan,
    cluster: ClusterRestore | None,
    arguments: argparse.Namespace,
    point: RecoveryPoint | None,
) -> None:
    """On standard output; on standard error where ``--json`` has that one, before an overwriting restore."""
    if not context.output.json:
        if arguments.dry_run or not context.output.quiet:
            told = restore_whole.point_lines(point) if point is not None and len(point.parts) > 1 else []
            context.output.lines([*lines(plan), *(cluster.plan_lines() if cluster else []), *told])
    elif arguments.in_place and not arguments.dry_run:
        context.output.message("\n".join(lines(plan)))


def _dry_run(context: Context, plan: RestorePlan, cluster: ClusterRestore | None, point: RecoveryPoint | None) -> int:
    """Ends as the restore itself would where it would be refused."""
    plan.check()
    if context.output.json:
        told = {"point": point.to_json()} if point is not None else {}
        context.output.document({"dry_run": True, "plan": _plan_document(plan, cluster), **told})
    context.output.message("Nothing was written.")
    return DONE


def _state(plan: RestorePlan) -> str:
    if plan.in_place:
        return f"each file holds either its old or its new content; restore {plan.backup_id} again for the rest"
    return f"nothing was left in {plan.target}"


def _plan_document(plan: RestorePlan, cluster: ClusterRestore | None) -> dict[str, Any]:
    document = plan.to_json()
    if cluster is not None and cluster.plan is not None:
        document["postgres"] = cluster.plan.to_json()
    return document


def _conclude(
    context: Context,
    plan: RestorePlan,
    report: RestoreReport,
    safety: str | None,
    cluster: ClusterRestore | None,
) -> int:
    document = {
        "dry_run": False,
        "in_place": plan.in_place,
        "safety_backup_id": safety,
        "plan": _plan_document(plan, cluster),
        **report.to_json(),
        **(cluster.document() if cluster else {}),
    }
    context.output.report(document, [*conclusion(plan, report, safety), *(cluster.lines() if cluster else [])])
    if cluster is not None:
        cluster.advise()
    if report.damaged:
        context.output.warning(f"{report.damaged:,} files are damaged in the repository and were left out")
        return DAMAGED
    return PARTIAL if any(finding.severity == "error" for finding in report.findings) else DONE
