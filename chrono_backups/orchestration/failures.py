"""How the package's errors become Dagster's: what is passing is retried, the rest fails at once and says why.

Only ``StorageUnavailable`` and ``SourceUnavailable`` are passing. Cancelling raises a ``BaseException``
in the step: nothing here, and nothing that uses this, catches it without raising it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from chrono_backups.errors import BackupFailed, ChronoBackupsError, SourceUnavailable, StorageUnavailable
from chrono_backups.orchestration import recording

RETRIES = 3
FIRST_WAIT_SECONDS = 10
PASSING = (StorageUnavailable, SourceUnavailable)

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext


def may_retry(context: StepContext) -> bool:
    """Whether this attempt of the step is not its last one."""
    return context.retry_number < RETRIES


@contextmanager
def explained(context: StepContext) -> Iterator[None]:
    """Turn the package's errors into a retry of this step or a failure with a message, a hint and the facts."""
    try:
        yield
    except PASSING as error:
        if not may_retry(context):
            raise failure(error) from recording.fit_to_show(error)
        wait = FIRST_WAIT_SECONDS * 2**context.retry_number
        said = recording.redact(str(error))
        context.log.warning(f"{said} (attempt {context.retry_number + 1} of {RETRIES + 1}, next in {wait} s)")
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from recording.fit_to_show(error)
    except ChronoBackupsError as error:
        raise failure(error) from recording.fit_to_show(error)
    except Exception as error:
        if recording.fit_to_show(error) is None:
            said = recording.redact(f"{type(error).__name__}: {error}")
            raise dg.Failure(said, allow_retries=False) from None
        raise


def failure(error: ChronoBackupsError) -> dg.Failure:
    """The failure that shows ``error``: its message, what the operator can do, and the facts it carries."""
    recording.failed(error)
    metadata: dict[str, dg.RawMetadataValue] = {"error": type(error).__name__}
    if error.hint:
        metadata["hint"] = recording.redact(error.hint)
    for name in ("storage", "operation", "key", "source"):
        if fact := getattr(error, name, ""):
            metadata[name] = fact
    if isinstance(error, BackupFailed) and error.failures:
        metadata["failures"] = {str(source): recording.redact(reason) for source, reason in error.failures.items()}
    description = f"{error}\n{error.hint}" if error.hint else str(error)
    return dg.Failure(recording.redact(description), metadata=metadata, allow_retries=False)
