"""Everything that Dagster is shown, made from settings. Opens no connection and reads no secret."""

import dagster as dg

from chrono_backups.orchestration.alerting import ended_runs, notifications
from chrono_backups.orchestration.backups import build_backups
from chrono_backups.orchestration.checks import build_all_checks
from chrono_backups.orchestration.drills import build_drill
from chrono_backups.orchestration.health import HEALTH_ASSET, build_health_sensor, healthy, is_watched
from chrono_backups.orchestration.jobs import build_jobs
from chrono_backups.orchestration.proofs import build_verification
from chrono_backups.orchestration.replicas import build_replicas
from chrono_backups.orchestration.resources import build_resources
from chrono_backups.orchestration.schedules import build_schedules
from chrono_backups.orchestration.sensors import build_replication_sensor
from chrono_backups.orchestration.sources import SOURCE_ASSETS, configured_sources
from chrono_backups.orchestration.wal_archive import archives_wal, build_wal_archive, build_wal_check, build_wal_sensor
from chrono_backups.settings import Settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """The code location of these settings: only what they configure is in it."""
    replicas = build_replicas(settings)
    return dg.Definitions(
        assets=[
            *(SOURCE_ASSETS[name] for name in configured_sources(settings)),
            *build_backups(settings),
            *replicas,
            build_verification(settings),
            build_drill(settings),
            *([build_wal_archive()] if archives_wal(settings) else []),
            HEALTH_ASSET,
        ],
        asset_checks=[*build_all_checks(), healthy, *([build_wal_check()] if archives_wal(settings) else [])],
        jobs=build_jobs(settings),
        schedules=build_schedules(settings),
        sensors=[
            ended_runs,
            notifications,
            *([build_replication_sensor()] if replicas else []),
            *([build_health_sensor(settings)] if is_watched(settings) else []),
            *([build_wal_sensor()] if archives_wal(settings) else []),
        ],
        resources=build_resources(settings),
        # A run is one process: the multiprocess executor imports Dagster anew in every step, and launches
        # from an asset's page would ignore an executor set on a job.
        executor=dg.in_process_executor,
    )
