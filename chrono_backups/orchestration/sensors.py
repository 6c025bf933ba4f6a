"""What reacts: replication to proven backups, and a clear line about every failed run."""

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


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=30)
def failed_runs(context: dg.RunFailureSensorContext) -> None:
    """Writes one line for every failed run to the daemon's log, where log collectors find it."""
    run = context.dagster_run
    what = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ())) or run.job_name
    steps = (event.step_failure_data for event in context.get_step_failure_events())
    said = [step.user_failure_data.description for step in steps if step.user_failure_data is not None]
    why = "; ".join(one for one in said if one) or context.failure_event.message
    context.log.error(f"FAILED {what} {context.partition_key or ''} run {run.run_id}: {why}")
