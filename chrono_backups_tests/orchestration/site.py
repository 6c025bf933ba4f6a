"""What the tests do with a site: change it, launch jobs, look at what Dagster recorded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from chrono_backups import settings
from chrono_backups.assembly import Application
from chrono_backups.clock import FrozenClock
from chrono_backups.identifiers import BackupType
from chrono_backups.orchestration.location import build_definitions
from chrono_backups.orchestration.names import backup_asset_key
from chrono_backups.repository.records import Manifest

LONGEST = timedelta(minutes=3)
"""More than a test takes."""


@dataclass
class Site:
    root: Path
    data: Path
    configuration: Path
    key: str
    instance: dg.DagsterInstance

    def application(self, moment: datetime | None = None) -> Application:
        loaded = settings.load()
        return Application(loaded) if moment is None else Application(loaded, clock=FrozenClock(moment))

    def definitions(self) -> dg.Definitions:
        return build_definitions(settings.load())

    def today(self) -> str:
        return datetime.now(UTC).date().isoformat()

    def launch(
        self, job: str, day: str | None = None, config: Mapping[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run a job as the UI would, with the form filled in as ``config``."""
        definition = self.definitions().resolve_job_def(job)
        run_config: dict[str, Any] = {}
        if config is not None:
            run_config = {"ops": {job.removesuffix("_job"): {"config": dict(config)}}} if day else dict(config)
        return definition.execute_in_process(
            instance=self.instance, partition_key=day, run_config=run_config, raise_on_error=False
        )

    def backup(self, backup_type: BackupType = "full", **config: Any) -> dg.ExecuteInProcessResult:
        """Today's backup of that type."""
        return self.launch(f"{backup_type}_backup_job", self.today(), config or None)

    def backups(self) -> list[Manifest]:
        with self.application().open_repository() as repository:
            return repository.backups()

    def materializations(self, key: dg.AssetKey | BackupType) -> list[dg.AssetMaterialization]:
        """Newest first."""
        asset = key if isinstance(key, dg.AssetKey) else backup_asset_key(key)
        records = self.instance.fetch_materializations(asset, limit=1000).records
        return [record.asset_materialization for record in records if record.asset_materialization is not None]

    def pack(self) -> Path:
        """The largest object of the repository: a pack."""
        files = [path for path in (self.root / "repository").rglob("*") if path.is_file()]
        return max(files, key=lambda path: path.stat().st_size)


def wait_for_a_whole_day() -> None:
    """Shortly before midnight wait for it: what is launched for today is to end on the same day."""
    now = datetime.now(UTC)
    left = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now
    if left < LONGEST:
        time.sleep(left.total_seconds() + 0.1)


def facts(made: dg.AssetMaterialization) -> dict[str, Any]:
    """Metadata as plain values."""
    return {name: value.value for name, value in made.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Check name → passed."""
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def failures(result: dg.ExecuteInProcessResult) -> str:
    """All that failed steps said."""
    said = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            said.append(str(data.error))
            if data.user_failure_data is not None:
                said.append(str(data.user_failure_data.description))
    return "\n".join(said)
