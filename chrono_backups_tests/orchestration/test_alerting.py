"""Who hears what of Dagster's runs: by the sensors, from real runs, at a receiver of the tests' own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from chrono_backups import settings
from chrono_backups.clock import SystemClock
from chrono_backups.orchestration.alerting import ended_runs, notifications
from chrono_backups.oversight import alerts
from chrono_backups_tests.orchestration.site import Site
from chrono_backups_tests.servers.receivers import Receiver, Reply, receiver

FULL = "backup-failed:full backup"


@dataclass
class Watch:
    """The sensors, ticked by hand, and what their receiver got."""

    site: Site
    server: Receiver
    cursor: str | None = None

    def tick(self) -> str:
        """Both sensors once; what they said."""
        said = []
        repository = self.site.definitions().get_repository_def()
        for sensor in (ended_runs, notifications):
            with dg.build_sensor_context(self.site.instance, cursor=self.cursor, repository_def=repository) as context:
                data = sensor.evaluate_tick(context)
            if sensor is ended_runs:
                self.cursor = data.cursor
            said.append(data.skip_message or "")
        return "\n".join(said)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(one["state"], one["incident"]) for one in self.messages]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [posted.json for posted in self.server.posted if posted.method == "POST"]

    @property
    def pings(self) -> int:
        return sum(posted.method == "GET" for posted in self.server.posted)


@pytest.fixture
def watch(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    with receiver() as server:
        for name, value in {
            "WEBHOOK_ENABLED": "true",
            "WEBHOOK_URL": f"{server.url}/hook",
            "WEBHOOK_SECRET": "a secret of the tests",
            "HEARTBEAT_URL": f"{server.url}/ping",
            "STATE_DIR": str(site.root / "state"),
            "UI_URL": "https://dagster.example.com/",
        }.items():
            monkeypatch.setenv(f"BACKUP_{name}", value)
        watching = Watch(site, server)
        watching.tick()
        yield watching


@pytest.fixture
def broken(site: Site) -> Callable[[bool], None]:
    """Takes the repository away, and puts it back."""
    place, away = site.root / "repository", site.root / "away"

    def move(gone: bool) -> None:
        if gone:
            place.rename(away)
        else:
            away.rename(place)

    return move


def test_a_failed_backup_is_told_once_and_that_it_is_well_once(
    site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.backup("full").success
    assert site.backup("configuration", verify_integrity=False).success
    watch.tick()
    assert (watch.messages, watch.pings) == ([], 2), "a good backup is a heartbeat and no message"
    monkeypatch.setenv("BACKUP_HOOK_BEFORE", "echo the volume is busy, says a secret of the tests; exit 3")
    runs = [site.backup("full").run_id for _ in range(2)]
    said = watch.tick()
    assert "full backup failed" in said and "Backup failed: full backup" in said
    watch.tick()
    assert watch.told == [("opened", FULL)]
    (message,) = watch.messages
    heard = str([site.instance.all_logs(run) for run in runs]) + said + str(message)
    assert "says [secret]" in heard and "a secret of the tests" not in heard
    assert "the volume is busy" in message["what"] and message["to_do"]
    assert message["link"] == f"https://dagster.example.com/runs/{runs[0]}"
    newest = site.backups()[1].backup_id
    assert message["standing"]["newest_id"] == message["standing"]["proven_id"] == newest, "its bytes were verified"
    assert (message["backup_type"], message["severity"]) == ("full", "error")
    monkeypatch.delenv("BACKUP_HOOK_BEFORE")
    assert site.backup("full").success
    watch.tick()
    assert watch.told == [("opened", FULL), ("resolved", FULL)]
    assert watch.pings == 3


def test_one_cause_is_one_alert_whatever_it_makes_fail(
    site: Site, watch: Watch, broken: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chrono_backups.orchestration.failures.FIRST_WAIT_SECONDS", 0)
    broken(True)
    for backup_type in ("full", "configuration"):
        assert not site.backup(backup_type).success
    watch.tick()
    assert watch.told == [("opened", "storage-unavailable:local")]
    broken(False)
    assert site.backup("configuration").success
    watch.tick()
    assert watch.told[1:] == [("resolved", "storage-unavailable:local")]


def test_a_partial_backup_says_what_it_lacks(site: Site, watch: Watch) -> None:
    site.configuration.unlink()
    assert not site.backup("full").success
    watch.tick()
    (message,) = watch.messages
    assert (message["event"], message["incident"]) == ("backup-partial", "backup-partial:full backup")
    assert "it lacks configuration" in message["what"]
    assert watch.pings == 0
    site.configuration.write_text("MODE=production\n")
    assert site.backup("full").success
    watch.tick()
    assert watch.told[1:] == [("resolved", "backup-partial:full backup")]


def test_a_check_that_fails_in_a_green_run_is_told(site: Site, watch: Watch) -> None:
    assert site.backup("full").success
    for file in (site.data / "uploads").iterdir():
        file.unlink()
    assert site.backup("full").success
    watch.tick()
    (message,) = watch.messages
    assert (message["event"], message["severity"]) == ("check-failed", "warning")
    assert message["subject"] == "size_plausible of full backup"
    assert "usually" in message["what"]
    assert watch.pings == 2, "a warning takes nothing from the backup"


def test_damage_is_told_and_that_it_was_mended(site: Site, watch: Watch) -> None:
    assert site.backup("full").success
    pack = site.pack()
    whole = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(whole[:-100] + bytes(100))
    result = site.launch("verification_job", site.today())
    assert not result.success
    watch.tick()
    events = {message["event"] for message in watch.messages}
    assert "verify-failed" in events or "check-failed" in events
    pack.write_bytes(whole)
    assert site.launch("verification_job", site.today()).success
    watch.tick()
    opened = {one for state, one in watch.told if state == "opened"}
    assert {one for state, one in watch.told if state == "resolved"} == opened


def ended_as(site: Site, status: str, *, over_time: bool) -> None:
    """A run that ends so, as Dagster's daemon has it end."""
    job = site.definitions().resolve_job_def("full_backup_job")
    run = site.instance.create_run_for_job(job, tags={"dagster/partition": site.today()})
    why = "Canceling due to exceeding maximum runtime of 1234 seconds." if over_time else None
    site.instance.report_run_canceling(run, message=why)
    if status == "CANCELED":
        site.instance.report_run_canceled(run)
    else:
        site.instance.report_run_failed(run, "Exceeded maximum runtime of 1234 seconds." if over_time else None)


