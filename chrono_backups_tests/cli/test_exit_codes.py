"""The table of exit codes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import chrono_backups
from chrono_backups import errors
from chrono_backups.cli import exit_codes, verbs
from chrono_backups.cli.exit_codes import EXIT_CODES


def every_class(kind: type[errors.ChronoBackupsError] = errors.ChronoBackupsError) -> Iterator[type]:
    yield kind
    for one in kind.__subclasses__():
        yield from every_class(one)


def test_every_error_has_a_row() -> None:
    for module in pkgutil.walk_packages(chrono_backups.__path__, "chrono_backups."):
        if not module.name.endswith("__main__") and module.name != "chrono_backups.definitions":  # they run
            importlib.import_module(module.name)
    ours = {kind for kind in every_class() if kind.__module__.startswith("chrono_backups.")}
    assert ours == set(EXIT_CODES)


def test_every_code_is_documented() -> None:
    documented = {int(line.split()[0]) for line in verbs.EXIT_CODES_HELP.splitlines()[1:]}
    assert set(EXIT_CODES.values()) | {exit_codes.DONE, exit_codes.PARTIAL} == documented


def test_a_class_without_a_row_takes_its_ancestors() -> None:
    class Flooded(errors.StorageUnavailable):
        pass

    assert exit_codes.exit_code(Flooded("wet")) == 6


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.WrongKey, 2),
        (errors.BackupMissing, 3),
        (errors.TargetNotEmpty, 5),
        (errors.StorageUnavailable, 6),
        (errors.SourceUnavailable, 6),
        (errors.Cancelled, 130),
        (errors.BackupFailed, 1),
    ],
)
def test_what_operators_rely_on(kind: type[errors.ChronoBackupsError], code: int) -> None:
    assert EXIT_CODES[kind] == code
