"""What a server tells of itself at a glance, for those who watch it: cheap, and nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass

from chrono_backups.sources.postgres.connection import sql
from chrono_backups.sources.postgres.wal import ServerWal, server_wal
from chrono_backups.sources.settings import PostgresSettings

# A database that the role may not enter has no size for it.
_GLANCE = """
SELECT current_setting('server_version'), pg_is_in_recovery(),
       (SELECT count(*) FROM pg_database WHERE datallowconn),
       (SELECT sum(CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'MEMBER')
                        THEN pg_database_size(oid) END)::bigint FROM pg_database)
"""


@dataclass(frozen=True)
class SeenServer:
    """A server, its databases, its log and our slot."""

    version: str
    standby: bool
    databases: int
    size: int | None
    """Bytes of all databases that the role may look at."""
    wal: ServerWal


def see(settings: PostgresSettings) -> SeenServer:
    """Raises ``SourceError``."""
    with sql(settings) as connection:
        row = connection.execute(_GLANCE).fetchone()
    version, standby, databases, size = row or ("", False, 0, None)
    return SeenServer(str(version).split()[0], standby, databases, size, server_wal(settings, settings.slot))
