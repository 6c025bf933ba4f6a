"""The part of ``restore`` that is about PostgreSQL: its options, the plan and the end of a recovery as lines."""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chrono_backups.cli.context import Context
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import printable
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.errors import UsageError
from chrono_backups.events import Finding
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.point import LATEST, RecoveryPoint, plan_point
from chrono_backups.recovery.postgres.arrangement import ClusterArrangement
from chrono_backups.recovery.postgres.fetch_command import fetch_command
from chrono_backups.recovery.postgres.replay import Reached
from chrono_backups.recovery.postgres.restore import (
    SOURCE,
    ClusterOptions,
    ClusterPlan,
    check_way,
    choose_base,
    holds_cluster,
    plan_cluster,
    start_cluster,
)
from chrono_backups.recovery.postgres.server import user_for
from chrono_backups.recovery.postgres.target import ACTIONS, Target, parse_target
from chrono_backups.recovery.whole.parts import configuration_findings, started_document
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

if TYPE_CHECKING:
    from chrono_backups.recovery.postgres.server import Server

_TARGETS = ("target_time", "target_lsn", "target_name", "target_timeline", "target_action")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The words of ``restore`` that are about PostgreSQL."""
    group = parser.add_argument_group("PostgreSQL")
    group.add_argument(
        "--target-time",
        metavar="ISO",
        help="recover to this time (UTC where it has no offset), or `latest`: the end of the stored WAL",
    )
    group.add_argument("--target-lsn", metavar="LSN", help="recover to this position of the WAL, as 2/A0000158")
    group.add_argument("--target-name", metavar="NAME", help="recover to a point that pg_create_restore_point named")
    group.add_argument("--target-timeline", metavar="N", help="the timeline the target is on (default: the newest)")
    group.add_argument(
        "--target-action",
        metavar="ACTION",
        choices=ACTIONS,
        help=f"once it is reached: {', '.join(ACTIONS)} (default: promote)",
    )
    group.add_argument("--start", action="store_true", help="start the restored server, and follow it to the target")
    group.add_argument(
        "--tablespace-map",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="put a tablespace, named by its old place or its oid, into the directory NEW; may be repeated",
    )
    group.add_argument("--owner", metavar="USER[:GROUP]", help="whose the data directory is to be (as root)")


def check_words(arguments: argparse.Namespace) -> None:
    """Raises ``UsageError`` for words that don't go together."""
    asked = [name for name in (*_TARGETS, "start", "tablespace_map", "owner") if getattr(arguments, name)]
    if not asked:
        return
    word = f"--{asked[0].replace('_', '-')}"
    if arguments.in_place and not arguments.to and asked != ["target_time"]:
        raise UsageError(f"{word} goes with --to only", hint="A cluster is restored beside the one that runs.")
    if arguments.path and asked != ["owner"]:
        raise UsageError(
            f"{word} does not go with --path", hint="With --path files are restored, and no server set up."
        )
    by_time = arguments.id == LATEST and asked == ["target_time"]
    if arguments.source and SOURCE not in arguments.source and not by_time:
        raise UsageError(f"{word} is for the source postgres", hint="Add --source postgres.")


def target_of(arguments: argparse.Namespace) -> Target:
    """The recovery target that was asked for."""
    return parse_target(
        arguments.target_time,
        arguments.target_lsn,
        arguments.target_name,
        timeline=arguments.target_timeline,
        action=arguments.target_action or "promote",
    )


def needs(arguments: argparse.Namespace) -> Sequence[SourceName]:
    """The sources that a backup must hold to be the one meant."""
    about_cluster = any(getattr(arguments, name) for name in (*_TARGETS, "start", "tablespace_map"))
    return tuple(dict.fromkeys([*arguments.source, *([SOURCE] if about_cluster else [])]))


def choose(repository: Repository, arguments: argparse.Namespace) -> tuple[Manifest, RecoveryPoint | None]:
    """The backup that is meant, and the recovery point where that is more than a part of it or some paths.

    For ``latest`` with a target the newest base backup that comes before it, and the other sources as of then.
    """
    target, sources = target_of(arguments), tuple(dict.fromkeys(arguments.source))
    if arguments.id == LATEST and target.kind == "time" and not arguments.path:
        point = plan_point(repository, LATEST, target, sources)
        return (point.part(SOURCE) or point.parts[0]).manifest, point
    if arguments.id == LATEST and target.kind not in {"end", "latest"}:
        manifest = choose_base(repository, target, needs(arguments))
    else:
        manifest = repository.backup(arguments.id, needs(arguments))
    if arguments.path or arguments.in_place or not is_asked_for(manifest, arguments) or not holds_cluster(manifest):
        return manifest, None
    return manifest, plan_point(repository, manifest.backup_id, target, sources)


def is_asked_for(manifest: Manifest, arguments: argparse.Namespace) -> bool:
    """Whether PostgreSQL is part of the restore."""
    wanted = not arguments.source or SOURCE in arguments.source
    return wanted and (manifest.snapshot(SOURCE) is not None or SOURCE in needs(arguments))


def cluster_options(arguments: argparse.Namespace, context: Context, target: Target) -> ClusterOptions:
    """What the words ask of a cluster's restore to ``target``."""
    return ClusterOptions(
        target=target,
        tablespaces=dict(map(_mapping, arguments.tablespace_map)),
        owner=_owner(arguments.owner),
        start=bool(arguments.start),
        programs=context.settings.postgres.bin_dir,
        restore_command=fetch_command(_settings_file(context), arguments.storage),
    )


