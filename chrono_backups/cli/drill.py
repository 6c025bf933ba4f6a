"""``drill``: restore a backup to a throwaway place, start it, and prove that it is what was captured."""

from __future__ import annotations

import argparse

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DAMAGED, DONE, FAILED
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import safe_message
from chrono_backups.cli.terminal.progress import finding_line
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.events import Finding
from chrono_backups.identifiers import SOURCE_NAMES
from chrono_backups.recovery.drill import drill
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport
from chrono_backups.recovery.postgres.proof import Proof
from chrono_backups.recovery.postgres.target import parse_target
from chrono_backups.repository.evidence import evidence

DESCRIPTION = """\
Restore a backup to a throwaway directory (BACKUP_DRILL_DIR) and find out whether it is what was captured. Files and
configuration are read back and compared. A PostgreSQL cluster is started on a private socket, recovered to the end of
its base backup (with --target-time on to that), its databases, rows, visibility maps, tables, indexes and pages are
checked, and it is shut down. Redis and Meilisearch are restored online into servers of the drill's own, and every key
and document is compared. All of it is removed again, and what was found is kept in the repository as evidence:
retention keeps the newest backup that a drill has proven.
"""


def register(subparsers: Subparsers) -> None:
    """The words of ``drill``."""
    parser = add_verb(
        subparsers,
        "drill",
        DESCRIPTION,
        [
            ("", "the newest backup"),
            ("full_20260104_020000 --source postgres", "one backup's database"),
            ("latest --target-time latest", "with all the WAL that is stored since"),
            ("--list", "the evidence of earlier drills"),
        ],
    )
    parser.add_argument("id", metavar="ID", nargs="?", default="latest", help="a backup (default: `latest`)")
    parser.add_argument(
        "--source",
        metavar="NAME",
        action="append",
        default=[],
        choices=SOURCE_NAMES,
        help="this source only; may be repeated (default: all, which alone proves the backup)",
    )
    parser.add_argument(
        "--target-time",
        metavar="ISO",
        help="recover a cluster to this time as well, or to `latest`, the end of its WAL",
    )
    parser.add_argument("--no-amcheck", action="store_true", help="don't have pg_amcheck read every table and index")
    parser.add_argument("--list", action="store_true", help="show what earlier drills found, and do nothing")
    add_storage_option(parser, "drill the repository in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Drill, and tell. Exit code 3 where stored data is damaged, 1 where what was restored is otherwise not right."""
    if arguments.list:
        return _list(arguments, context)
    settings = context.settings
    options = DrillOptions.of(
        settings.drill_dir,
        settings.drill_checks,
        settings.postgres,
        settings.redis,
        settings.meilisearch,
        target=parse_target(arguments.target_time),
        structure=not arguments.no_amcheck,
        sources=tuple(dict.fromkeys(arguments.source)),
    )
    context.when_cancelled = "what was restored is removed, and no evidence is kept"
    undertaken = context.undertake("drill", "drill-failed")
    with context.repository(arguments.storage) as repository:
        manifest = repository.backup(arguments.id, options.sources)
        context.about(manifest.backup_id)
        with context.progress() as listener:
            report = drill(repository, manifest, options, listener=listener)
    undertaken.backup_id = report.backup_id
    if report.proven:
        undertaken.proven = report.backup_id, "drill"
    if not report.good:
        undertaken.findings.append(_not_proven(report))
    lines = _lines(report)
    if report.good:
        context.output.report(report.to_json(), lines)
        return DONE
    context.output.show(report.to_json(), lines)
    damaged = any(finding.code in _DAMAGE for finding in report.errors)
    return DAMAGED if damaged else FAILED


_DAMAGE = frozenset({"drill-damaged", "file-damaged"})


def _not_proven(report: DrillReport) -> Finding:
    """What others have to hear of a drill that did not succeed; health tells the same of its evidence."""
    bad = [finding for one in report.sources for finding in one.findings if finding.severity == "error"]
    bad += [finding for one in report.sources for proof in one.proofs for finding in proof.findings]
    first = f", the first: {bad[0].subject}: {bad[0].message}" if bad else ""
    what = f"what was restored is not right: {quantities.count(len(bad), 'fault')}{first}"
    return Finding("drill-failed", "error", report.backup_id, what, "`chrono-backups drill --list` tells of it.")


def _lines(report: DrillReport) -> list[str]:
    rows = [
        (one.source, proof.name, _result(proof), quantities.duration(proof.seconds), proof.done)
        for one in report.sources
        for proof in one.proofs
    ]
    rows += [
        (
            "checks",
            one.name,
            "good" if one.good else "BAD",
            quantities.duration(one.seconds),
            one.problem or f"{one.left} against {one.right}",
        )
        for one in report.checks
    ]
    seconds = (report.finished_at - report.started_at).total_seconds()
    reached = next((one.reached for one in report.sources if one.reached), None)
    verdict = "proven" if report.proven else "good, as far as it was drilled" if report.good else "NOT PROVEN"
    return [
        *(table(("SOURCE", "PROOF", "RESULT", "TOOK", "WHAT"), rows, right=("TOOK",)) if rows else []),
        *(safe_message(finding_line(finding)) for finding in report.errors),
        *facts(
            [
                ("drill of", report.backup_id),
                ("verdict", f"{verdict}, in {quantities.duration(seconds)}"),
                ("recovery", f"{quantities.duration(report.recovery_seconds)} until all of it stood"),
                ("together", report.point.note if report.point is not None else ""),
                ("reached", f"{reached['lsn']}, timeline {reached['timeline']}" if reached else ""),
                ("evidence", report.evidence or "could not be stored"),
            ]
        ),
    ]


def _result(proof: Proof) -> str:
    if not proof.good:
        return "BAD"
    return "good" if proof.done else "not done"


def _list(arguments: argparse.Namespace, context: Context) -> int:
    with context.repository(arguments.storage) as repository:
        found = evidence(repository, None if arguments.id == "latest" else arguments.id)
    rows = [
        (
            one.backup_id,
            quantities.moment(one.started_at),
            quantities.duration((one.finished_at - one.started_at).total_seconds()),
            "proven" if one.proven else "good in part" if one.details.get("good") else "NOT PROVEN",
        )
        for one in found
    ]
    header = ("BACKUP", "DRILLED (UTC)", "TOOK", "VERDICT")
    context.output.show([one.to_json() for one in found], table(header, rows, right=("TOOK",)) if rows else [])
    if not found:
        context.output.message("There was no drill yet: `chrono-backups drill` does one.")
    return DONE
