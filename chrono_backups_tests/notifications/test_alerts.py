"""Incidents, outbox and channels together: nothing lost, nothing doubled, nobody held up."""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import time as time_of_day
from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.errors import ChannelRefused, ChannelUnavailable, MessageRejected, NotificationError
from chrono_backups.events import Finding
from chrono_backups.notifications.alerts import FAILURES_TO_TELL
from chrono_backups.notifications.incidents import Sighting
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.outbox import HOLD
from chrono_backups.notifications.outcome import Ended
from chrono_backups.notifications.state import FILE
from chrono_backups_tests.notifications.messages import STANDING, sighting
from chrono_backups_tests.notifications.office import ChannelKilled, Kept, Office

FULL = Ended("full backup", "backup-failed", backup_type="full", storage="local")
FAILED = Ended("full backup", "backup-failed", how="failed", message="no room", backup_type="full", storage="local")
KEY = "backup-failed:full backup"
DOWN = ChannelUnavailable("no answer", channel="slack", hint="Is it there?")


def test_a_thousand_failures_of_one_cause_are_one_alert_and_one_resolution(tmp_path: Path) -> None:
    slack = Kept("slack")
    office = Office(tmp_path, slack)
    for number in range(1000):
        alerts = office.alerts()
        alerts.ended(FAILED, token=f"run {number}")
        office.clock.advance(timedelta(seconds=60))
        if number % 100 == 0:
            alerts.flush(60)
    office.alerts().ended(FULL)
    office.alerts().flush(60)
    assert slack.told == [("opened", KEY), ("resolved", KEY)]
    assert slack.messages[-1].count == 1000


def test_it_is_told_again_at_the_interval_until_it_is_well(tmp_path: Path) -> None:
    slack = Kept("slack")
    office = Office(tmp_path, slack, repeat_hours=6)
    office.alerts().ended(FAILED)
    for _ in range(24 + 1):
        office.alerts().flush(60)
        office.clock.advance(timedelta(hours=1))
    assert slack.told == [("opened", KEY), *[("reminder", KEY)] * 4]
    office.alerts().ended(FULL)
    office.clock.advance(timedelta(days=3))
    office.alerts().flush(60)
    assert slack.told[5:] == [("resolved", KEY)]


