"""The operator's own commands around a capture: a file system snapshot, a maintenance page.

A hook runs in a shell with ``CHRONO_BACKUP_ID`` and ``CHRONO_BACKUP_TYPE`` in its environment, and without
the settings that hold secrets of ours.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from chrono_backups.backup.plan import BackupPlan
from chrono_backups.backup.settings import HooksSettings
from chrono_backups.errors import BackupFailed
from chrono_backups.events import Finding, Listener

_OURS = ("BACKUP_", "POSTGRES_", "REDIS_", "MEILISEARCH_")
_SAID_MOST = 2000


class Hooks:
    """Runs the configured commands; one that isn't configured is nothing."""

    def __init__(self, settings: HooksSettings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener

    def before(self, plan: BackupPlan) -> None:
        """Raises ``BackupFailed`` where ``BACKUP_HOOK_BEFORE`` fails: the backup must not be taken."""
        failure = _run(self._settings.before, plan)
        if failure:
            raise BackupFailed(f"BACKUP_HOOK_BEFORE {failure}", hint="Run the command by hand; see what it says.")

    def after(self, plan: BackupPlan) -> None:
        """Runs whatever became of the backup; its failure is a finding."""
        self._report("BACKUP_HOOK_AFTER", _run(self._settings.after, plan))

    def failed(self, plan: BackupPlan) -> None:
        """Runs when the backup failed; its own failure is a finding."""
        self._report("BACKUP_HOOK_FAILED", _run(self._settings.failed, plan))

    @contextmanager
    def around(self, plan: BackupPlan) -> Iterator[None]:
        """BEFORE, then what is in the ``with``, then FAILED if it raised, and AFTER in any case."""
        try:
            self.before(plan)
            yield
        except BaseException:
            self.failed(plan)
            raise
        finally:
            self.after(plan)

    def _report(self, name: str, failure: str) -> None:
        if failure:
            self._listener(Finding("hook-failed", "warning", name, failure, "Run the command by hand."))


def _run(command: str | None, plan: BackupPlan) -> str:
    """Run a hook; what to say where it failed, or nothing."""
    if not command:
        return ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environment |= {"CHRONO_BACKUP_ID": plan.backup_id, "CHRONO_BACKUP_TYPE": plan.type}
    done = subprocess.run(  # noqa: S602 - the operator's own command line
        command,
        shell=True,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode == 0:
        return ""
    said = done.stdout.decode("utf-8", "replace").strip()[-_SAID_MOST:]
    return f"failed with exit status {done.returncode}" + (f": {said}" if said else "")
