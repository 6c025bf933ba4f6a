"""After a verb: people hear how it ended, by the channels that are set up. A verb's own result is never changed by it.

What is to be told is on the disk before anything is sent. Sending is tried for some seconds; what is not delivered by
then goes out with the next run, or by Dagster's sensor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chrono_backups.cli.context import Context
from chrono_backups.cli.interruption import TimeLimitReached
from chrono_backups.errors import BackupFailed, ChronoBackupsError, SettingsError, UsageError

if TYPE_CHECKING:
    from chrono_backups.cli.outcome import Undertaking
    from chrono_backups.notifications.alerts import Alerts
    from chrono_backups.notifications.outcome import Ended

SECONDS = 10.0


def tell(context: Context, error: BaseException | None = None) -> None:
    """Tell how the verb ended. Raises nothing: what goes wrong here is said on standard error."""
    undertaken = context.undertaken
    if undertaken is None or isinstance(error, UsageError | SettingsError):
        return
    try:
        settings = context.settings.notifications
        if settings.channels or settings.heartbeat_url is not None:
            _tell(context, context.alerts, undertaken, error)
    except KeyboardInterrupt:
        context.output.warning("stopped while notifications were sent; what was not sent is kept")
    except Exception as fault:
        context.output.warning(f"nobody could be notified: {fault}")


def _tell(context: Context, alerts: Alerts, undertaken: Undertaking, error: BaseException | None) -> None:
    from chrono_backups.notifications.heartbeat import Made, good_backup  # noqa: PLC0415 - for those who tell somebody

    alerts.ended(_ended(undertaken, error))
    made = undertaken.manifest
    if error is None and made is not None and made.status == "complete":
        good_backup(alerts, context.settings.notifications, Made.of(made), context.clock)
    if error is None and undertaken.proven is not None:
        alerts.note_proof(*undertaken.proven)
    report = alerts.flush(SECONDS)
    for name, fault in sorted({**report.faults, **report.complaints}.items()):
        context.output.warning(f"notifying by {name}: {fault}")


def _ended(undertaken: Undertaking, error: BaseException | None) -> Ended:
    from chrono_backups.notifications.outcome import Ended  # noqa: PLC0415 - as above

    ended = Ended(
        undertaken.operation,
        undertaken.event,
        findings=tuple(undertaken.findings),
        storage=undertaken.storage,
        backup_id=undertaken.backup_id,
        backup_type=undertaken.backup_type,
    )
    match error:
        case None:
            return ended
        case TimeLimitReached():
            return replace(ended, how="over-time")
        case KeyboardInterrupt():
            return replace(ended, how="cancelled", message=f"by {str(error) or 'SIGINT'}")
        case BackupFailed() if error.failures:
            why = "; ".join(f"{source}: {reason}" for source, reason in error.failures.items())
            return replace(ended.by(error), message=f"{error.message}: {why}")
        case ChronoBackupsError():
            return ended.by(error)
        case _:
            return replace(ended, how="failed", message=f"unexpected {type(error).__name__}: {error}")