class TestChannelDown:
    def test_for_an_hour_nothing_is_lost_and_nothing_doubled(self, tmp_path: Path) -> None:
        slack, email = Kept("slack"), Kept("email")
        office = Office(tmp_path, slack, email)
        slack.down(DOWN)
        expected = []
        for minute in range(60):
            if minute % 10 == 0:
                subject = f"{minute} backup"
                office.alerts().observe([sighting(subject=subject, operation=subject)])
                expected.append(("opened", f"backup-failed:{subject}"))
            if minute % 10 == 5:
                subject = f"{minute - 5} backup"
                office.alerts().ended(Ended(subject, "backup-failed"))
                expected.append(("resolved", f"backup-failed:{subject}"))
            office.alerts().flush(60)
            office.clock.advance(timedelta(minutes=1))
        assert slack.told == []
        slack.up()
        for _ in range(30):  # the longest wait is a quarter of an hour
            office.alerts().flush(60)
            office.clock.advance(timedelta(minutes=1))
        assert [one for one in slack.told if "channel" not in one[1]] == expected, "all of it, in order, once"
        told = ("channel-failing:slack", "channel-failing:slack")
        assert [one for one in email.told if "channel" not in one[1]] == expected
        assert [incident for _, incident in email.told if "channel" in incident] == list(told)
        assert [state for state, incident in email.told if "channel" in incident] == ["opened", "resolved"]
        assert not [one for one in slack.told if "channel" in one[1]], "not on the channel itself"

    def test_it_is_left_alone_for_as_long_as_it_asks(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)
        tried: list[Message] = []

        def limited(message: Message) -> ChannelUnavailable:
            tried.append(message)
            return ChannelUnavailable("too many", channel="slack", retry_after=600)

        slack.fault = limited
        office.alerts().ended(FAILED)
        for _ in range(10):
            office.alerts().flush(60)
            office.clock.advance(timedelta(minutes=1))
        assert len(tried) == 1
        slack.up()
        office.alerts().flush(60)
        assert slack.told == [("opened", KEY)]

    def test_one_that_refuses_us_is_told_at_once_on_the_others(self, tmp_path: Path) -> None:
        slack, email = Kept("slack"), Kept("email")
        office = Office(tmp_path, slack, email)
        slack.down(ChannelRefused("https://hooks.slack.com answered 404", channel="slack", hint="Make a new one."))
        office.alerts().ended(FAILED)
        office.alerts().flush(60)
        told = next(one for one in email.messages if one.event == "channel-failing")
        assert told.subject == "slack" and "answered 404" in told.what and told.to_do == "Make a new one."

    def test_one_that_stumbles_is_not_told(self, tmp_path: Path) -> None:
        slack, email = Kept("slack"), Kept("email")
        office = Office(tmp_path, slack, email)
        slack.down(DOWN)
        office.alerts().ended(FAILED)
        for _ in range(FAILURES_TO_TELL - 1):
            office.alerts().flush(60)
            office.clock.advance(timedelta(minutes=20))
        slack.up()
        office.alerts().flush(60)
        assert email.told == slack.told == [("opened", KEY)]

    def test_a_message_that_is_not_taken_holds_up_no_other(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)
        strange = ("opened", KEY)
        slack.fault = lambda one: MessageRejected("strange") if (one.state, one.incident) == strange else None
        office.alerts().ended(FAILED)
        office.alerts().observe([sighting(subject="another")])
        office.alerts().ended(FULL)
        office.alerts().flush(60)
        assert slack.told == [("opened", "backup-failed:another")], "and its end does not come before its beginning"
        slack.up()
        office.clock.advance(timedelta(hours=1))
        office.alerts().flush(60)
        assert [one for one in slack.told if one[1] == KEY] == [("opened", KEY), ("resolved", KEY)]

    def test_a_slow_one_delays_neither_the_others_nor_the_work(self, tmp_path: Path) -> None:
        let_go = threading.Event()
        slack, email = Kept("slack"), Kept("email")
        slack.after = lambda _message: (let_go.wait(240), None)[1]
        office = Office(tmp_path, slack, email)
        alerts = office.alerts()
        alerts.ended(FAILED)
        began = time.monotonic()
        report = alerts.flush(1)
        took = time.monotonic() - began
        while not email.told:  # on a machine that is busy it may come after the second
            assert time.monotonic() < began + 60
            time.sleep(0.01)
        let_go.set()
        assert email.told == [("opened", KEY)]
        assert "slack" in report.faults
        assert took < 60

    def test_what_it_complains_of_is_told(self, tmp_path: Path) -> None:
        email, slack = Kept("email", complaint="it does not take mail for x@y"), Kept("slack")
        office = Office(tmp_path, email, slack)
        office.alerts().ended(FAILED)
        office.alerts().flush(60)
        assert [one.what for one in slack.messages if one.event == "channel-failing"] == [
            "it does not take mail for x@y"
        ]


class TestRestart:
    def test_what_was_told_of_is_not_told_again_whatever_came_between(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)
        for _ in range(2):  # the sensor's cursor was lost, and all runs are seen again
            office.alerts().ended(FAILED, token="run 1")
            office.alerts().ended(FULL, token="run 2")
            office.alerts().flush(60)
            office.clock.advance(timedelta(minutes=1))
        assert slack.told == [("opened", KEY), ("resolved", KEY)]

    def test_killed_before_it_was_sent(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)
        office.alerts().ended(FAILED, token="run 1")
        office.alerts().ended(FAILED, token="run 1")
        office.alerts().flush(60)
        office.alerts().flush(60)
        assert slack.told == [("opened", KEY)]

    def test_killed_after_it_was_taken_and_before_that_was_noted_it_is_sent_again_as_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)

        def die(_message: Message) -> None:
            raise ChannelKilled

        slack.after = die
        office.alerts().ended(FAILED)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        office.alerts().flush(60)
        slack.after = lambda _message: None
        office.alerts().flush(60)
        assert len(slack.messages) == 1, "another process may be sending it still"
        office.clock.advance(HOLD)
        office.alerts().flush(60)
        assert [message.name for message in slack.messages] == [slack.messages[0].name] * 2
        office.clock.advance(timedelta(minutes=30))
        office.alerts().flush(60)
        assert len(slack.messages) == 2

    def test_an_incident_and_its_message_are_there_both_or_neither(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)
        with monkeypatch.context() as patched:
            patched.setattr("chrono_backups.notifications.outbox.Outbox.put", _raise)
            with pytest.raises(ChannelKilled):
                office.alerts().ended(FAILED, token="run 1")
        assert office.alerts().overview().incidents == []
        office.alerts().ended(FAILED, token="run 1")
        office.alerts().flush(60)
        assert slack.told == [("opened", KEY)]

    def test_many_at_once_tell_it_once(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)

        def work(number: int) -> None:
            alerts = office.alerts()
            for again in range(5):
                alerts.ended(FAILED, token=f"{number} {again}")
                alerts.flush(60)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        office.alerts().flush(60)
        assert slack.told == [("opened", KEY)]
        (incident,) = office.alerts().overview().incidents
        assert incident.count == 40


