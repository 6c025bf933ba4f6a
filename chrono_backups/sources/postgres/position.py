"""Where PostgreSQL's log is now: asked at the boundary of another store, so that a recovery can meet it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from chrono_backups.boundary import PostgresPosition
from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.postgres.connection import sql, translated
from chrono_backups.sources.settings import PostgresSettings

_POSITION = """
SELECT CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text,
       CASE WHEN standby THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
       clock_timestamp(),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s AND slot_type = 'physical' AND active)
       OR EXISTS (SELECT FROM pg_stat_archiver WHERE last_archived_time > coalesce(last_failed_time, '-infinity'))
FROM (SELECT pg_is_in_recovery() AS standby) AS server
"""
"""What is inserted, not what is flushed: a commit that does not wait for the disk is seen before it is flushed."""


@contextmanager
def positions(
    settings: PostgresSettings, near: SourceName, listener: Listener
) -> Iterator[Callable[[], PostgresPosition | None]]:
    """What tells the position whenever it is called, over a connection that is made before.

    Where the server can't be asked it tells nothing, and ``listener`` hears of it once: the capture of ``near`` is not
    to fail for that.
    """
    told = False

    def tell(error: SourceError) -> None:
        nonlocal told
        if not told:
            told = True
            message = f"PostgreSQL could not be asked for its position at this boundary: {error.message}"
            hint = "A restore then recovers PostgreSQL to the end of its base backup, a little before the others."
            listener(Finding("no-postgres-position", "warning", near, message, hint))

    with ExitStack() as held:
        try:
            connection = held.enter_context(sql(settings))
        except SourceError as error:
            tell(error)
            yield lambda: None
            return

        def position() -> PostgresPosition | None:
            try:
                with translated(settings):
                    row = connection.execute(_POSITION, [settings.slot]).fetchone()
            except SourceError as error:
                tell(error)
                return None
            return PostgresPosition(*row) if row is not None else None

        yield position
