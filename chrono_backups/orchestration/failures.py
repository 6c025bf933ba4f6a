"""How the package's errors become Dagster's: what is passing is retried, the rest fails at once and says why.

Only ``StorageUnavailable`` and ``SourceUnavailable`` are passing. Cancelling raises a ``BaseException``
in the step: nothing here, and nothing that uses this, catches it without raising it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from chrono_backups.errors import BackupFailed, ChronoBackupsError, SourceUnavailable, StorageUnavailable

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
            raise failure(error) from error
        wait = FIRST_WAIT_SECONDS * 2**context.retry_number
        context.log.warning(f"{error} (attempt {context.retry_number + 1} of {RETRIES + 1}, next in {wait} s)")
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from error
    except ChronoBackupsError as error:
        raise failure(error) from error


def failure(error: ChronoBackupsError) -> dg.Failure:
    """The failure that shows ``error``: its message, what the operator can do, and the facts it carries."""
    metadata: dict[str, dg.RawMetadataValue] = {"error": type(error).__name__}
    if error.hint:
        metadata["hint"] = error.hint
    for name in ("storage", "operation", "key", "source"):
        if fact := getattr(error, name, ""):
            metadata[name] = fact
    if isinstance(error, BackupFailed) and error.failures:
        metadata["failures"] = {str(source): reason for source, reason in error.failures.items()}
    description = f"{error}\n{error.hint}" if error.hint else str(error)
    return dg.Failure(description, metadata=metadata, allow_retries=False)