def _raise(*_: object) -> None:
    raise ChannelKilled


class TestNews:
    def test_a_digest_is_sent_once_a_day_at_its_time(self, tmp_path: Path) -> None:
        email = Kept("email")
        office = Office(tmp_path, email, digest=time_of_day(14, 30))
        for _ in range(3 * 48):
            office.alerts().digest(
                "Europe/Berlin", lambda _since: [("full_1", "complete", "1 GiB"), ("f2", "partial", "")]
            )
            office.alerts().flush(60)
            office.clock.advance(timedelta(minutes=30))
        assert [f"{message.at:%d %H:%M}" for message in email.messages] == ["01 13:30", "02 13:30", "03 13:30"]
        assert email.messages[0].what == "2 backups in the last day, 1 of them complete. Nothing is wrong."
        assert email.messages[0].rows[0] == ("full_1", "complete", "1 GiB")

    def test_successes_are_told_to_who_wants_them(self, tmp_path: Path) -> None:
        slack, email = Kept("slack"), Kept("email")
        office = Office(tmp_path, slack, email)
        assert office.alerts().tell("backup-succeeded", name="made 1", what="made") is None
        wanted = Office(tmp_path, slack, email)
        wanted.settings = wanted.settings.model_copy(update={"routes": "backup-succeeded -> slack"})
        for _ in range(2):
            wanted.alerts().tell("backup-succeeded", name="made 1", what="made")
        wanted.alerts().flush(60)
        assert [message.what for message in slack.messages] == ["made"]
        assert email.messages == []


class TestState:
    def test_without_a_channel_nothing_is_kept(self, tmp_path: Path) -> None:
        office = Office(tmp_path / "state")
        assert office.alerts().ended(FAILED) == ()
        office.alerts().note_proof("full_1", "drill")
        office.alerts().flush(1)
        assert not (tmp_path / "state").exists()

    def test_it_is_nobody_elses_to_read(self, tmp_path: Path) -> None:
        office = Office(tmp_path / "state", Kept("slack"))
        office.alerts().ended(FAILED)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
        assert set(modes.values()) == {0o600} and (tmp_path / "state").stat().st_mode & 0o777 == 0o700

    def test_a_damaged_file_is_a_clear_error_with_the_remedy(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to be looked at" * 100)
        with pytest.raises(NotificationError, match="can't be kept") as caught:
            Office(tmp_path, Kept("slack")).alerts().ended(FAILED)
        assert "moved away" in caught.value.hint

    def test_of_a_later_format_it_is_left_alone(self, tmp_path: Path) -> None:
        office = Office(tmp_path, Kept("slack"))
        office.alerts().ended(FAILED)
        connection = sqlite3.connect(tmp_path / FILE)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(NotificationError, match="format 99"):
            office.alerts().ended(FAILED)

    def test_what_is_safe_is_in_the_message_and_a_proof_is_remembered(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack)
        office.alerts().note_standing(STANDING)
        office.clock.advance(timedelta(days=1))
        office.alerts().note_proof("full_20260228_020000", "verify")
        office.alerts().note_standing(STANDING)
        office.alerts().ended(FAILED)
        office.alerts().flush(60)
        standing = slack.messages[0].standing
        assert standing is not None
        assert (standing.newest_id, standing.proven_id, standing.proven_by) == (
            "full_20260301_020000", "full_20260228_020000", "verify",
        )  # fmt: skip

    def test_no_secret_is_in_a_message_or_in_the_file(self, tmp_path: Path) -> None:
        slack = Kept("slack")
        office = Office(tmp_path, slack, secrets=["hunter2hunter2"])
        finding = Finding(
            "hook-failed", "error", "postgres://u:hunter2hunter2@db", "hunter2hunter2?", "hunter2hunter2!"
        )
        office.alerts().observe([Sighting(finding, link="http://x/hunter2hunter2")])
        office.alerts().tell("backup-succeeded", name="n", what="hunter2hunter2")
        office.alerts().flush(60)
        assert "hunter2" not in str(slack.messages)
        assert "[secret]" in slack.messages[0].what
        assert not [path for path in tmp_path.iterdir() if b"hunter2" in path.read_bytes()]
