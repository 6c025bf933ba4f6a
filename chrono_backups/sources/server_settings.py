"""Which servers are asked for their own configuration, for the source ``configuration``."""

from __future__ import annotations

from collections.abc import Mapping

from chrono_backups.clock import Clock
from chrono_backups.events import Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.sources.configuration import Told
from chrono_backups.sources.settings import MeilisearchSettings, PostgresSettings, RedisSettings


def tellers(
    postgres: PostgresSettings, redis: RedisSettings, meilisearch: MeilisearchSettings, clock: Clock
) -> dict[SourceName, Told]:
    """Source → what asks its server."""

    def ask_postgres(listener: Listener) -> Mapping[str, bytes]:
        from chrono_backups.sources.postgres.configuration import server_settings  # noqa: PLC0415 - a large driver

        return server_settings(postgres, listener)

    def ask_redis(listener: Listener) -> Mapping[str, bytes]:
        from chrono_backups.sources.redis.told import server_settings  # noqa: PLC0415 - as above

        return server_settings(redis, listener)

    def ask_meilisearch(listener: Listener) -> Mapping[str, bytes]:
        from chrono_backups.sources.meilisearch.configuration import server_settings  # noqa: PLC0415 - as above

        return server_settings(meilisearch, clock, listener)

    return {"postgres": ask_postgres, "redis": ask_redis, "meilisearch": ask_meilisearch}