class ClusterRestore:
    """The source ``postgres`` in one run of ``restore``."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        context: Context,
        repository: Repository,
        manifest: Manifest,
        target: Path,
        goal: Target | None = None,
    ) -> None:
        """``target``: of the whole restore. ``goal``: of the recovery, where it is not what the words say.

        Raises as ``plan_cluster``.
        """
        self._context = context
        self._repository = repository
        self._start = bool(arguments.start)
        self._started: tuple[Server, Reached] | None = None
        self.plan: ClusterPlan | None = None
        owner = _owner(arguments.owner)
        if not arguments.path and (holds_cluster(manifest) or SOURCE in needs(arguments)):
            options = cluster_options(arguments, context, goal or target_of(arguments))
            self.plan = plan_cluster(repository, manifest, target, options)
            self.arrangement = self.plan.arrangement()
        else:
            self.arrangement = ClusterArrangement.of_files(target, owner)

    @property
    def placed(self) -> dict[bytes, Path]:
        return self.plan.placed if self.plan is not None else {}

    def plan_lines(self) -> list[str]:
        """What ``restore`` prints of it beside the plan."""
        plan = self.plan
        if plan is None:
            return []
        wal = f"{len(plan.path.files):,} archived files" if plan.path.files else "what the base backup holds"
        spaces = ", ".join(printable(f"{oid}: {place}") for oid, place in plan.tablespaces.items())
        return facts(
            [
                ("PostgreSQL", str(plan.facts["server_version"])),
                ("recover to", f"{plan.options.target}, timeline {plan.path.timeline}"),
                ("WAL", wal),
                ("tablespaces", spaces),
                ("programs", printable(str(plan.programs)) if plan.programs else ""),
            ]
        )

    def check(self) -> None:
        """Find out whether all WAL is true that a server started by the operator will need. Raises ``Damaged``."""
        if self.plan is not None and not self._start and self.plan.path.files:
            with self._context.progress() as listener:
                check_way(self._repository, self.plan, listener=listener)

    def start(self) -> None:
        """Start the server where that was asked for, and follow it to its target."""
        if self.plan is None or not self._start:
            return
        self._context.when_cancelled = f"the server was stopped; what was restored is in {self.plan.data}"
        with self._context.progress() as listener:
            server, supply, reached = start_cluster(
                self._repository, self.plan, clock=self._context.clock, listener=listener
            )
        if reached.state != "paused":  # a paused server still takes WAL when its operator lets it go on
            supply.remove()
        self._started = server, reached

    def document(self) -> dict[str, Any]:
        """What the JSON document has of a started server."""
        return {"started": started_document(*self._started)} if self._started is not None else {}

    def lines(self) -> list[str]:
        """What was reached."""
        return reached_lines(*self._started) if self._started is not None else []

    def findings(self) -> list[Finding]:
        """What was changed in the configuration, for people."""
        return [*configuration_findings(self.arrangement), *self._out_of_reach()]

    def _out_of_reach(self) -> list[Finding]:
        """What the restore_command needs, and the user of a server that its operator starts may not reach."""
        user = user_for(self.plan.owner) if self.plan is not None and not self._start else None
        if user is None:
            return []
        file = _settings_file(self._context)
        needed: list[tuple[Literal["r", "x"], Path]] = [("x", Path(sys.executable))]
        needed += [("r", Path(os.path.abspath(file)))] if file is not None else []
        hint = "Let that user reach it before the server is started, or restore with --start, which needs neither."
        return [
            Finding(
                "postgres-restore-command",
                "warning",
                "postgres",
                f"the restore_command can't run: {user.name}, whose server it is, may not "
                f"{'run' if what == 'x' else 'read'} {path}",
                hint,
            )
            for what, path in needed
            if not user.may(what, path)
        ]

    def advise(self) -> None:
        """Say what the operator does next with a data directory that was not started."""
        if self.plan is None or self._start:
            return
        self._context.output.message(
            f"Start PostgreSQL {self.plan.major} on {printable(str(self.plan.data))}: it recovers to "
            f"{self.plan.options.target}, by the restore_command in postgresql.auto.conf, which its user must be "
            "able to run with these settings."
        )


def reached_lines(server: Server, reached: Reached) -> list[str]:
    """A restored server that runs, and what it reached."""
    commit = f"{reached.last_commit:%Y-%m-%d %H:%M:%S.%f} {reached.last_commit:%Z}" if reached.last_commit else ""
    return facts(
        [
            ("reached", f"{reached.lsn}, timeline {reached.timeline}, in {quantities.duration(reached.seconds)}"),
            ("last commit", commit),
            ("server", f"{reached.state}, pid {server.pid}" if server.running else reached.state),
            ("connect", f"psql -h {server.sockets} -p 5432 -U {server.superuser}" if server.running else ""),
            ("log", printable(str(server.log))),
        ]
    )


def _settings_file(context: Context) -> str | None:
    return context.env_file or (".env" if Path(".env").is_file() else None)


def _mapping(text: str) -> tuple[str, Path]:
    old, equals, new = text.partition("=")
    if not equals or not old or not os.path.isabs(new):
        raise UsageError(f"{text!r} maps no tablespace", hint="Write --tablespace-map /old/place=/new/place.")
    return old, Path(new)


def _owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    user, _, group = text.partition(":")
    try:
        known = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        uid, gid = known.pw_uid, known.pw_gid
    except KeyError:
        if not user.isdigit():
            raise UsageError(f"there is no user {user}", hint="Name a user of this machine, or a number.") from None
        uid = gid = int(user)
    if group:
        try:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise UsageError(f"there is no group {group}", hint="Name a group of this machine, or a number.") from None
    if uid == 0:
        raise UsageError("a PostgreSQL server never runs as root", hint="Name another user.")
    if os.geteuid() != 0 and uid != os.geteuid():
        raise UsageError("only root can give files to other users", hint="Restore as root, or without --owner.")
    return uid, gid
