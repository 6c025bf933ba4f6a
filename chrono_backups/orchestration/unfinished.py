"""Backups that were begun and have no manifest yet: how a failed or cancelled run lets go of them."""

from contextlib import suppress

from chrono_backups.assembly import Application
from chrono_backups.backup import service
from chrono_backups.backup.service import BackupPlan
from chrono_backups.errors import ChronoBackupsError, LeaseLost
from chrono_backups.events import Listener
from chrono_backups.repository.repository import Repository


def give_up(application: Application, repository: Repository, planned: BackupPlan, listener: Listener) -> None:
    """Run the operator's FAILED and AFTER hooks and release the lease, once for each backup.

    Never raises an error of ours: nothing may take the place of the failure, or of the interruption,
    that ends the run. What was stored is used by the next backup; a lease that stays runs out by itself.
    """
    try:
        repository.leases.find(planned.backup_id)
    except LeaseLost:
        return  # another step gave up already
    except ChronoBackupsError:
        pass
    hooks = application.hooks(listener)
    for let_go in (hooks.failed, hooks.after):
        with suppress(ChronoBackupsError, OSError):
            let_go(planned)
    with suppress(ChronoBackupsError):
        service.abandon(repository, planned)
