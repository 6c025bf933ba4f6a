"""``replicate``: copy what is missing to the other storages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from chrono_backups.cli.arguments import Subparsers, add_storage_option, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.errors import Cancelled, ChronoBackupsError, StorageDenied, StorageUnavailable, UsageError
from chrono_backups.events import Finding
from chrono_backups.identifiers import STORAGE_NAMES, StorageName
from chrono_backups.maintenance.replicate import ReplicationReport
from chrono_backups.maintenance.replicate import replicate as copy_objects

DESCRIPTION = """\
Copy every object that another storage's replica misses. A replica is the whole repository under the same
id and keys: any one of them restores alone. `backup` does this by itself; this verb repairs a replica
that failed, or fills a new storage, whose place `init --storage NAME` has made.
"""


@dataclass(frozen=True)
class Replica:
    """What became of one storage's replica: a report, or an error."""

    storage: StorageName
    report: ReplicationReport | None = None
    error: ChronoBackupsError | None = None

    @property
    def fault(self) -> str:
        """Why the replica has not all that it should; empty where it has."""
        if self.report is None:
            return str(self.error)
        if self.report.ok:
            return ""
        errors = [str(finding) for finding in self.report.findings if finding.severity == "error"]
        withheld = f"it is without {', '.join(self.report.withheld)}" if self.report.withheld else ""
        return "; ".join([*filter(None, [withheld]), *errors])

    def to_json(self) -> dict[str, Any]:
        if self.report is not None:
            return {"storage": self.storage, "ok": self.report.ok, "error": None, **self.report.to_json()}
        error = {"kind": type(self.error).__name__, "message": str(self.error)}
        return {"storage": self.storage, "ok": False, "error": error}


def register(subparsers: Subparsers) -> None:
    """The words of ``replicate``."""
    parser = add_verb(
        subparsers,
        "replicate",
        DESCRIPTION,
        [
            ("", "to every other enabled storage"),
            ("--to sftp", "to that one"),
            ("--storage aws_s3 --to local", "the other way round, after a disk was replaced"),
        ],
    )
    parser.add_argument(
        "--to",
        metavar="NAME",
        choices=STORAGE_NAMES,
        help=f"the storage to copy to: {', '.join(STORAGE_NAMES)} (default: every other enabled storage)",
    )
    add_storage_option(parser, "copy from the repository in this storage")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Copy to one or all; exit code 4 where only some could be reached."""
    context.when_cancelled = "the replica is whole as far as it goes, and the next run copies the rest"
    others = _others(context, arguments.storage)
    if arguments.to is not None:
        if arguments.to not in others:
            raise UsageError(
                f"{arguments.to} is not another enabled storage (enabled: {', '.join(others) or 'no other'})",
                hint="A storage is enabled by its BACKUP_…_ENABLED setting.",
            )
        others = [arguments.to]
    if not others:
        raise UsageError(
            "there is no other enabled storage to replicate to",
            hint="Enable a second one (BACKUP_LOCAL_MIRROR_PATH, BACKUP_AWS_ENABLED, …).",
        )
    undertaken = context.undertake("replication", "replication-failed")
    replicas = copy(context, others, arguments.storage)
    undertaken.findings += filter(None, map(finding_of, replicas))
    errors = [replica.error for replica in replicas if replica.error is not None]
    if len(errors) == len(replicas):
        for error in errors[1:]:
            context.output.warning(str(error))
        raise errors[0]
    context.output.report({"replicas": [replica.to_json() for replica in replicas]}, facts(facts_of(replicas)))
    faulty = [replica for replica in replicas if replica.fault]
    for replica in faulty:
        context.output.warning(f"{replica.storage} has no complete replica: {replica.fault}")
    return PARTIAL if faulty else DONE


def finding_of(replica: Replica) -> Finding | None:
    """What others have to hear of it; nothing where it is whole."""
    if not replica.fault:
        return None
    if isinstance(replica.error, StorageUnavailable | StorageDenied):
        code = "storage-unavailable" if isinstance(replica.error, StorageUnavailable) else "storage-denied"
        return Finding(code, "error", replica.storage, f"it gets no replica: {replica.fault}", replica.error.hint)
    hint = f"Mend it, then `chrono-backups replicate --to {replica.storage}`."
    return Finding("replica-missing", "error", replica.storage, f"the replica is not complete: {replica.fault}", hint)


def to_others(context: Context) -> list[Replica]:
    """Copy what is missing from the primary storage to every other enabled one."""
    others = _others(context, None)
    return copy(context, others, None) if others else []


def copy(context: Context, names: Sequence[StorageName], origin: StorageName | None) -> list[Replica]:
    """Copy to each of ``names``. One that fails does not stop the next."""
    replicas = []
    with context.repository(origin) as repository, context.progress() as listener:
        for name in names:
            try:
                # Never made here: a mirror that is not mounted must not be filled on the disk below it.
                with (
                    closing(context.application.storage(name)) as storage,
                    context.application.limits.operation(name, listener),
                ):
                    report = copy_objects(repository, storage, listener=listener)
            except Cancelled:
                raise
            except ChronoBackupsError as error:
                replicas.append(Replica(name, error=error))
            else:
                replicas.append(Replica(name, report))
    return replicas


def facts_of(replicas: Sequence[Replica]) -> list[tuple[str, str]]:
    """One fact a replica."""
    return [("replica", f"{replica.storage}: {_outcome(replica.report)}") for replica in replicas]


def _outcome(report: ReplicationReport | None) -> str:
    if report is None:
        return "FAILED"
    copied = f"{quantities.count(report.objects_copied, 'object')} copied, {quantities.size(report.bytes_copied)}"
    return f"{copied}, {report.objects_present:,} there before, in {quantities.duration(report.seconds)}"


def _others(context: Context, origin: StorageName | None) -> list[StorageName]:
    enabled = context.settings.storages
    return [name for name in enabled if name != (origin or context.settings.primary_storage)]
