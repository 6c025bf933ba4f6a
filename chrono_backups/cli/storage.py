"""``storage``: what the storages are, whether they do what is needed, how full they are."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from chrono_backups.cli import storage_probe
from chrono_backups.cli.arguments import Parser, Subparsers, add_global_options, add_verb
from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, PARTIAL, exit_code
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import facts, table
from chrono_backups.errors import ChronoBackupsError, RepositoryMissing, UsageError
from chrono_backups.identifiers import STORAGE_NAMES, StorageName
from chrono_backups.storage.locking import lock_days

if TYPE_CHECKING:
    from chrono_backups.assembly import Application
    from chrono_backups.storage.base import Storage

DESCRIPTION = """\
`list` shows the enabled storages, `usage` what each of them holds, by kind of object. `test` writes, reads, lists and
deletes objects of its own in a storage, has parallel writers race for a name (some stores only pretend to know "create
once"), measures, says what the account may do, and leaves nothing behind; it needs no repository there. `extend-locks`
extends the locks of what backups rely on, where the storage locks objects; `prune` does so too.
"""
_ATTEMPTS = 2
T = TypeVar("T")


def register(subparsers: Subparsers) -> None:
    """The words of ``storage`` and of what follows it."""
    parser = add_verb(
        subparsers,
        "storage",
        DESCRIPTION,
        [
            ("list", "which there are, and their state"),
            ("test", "all enabled ones"),
            ("test aws_s3 --set BACKUP_AWS_BUCKET_NAME=other", "with other settings, for this once"),
            ("usage sftp", "what lies there"),
        ],
    )
    words = "list|test|usage|extend-locks"
    actions = parser.add_subparsers(dest="action", metavar=words, required=True, parser_class=Parser)
    _action(actions, "list", "the enabled storages: where, repository, backups, use, state", named=False)
    testing = _action(actions, "test", "try a storage out: duties, races, speed, rights")
    testing.add_argument(
        "--set",
        metavar="VARIABLE=VALUE",
        action="append",
        default=[],
        help="a BACKUP_… variable for this call, over the environment's; may be repeated",
    )
    testing.add_argument(
        "--megabytes", metavar="N", type=_megabytes, default=16.0, help="move so much each way (default: 16)"
    )
    _action(actions, "usage", "objects and bytes by kind")
    _action(actions, "extend-locks", "extend the locks of what backups rely on")


def _action(actions: Subparsers, name: str, meaning: str, *, named: bool = True) -> Parser:
    parser = actions.add_parser(name, help=meaning, description=meaning)
    if named:
        parser.add_argument(
            "name",
            metavar="NAME",
            nargs="?",
            choices=STORAGE_NAMES,
            help=f"one of {', '.join(STORAGE_NAMES)} (default: all that are enabled)",
        )
    add_global_options(parser)
    return parser


def _megabytes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10_000:
        raise ValueError(text)
    return value


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Whichever was asked for."""
    if arguments.action == "test":
        return storage_probe.run(arguments, context)
    if arguments.action == "list":
        return _list(context)
    names = context.settings.storages if arguments.name is None else (arguments.name,)
    if not names:
        raise UsageError("no storage is enabled", hint="Set BACKUP_LOCAL_PATH, BACKUP_AWS_ENABLED, …")
    return _usage(context, names) if arguments.action == "usage" else _extend_locks(context, names)


def _application(context: Context) -> Application:
    from chrono_backups.assembly import Application  # noqa: PLC0415 - the engine: wrong words do without

    return Application(context.settings, clock=context.clock, attempts=_ATTEMPTS)


def _each(
    context: Context, names: Sequence[StorageName], look: Callable[[StorageName], T]
) -> dict[StorageName, T | ChronoBackupsError]:
    """What ``look`` finds in each storage, or its error; as many at once as BACKUP_MAX_PARALLEL_OPERATIONS says."""

    def guarded(name: StorageName) -> T | ChronoBackupsError:
        try:
            return look(name)
        except ChronoBackupsError as error:
            return error

    with ThreadPoolExecutor(min(len(names), context.settings.limits.max_parallel_operations)) as pool:
        return dict(zip(names, pool.map(guarded, names), strict=True))


def _conclude(context: Context, found: dict[StorageName, Any]) -> int:
    """Say what could not be looked at; raises where nothing could."""
    errors = {name: one for name, one in found.items() if isinstance(one, ChronoBackupsError)}
    for name, error in errors.items():
        context.output.warning(storage_probe.told(name, error))
    if errors and len(errors) == len(found):
        return exit_code(next(iter(errors.values())))
    return PARTIAL if errors else DONE


# List.


def _list(context: Context) -> int:
    """One that does not answer is a line too."""
    names = context.settings.storages
    if not names:
        context.output.show({"storages": []}, ["no storage is enabled"])
        return DONE
    application = _application(context)
    found = _each(context, names, lambda name: _state(application, name))
    known: str | None = None
    shown: list[dict[str, Any]] = []
    for name, state in found.items():
        if isinstance(state, ChronoBackupsError):
            described = {"state": _error_state(state), "location": None, "repository": None, "backups": None}
            described |= {"used_bytes": None, "free_bytes": None, "lock_days": None}
        else:
            described = state
            known = known or state["repository"]
            if state["repository"] not in {None, known}:
                described = {**state, "state": "another repository"}
        shown.append({"storage": name, "primary": name == names[0], **described})
    rows = [_row(one) for one in shown]
    header = ("STORAGE", "STATE", "BACKUPS", "USED", "FREE", "REPOSITORY", "WHERE")
    context.output.show({"storages": shown}, table(header, rows, right=("BACKUPS", "USED", "FREE")))
    code = _conclude(context, found)
    strangers = [one["storage"] for one in shown if one["state"] == "another repository"]
    for name in strangers:
        context.output.warning(f"{name} holds another repository than {names[0]}: nothing is replicated to it")
    return PARTIAL if strangers and code == DONE else code


def _state(application: Application, name: StorageName) -> dict[str, Any]:
    storage = application.storage(name)
    try:
        usage = storage.usage()
        described = {
            "state": "ready",
            "location": storage.location,
            "repository": None,
            "backups": None,
            "used_bytes": usage.used,
            "free_bytes": usage.free,
            "lock_days": lock_days(storage),
        }
    finally:
        storage.close()
    try:
        with application.open_repository(name) as repository:
            forgotten = set(repository.forgotten())
            backups = sum(one not in forgotten for one in repository.names("manifest"))
            return {**described, "repository": repository.id, "backups": backups}
    except RepositoryMissing:
        return {**described, "state": "no repository"}


def _error_state(error: ChronoBackupsError) -> str:
    words = {"StorageUnavailable": "unreachable", "StorageDenied": "access denied", "WrongKey": "wrong key"}
    return words.get(type(error).__name__, type(error).__name__)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    def size(value: int | None) -> str:
        return "-" if value is None else quantities.size(value)

    name = f"{one['storage']} *" if one["primary"] else one["storage"]
    backups = "-" if one["backups"] is None else f"{one['backups']:,}"
    sizes = size(one["used_bytes"]), size(one["free_bytes"])
    return (name, one["state"], backups, *sizes, (one["repository"] or "-")[:12], one["location"] or "-")


# Usage.


def _usage(context: Context, names: Sequence[StorageName]) -> int:
    """Objects and bytes by kind: one listing of each storage."""
    application = _application(context)
    found = _each(context, names, lambda name: _use(application.storage(name)))
    shown = [{"storage": name, **use} for name, use in found.items() if not isinstance(use, ChronoBackupsError)]
    lines: list[str] = []
    for one in shown:
        free = "" if one["free_bytes"] is None else f", {quantities.size(one['free_bytes'])} free"
        lines.append(f"{one['storage']}: {quantities.size(one['used_bytes'])}{free}")
        kinds = sorted(one["kinds"].items(), key=lambda kind: -kind[1]["bytes"])
        counts = [
            (kind, quantities.count(use["objects"], "object"), quantities.size(use["bytes"])) for kind, use in kinds
        ]
        lines += facts([(kind, f"{objects}, {size}") for kind, objects, size in counts], indent="  ")
    context.output.show({"storages": shown}, lines)
    return _conclude(context, found)


def _use(storage: Storage) -> dict[str, Any]:
    kinds: dict[str, dict[str, int]] = {}
    try:
        for info in storage.list():
            kind = kinds.setdefault(info.key.partition("/")[0], {"objects": 0, "bytes": 0})
            kind["objects"] += 1
            kind["bytes"] += info.size
        free = storage.usage().free if storage.name in {"local", "local_mirror", "sftp"} else None
    finally:
        storage.close()
    return {
        "used_bytes": sum(kind["bytes"] for kind in kinds.values()),
        "objects": sum(kind["objects"] for kind in kinds.values()),
        "free_bytes": free,
        "kinds": kinds,
    }


# Locks.


def _extend_locks(context: Context, names: Sequence[StorageName]) -> int:
    """One after the other: each keeps prune out meanwhile."""
    from chrono_backups.maintenance.locks import extend_locks  # noqa: PLC0415 - as above

    context.when_cancelled = "some locks were extended; the next run extends all"
    found: dict[StorageName, Any] = {}
    with context.progress() as listener:
        for name in names:
            try:
                with context.repository(name) as repository:
                    found[name] = extend_locks(repository, listener)
            except ChronoBackupsError as error:
                found[name] = error
    reports = {name: one for name, one in found.items() if not isinstance(one, ChronoBackupsError)}
    pairs = []
    for name, report in reports.items():
        until = f"locked until {quantities.moment(report.until)} UTC" if report.until else "it locks nothing"
        extended = f"{quantities.count(report.extended, 'object')} extended, " if report.extended else ""
        pairs.append((name, extended + until))
    document = {"storages": [{"storage": name, **report.to_json()} for name, report in reports.items()]}
    context.output.report(document, facts(pairs))
    return _conclude(context, found)
