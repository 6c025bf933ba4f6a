"""What reacts to proven backups: replication. Who is told what has a file of its own (``alerting.py``)."""

import dagster as dg

from chrono_backups.orchestration.names import TRIGGER_TAG
from chrono_backups.orchestration.replicas import GROUP


def build_replication_sensor() -> dg.AutomationConditionSensorDefinition:
    """Starts a run per storage once a backup was made and its blocking checks passed."""
    return dg.AutomationConditionSensorDefinition(
        name="replication",
        target=dg.AssetSelection.groups(GROUP),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        run_tags={TRIGGER_TAG: "replication"},
        description="Copies each backup, once it is made and proven, to the other storages.",
    )
