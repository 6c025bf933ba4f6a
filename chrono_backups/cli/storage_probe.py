"""``storage test``: what it does, and how its result is shown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chrono_backups.cli.context import Context
from chrono_backups.cli.exit_codes import DONE, FAILED, PARTIAL
from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.tables import facts
from chrono_backups.errors import ChronoBackupsError, UsageError
from chrono_backups.identifiers import StorageName
from chrono_backups.storage.probe import ProbeReport, probe

if TYPE_CHECKING:
    from chrono_backups.assembly import Application

MEGABYTE = 1_000_000
_ATTEMPTS = 3
_SWITCHES: Mapping[StorageName, str] = {
    "local": "BACKUP_LOCAL_ENABLED",
    "aws_s3": "BACKUP_AWS_ENABLED",
    "gcs": "BACKUP_GCS_ENABLED",
    "azure_blob": "BACKUP_AZURE_ENABLED",
    "sftp": "BACKUP_SFTP_ENABLED",
}


def overrides(words: Sequence[str], name: StorageName | None) -> dict[str, str]:
    """The variables of ``--set``; a storage that is named is enabled by that. Raises ``UsageError``."""
    given = {_SWITCHES[name]: "true"} if name is not None and name in _SWITCHES else {}
    for number, word in enumerate(words, 1):
        variable, equals, value = word.partition("=")
        if not equals or not variable.startswith("BACKUP_"):
            # Not the word itself: it may be a secret whose name was forgotten.
            raise UsageError(f"--set number {number} is not VARIABLE=VALUE with a BACKUP_… variable")
        given[variable] = value
    return given


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Try out one storage or all; exit code 4 where some are well and others are not."""
    context.override(overrides(arguments.set, arguments.name))
    context.when_cancelled = "objects of the test below `storage-test/` may be left; nothing needs them"
    settings = context.settings
    names = settings.storages if arguments.name is None else (arguments.name,)
    if not names:
        raise UsageError("no storage is enabled", hint="Name one, with --set for what it needs.")
    reports: list[ProbeReport] = []
    errors: list[tuple[StorageName, ChronoBackupsError]] = []
    for name in names:
        try:
            reports.append(_probe(context, name, round(arguments.megabytes * MEGABYTE)))
        except ChronoBackupsError as error:
            errors.append((name, error))
    if not reports:
        for name, other in errors[1:]:
            context.output.warning(told(name, other))
        raise errors[0][1]
    _show(context, reports, errors)
    well = sum(report.ok for report in reports)
    if well == len(names):
        return DONE
    return PARTIAL if well else FAILED


def _probe(context: Context, name: StorageName, size: int) -> ProbeReport:
    from chrono_backups.assembly import Application  # noqa: PLC0415 - the engine: wrong words do without

    settings = context.settings
    section = getattr(settings, name, None)
    locks = bool(getattr(section, "lock_days", 0))
    if section is not None and locks:  # or else the test's own objects would stay for as long
        settings = settings.model_copy(update={name: section.model_copy(update={"lock_days": 0})})
    application = Application(settings, clock=context.clock, attempts=_ATTEMPTS)
    with _place(application, name) as made, context.progress() as listener:
        return probe(
            lambda: application.storage(name, create=made),
            size=size,
            locks=locks,
            clock=context.clock,
            listener=listener,
        )


@contextmanager
def _place(application: Application, name: StorageName) -> Iterator[bool]:
    """Have the storage's place for the time of the test; whether drivers are to make it."""
    from chrono_backups.storage.borrowed_place import borrowed_place  # noqa: PLC0415 - as above

    local = application.settings.local
    path = local.mirror_path if name == "local_mirror" else local.path
    if name not in {"local", "local_mirror"} or path is None:
        yield name == "sftp"
        return
    with borrowed_place(path, lambda: application.storage(name, create=True).close()):
        yield False


def _show(
    context: Context, reports: Sequence[ProbeReport], errors: Sequence[tuple[StorageName, ChronoBackupsError]]
) -> None:
    failed = [
        {
            "storage": name,
            "ok": False,
            "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
        }
        for name, error in errors
    ]
    document = {"storages": [*({**report.to_json(), "error": None} for report in reports), *failed]}
    lines = [line for report in reports for line in _lines(report)]
    context.output.show(document, lines[:-1])
    for name, error in errors:
        context.output.warning(told(name, error))
    for report in reports:
        for step in report.steps:
            if not step.ok:
                context.output.warning(f"{report.storage}: {step.name}: {step.message}")
        if report.left_behind:
            left = quantities.count(len(report.left_behind), "object")
            context.output.warning(f"{report.storage}: {left} of the test could not be removed again")


def told(name: StorageName, error: ChronoBackupsError) -> str:
    """The error on one line that names the storage, once."""
    named = error.message if error.message.startswith(name) else f"{name}: {error.message}"
    return f"{named} ({error.hint})" if error.hint else named


def _lines(report: ProbeReport) -> Iterator[str]:
    yield f"{report.storage}: {report.location}"
    rights = ["read", "write", "list"]
    rights += ["delete"] * report.may_delete + ["lock"] * bool(report.may_lock)
    yield from facts(
        [
            *((step.name, f"{'ok' if step.ok else 'FAILED'}: {step.message}") for step in report.steps),
            ("rights", ", ".join(rights) + ("" if report.may_delete else "; not: delete")),
            ("latency", f"{report.latency * 1000:.1f} ms"),
            ("upload", f"{quantities.size(report.upload)}/s"),
            ("download", f"{quantities.size(report.download)}/s"),
            ("verdict", "it can hold a repository" if report.ok else "IT CAN'T HOLD A REPOSITORY"),
        ],
        indent="  ",
    )
    yield ""
