"""Health in the UI: the sensor's observations, and the check that is run by hand."""

import dagster as dg
import pytest

from chrono_backups.orchestration.health import HEALTH, HEALTH_CHECK
from chrono_backups_tests.orchestration.site import Site


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WARNING", "CRITICAL"):
        monkeypatch.setenv(f"BACKUP_HEALTH_DISK_{name}_PERCENT", "100")
    monkeypatch.setenv("BACKUP_HEALTH_CHECK_ENABLED", "true")
    monkeypatch.setenv("BACKUP_HEALTH_CHECK_TIMEOUT", "60")


def tick(site: Site) -> tuple[dg.AssetObservation, dg.AssetCheckEvaluation]:
    repository = site.definitions().get_repository_def()
    with dg.build_sensor_context(site.instance, repository_def=repository) as context:
        events = repository.get_sensor_def("health").evaluate_tick(context).asset_events
    (observation,) = [one for one in events if isinstance(one, dg.AssetObservation)]
    (evaluation,) = [one for one in events if isinstance(one, dg.AssetCheckEvaluation)]
    return observation, evaluation


def test_the_sensor_shows_what_is_wrong_and_that_it_is_well_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _, evaluation = tick(site)
    assert not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR
    assert evaluation.description is not None and evaluation.description.startswith("critical: local")
    monkeypatch.delenv("BACKUP_LOCAL_MIRROR_PATH")
    site.backup("full")
    observation, evaluation = tick(site)
    assert observation.asset_key == evaluation.asset_key == HEALTH
    assert evaluation.check_name == HEALTH_CHECK
    assert evaluation.passed and observation.metadata["total_backups"].value == 1.0


def test_it_is_there_only_where_it_is_wanted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_HEALTH_CHECK_ENABLED", "false")
    names = {sensor.name for sensor in site.definitions().sensors or ()}
    assert "health" not in names
    monkeypatch.setenv("BACKUP_HEALTH_CHECK_ENABLED", "true")
    monkeypatch.setenv("BACKUP_HEALTH_CHECK_INTERVAL", "77")
    (sensor,) = [one for one in site.definitions().sensors or () if one.name == "health"]
    assert sensor.minimum_interval_seconds == 77 and sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_it_can_be_looked_at_by_hand(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKUP_LOCAL_MIRROR_PATH")
    site.backup("full")
    definitions = site.definitions()
    selection = dg.AssetSelection.checks(dg.AssetCheckKey(HEALTH, HEALTH_CHECK))
    looked = dg.define_asset_job("look", selection=selection).resolve(asset_graph=definitions.resolve_asset_graph())
    ran = looked.execute_in_process(instance=site.instance, resources=definitions.resources)
    (evaluation,) = ran.get_asset_check_evaluations()
    assert evaluation.passed and evaluation.description == "Everything is there that a restore will need."
