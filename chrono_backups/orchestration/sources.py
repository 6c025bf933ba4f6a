"""The assets that stand for what is protected. Dagster does not make them: it only observes that they are there."""

import dagster as dg

from chrono_backups.identifiers import SourceName
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.names import KIND_TAG, WAL_ARCHIVE
from chrono_backups.orchestration.observed import LOOKS
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.orchestration.wal_archive import archives_wal, look
from chrono_backups.settings import Settings

GROUP = "sources"

SOURCE_ASSETS: dict[SourceName, dg.AssetSpec] = {
    "postgres": dg.AssetSpec(
        "postgres_database",
        group_name=GROUP,
        kinds={"postgres"},
        description="The PostgreSQL cluster at BACKUP_POSTGRES_HOST: all databases, its log (WAL), our slot.",
    ),
    "redis": dg.AssetSpec(
        "redis_store",
        group_name=GROUP,
        kinds={"redis"},
        description="The Redis server or cluster at BACKUP_REDIS_HOST: all keys with their times, functions, users.",
    ),
    "meilisearch": dg.AssetSpec(
        "meilisearch_indexes",
        group_name=GROUP,
        kinds={"meilisearch"},
        description="The indexes at BACKUP_MEILISEARCH_HOST: documents with vectors, settings; keys and features.",
    ),
    "files": dg.AssetSpec(
        "application_files",
        group_name=GROUP,
        kinds={"file"},
        description="The trees of BACKUP_FILES_PATHS: files, links, rights, owners, times.",
    ),
    "configuration": dg.AssetSpec(
        "application_configuration",
        group_name=GROUP,
        kinds={"yaml"},
        description="The files of BACKUP_CONFIGURATION_PATHS: `.env`, compose files, …; and the servers' own.",
    ),
}
"""Every source that is built; each further one joins with a line here and one in ``observed.LOOKS``."""


def configured_sources(settings: Settings) -> tuple[SourceName, ...]:
    """The sources that are built and that the settings ask for."""
    return tuple(name for name in SOURCE_ASSETS if name in settings.sources)


@dg.op
def observe(context: dg.OpExecutionContext, backups: BackupsResource) -> None:
    """Note of each source what it tells at a glance, and whether it can be reached; and how far WAL is archived."""
    with explained(context):
        application = backups.application()
        settings = application.settings
        for name in configured_sources(settings):
            seen = LOOKS[name](application)
            context.log_event(dg.AssetObservation(SOURCE_ASSETS[name].key, metadata=seen.metadata))
            for problem in seen.problems:
                context.log.warning(f"{name}: {problem}")
        if archives_wal(settings):
            found = look(application)
            context.log_event(dg.AssetObservation(WAL_ARCHIVE, metadata=found.metadata))
            for finding in found.findings:
                context.log.warning(str(finding))


@dg.job(name="observe_sources", tags={KIND_TAG: "observation"})
def observe_job() -> None:
    """Note what is protected, whether it can be reached, and how far WAL is archived."""
    observe()