@pytest.mark.parametrize(
    ("status", "over_time", "event"),
    [
        ("CANCELED", False, "backup-cancelled"),
        ("CANCELED", True, "backup-over-time"),
        ("FAILURE", True, "backup-over-time"),
    ],
)
def test_cancelled_and_over_its_time(site: Site, watch: Watch, status: str, over_time: bool, event: str) -> None:
    ended_as(site, status, over_time=over_time)
    watch.tick()
    assert [(one["event"], one["subject"]) for one in watch.messages] == [(event, "full backup")]


class TestRestart:
    def test_killed_between_the_failure_and_the_alert(
        self, site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BACKUP_HOOK_BEFORE", "exit 3")
        assert not site.backup("full").success
        # Here the daemon is killed; all that is left of it is the cursor of its last tick.
        watch = Watch(site, watch.server, watch.cursor)
        watch.tick()
        assert watch.told == [("opened", FULL)]

    def test_killed_between_the_alert_and_the_cursor(
        self, site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BACKUP_HOOK_BEFORE", "exit 3")
        assert not site.backup("full").success
        before = watch.cursor
        watch.tick()
        watch.cursor = before
        watch.tick()
        assert watch.told == [("opened", FULL)]

    def test_what_can_not_be_kept_is_told_later(
        self, site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BACKUP_HOOK_BEFORE", "exit 3")
        assert not site.backup("full").success
        (site.root / "file").write_text("no directory")
        with monkeypatch.context() as patched:
            patched.setenv("BACKUP_STATE_DIR", str(site.root / "file" / "state"))
            before = watch.cursor
            with pytest.raises(Exception, match="can't be kept"):
                watch.tick()
            assert watch.cursor == before, "so that the run is told of by a later tick"
        watch.tick()
        assert watch.told == [("opened", FULL)]

    def test_a_new_deployments_first_failure_is_told_and_old_ones_are_not(
        self, site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BACKUP_HOOK_BEFORE", "exit 3")
        assert not site.backup("full").success
        watch.cursor = None
        watch.tick()
        assert watch.told == [("opened", FULL)]
        assert set(json.loads(str(watch.cursor)).values()) != {-1}

    def test_a_channel_that_was_down_gets_it_later(
        self, site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watch.server.script = lambda _: Reply(429, headers={"Retry-After": "0"})
        monkeypatch.setenv("BACKUP_HOOK_BEFORE", "exit 3")
        assert not site.backup("full").success
        assert "1 messages wait" in watch.tick()
        watch.server.script = lambda _: Reply()
        alerts(settings.load(), SystemClock()).retry_now()
        watch.tick()
        assert watch.told == [("opened", FULL)]


def test_without_a_channel_the_sensors_say_so_and_keep_nothing(site: Site) -> None:
    with receiver() as server:
        watch = Watch(site, server)
        assert "nobody is told anything" in watch.tick()
        assert not (site.root / "state").exists()


def test_settings_that_are_wrong_cost_a_message_and_no_backup(
    site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_NOTIFY_ROUTES", "backup-faild -> webhook")
    monkeypatch.setenv("BACKUP_SLACK_ENABLED", "true")
    assert site.backup("full").success
    watch.tick()
    told = {message["subject"]: message["what"] for message in watch.messages}
    assert "the nearest to 'backup-faild' is backup-failed" in told["BACKUP_NOTIFY_ROUTES"]
    assert "BACKUP_SLACK_WEBHOOK_URL" in told
    monkeypatch.delenv("BACKUP_NOTIFY_ROUTES")
    monkeypatch.delenv("BACKUP_SLACK_ENABLED")
    watch.tick()
    assert {one for state, one in watch.told if state == "resolved"} == {f"notify-settings:{one}" for one in told}
