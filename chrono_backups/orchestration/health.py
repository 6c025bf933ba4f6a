"""Health in the UI: an asset that stands for the whole, observed by a sensor, with a check that says what is wrong.

Nothing makes the asset. Its observations plot how the storages fill, and its check can be run by hand at any time.
"""

from collections.abc import Sequence

import dagster as dg

from chrono_backups import settings as settings_module
from chrono_backups.clock import SystemClock
from chrono_backups.errors import NotificationError
from chrono_backups.events import Finding
from chrono_backups.monitoring.bounded import Bounded
from chrono_backups.monitoring.health import HealthReport
from chrono_backups.orchestration.metadata import Metadata, findings_table, table
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.oversight import alerts, check_health, tell_health
from chrono_backups.settings import Settings

GROUP = "health"
HEALTH = dg.AssetKey("backup_health")
HEALTH_CHECK = "healthy"

HEALTH_ASSET = dg.AssetSpec(
    HEALTH,
    group_name=GROUP,
    description=(
        "Whether everything is there that a restore will need: storages, sources, room, every schedule's backup,"
        " replicas, WAL, drills, retention. Observed every BACKUP_HEALTH_CHECK_INTERVAL seconds where"
        " BACKUP_HEALTH_CHECK_ENABLED says so."
    ),
)


@dg.asset_check(
    asset=HEALTH, name=HEALTH_CHECK, description="Nothing is wrong; a warning is a failed check that is no error."
)
def healthy(backups: BackupsResource) -> dg.AssetCheckResult:
    """Look now."""
    report = check_health(backups.load(), SystemClock())
    return dg.AssetCheckResult(
        asset_key=HEALTH,
        check_name=HEALTH_CHECK,
        passed=report.status == "healthy",
        severity=_severity(report),
        description=_words(report),
        metadata=_metadata(report),
    )


def build_health_sensor(settings: Settings) -> dg.SensorDefinition:
    """Looks every BACKUP_HEALTH_CHECK_INTERVAL seconds, and shows what it saw on the asset."""
    bounded = Bounded()  # kept from tick to tick: what hangs is not asked again

    @dg.sensor(
        name="health",
        minimum_interval_seconds=settings.health.interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at storages, sources and backups, and shows what is wrong on the asset backup_health.",
    )
    def health(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        loaded, clock = settings_module.load(), SystemClock()
        report = check_health(loaded, clock, bounded)
        try:
            for message in tell_health(alerts(loaded, clock), report):
                context.log.info(f"to be told: {message.headline}")
        except NotificationError as error:  # the next look tells it
            context.log.error(f"{error} {error.hint}")
        metadata = _metadata(report)
        evaluation = dg.AssetCheckEvaluation(
            asset_key=HEALTH,
            check_name=HEALTH_CHECK,
            passed=report.status == "healthy",
            severity=_severity(report),
            description=_words(report),
            metadata=metadata,
        )
        observation = dg.AssetObservation(HEALTH, description=_words(report), metadata=metadata)
        return dg.SensorResult(asset_events=[observation, evaluation])

    return health


def is_watched(settings: Settings) -> bool:
    """Whether health is looked at by itself: as its setting says or, unsaid, where there is somebody to tell."""
    said = "enabled" in settings.health.model_fields_set
    return settings.health.enabled or (not said and bool(settings.notifications.channels))


def _severity(report: HealthReport) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if report.status == "critical" else dg.AssetCheckSeverity.WARN


def _worth(report: HealthReport) -> list[Finding]:
    return [one for one in report.findings if one.severity != "info"]


def _words(report: HealthReport) -> str:
    found = _worth(report)
    if not found:
        return "Everything is there that a restore will need."
    first = f"{found[0].subject}: {found[0].message}"
    return f"{report.status}: {first}" + (f", and {len(found) - 1} more" if len(found) > 1 else "")


def _metadata(report: HealthReport) -> Metadata:
    found: Sequence[Finding] = _worth(report)
    shown: Metadata = {
        "status": dg.MetadataValue.text(report.status),
        "checks": dg.MetadataValue.md(table(("check", "status"), list(report.checks.items()))),
        "findings": dg.MetadataValue.int(len(found)),
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
    }
    for name, value in report.to_json()["metrics"].items():
        if isinstance(value, int | float):
            shown[name] = dg.MetadataValue.float(float(value))
        elif value is not None:
            shown[name] = dg.MetadataValue.text(value)
    if found:
        shown["what_was_found"] = dg.MetadataValue.md(findings_table(found))
    return shown
