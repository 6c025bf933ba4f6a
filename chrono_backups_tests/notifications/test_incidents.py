"""What is told of what is seen. Pure."""

from __future__ import annotations

from datetime import timedelta

from chrono_backups.errors import BackupFailed, StorageUnavailable
from chrono_backups.events import Finding
from chrono_backups.notifications.incidents import Changes, Incident, Sighting, nothing_ends, observe, reminders
from chrono_backups.notifications.outcome import Ended, ends, sightings
from chrono_backups_tests.notifications.messages import NOW, sighting

LATER = NOW + timedelta(minutes=5)


def always(_incident: Incident) -> bool:
    return True


def told(changes: Changes) -> list[tuple[str, str]]:
    return [(state, incident.key) for state, incident in changes.told]


def test_it_is_told_when_it_begins_and_when_it_ends_and_not_in_between() -> None:
    first = observe([], [sighting()], nothing_ends, NOW)
    assert told(first) == [("opened", "backup-failed:full backup")]
    again = observe(first.kept, [sighting(what="in other words")], nothing_ends, LATER)
    assert told(again) == []
    assert (again.kept[0].count, again.kept[0].opened_at) == (2, NOW)
    assert again.kept[0].last.finding.message == "in other words", "a reminder tells how it is now"
    over = observe(again.kept, [], always, LATER)
    assert told(over) == [("resolved", "backup-failed:full backup")]
    assert over.ended == over.told[0][1:]


def test_who_would_not_see_it_does_not_end_it() -> None:
    kept = observe([], [sighting()], nothing_ends, NOW).kept
    assert observe(kept, [], nothing_ends, LATER) == Changes()


def test_what_becomes_worse_is_told_once_more() -> None:
    kept = observe([], [sighting(severity="warning")], nothing_ends, NOW).kept
    worse = observe(kept, [sighting(severity="error")], nothing_ends, LATER)
    assert told(worse) == [("worse", "backup-failed:full backup")]
    better = observe(worse.kept, [sighting(severity="warning")], nothing_ends, LATER)
    assert told(better) == []
    assert told(observe(better.kept, [sighting(severity="error")], nothing_ends, LATER)) == [], "to and fro"


def test_two_of_a_kind_at_once_are_one() -> None:
    assert len(observe([], [sighting(), sighting(what="again")], nothing_ends, NOW).told) == 1


def test_a_reminder_comes_after_the_interval_and_then_again() -> None:
    kept = observe([], [sighting()], nothing_ends, NOW).kept
    every = timedelta(hours=24)
    assert reminders(kept, NOW + every - timedelta(seconds=1), every) == Changes()
    assert reminders(kept, NOW + every, None) == Changes()
    first = reminders(kept, NOW + every, every)
    assert told(first) == [("reminder", "backup-failed:full backup")]
    assert reminders(first.kept, NOW + every + timedelta(hours=1), every) == Changes()
    assert len(reminders(first.kept, NOW + 2 * every, every).told) == 1


def test_every_message_of_an_incident_has_a_number_of_its_own() -> None:
    opened = observe([], [sighting()], nothing_ends, NOW)
    reminded = reminders(opened.kept, LATER, timedelta(seconds=1))
    over = observe(reminded.kept, [], always, LATER)
    assert [changes.told[0][1].told for changes in (opened, reminded, over)] == [1, 2, 3]


def test_it_is_the_same_after_a_restart() -> None:
    (incident,) = observe([], [sighting(backup_id="full_20260301_110000", link="http://x")], nothing_ends, NOW).kept
    assert Incident.from_json(incident.to_json()) == incident


class TestOutcomes:
    FULL = Ended("full backup", "backup-failed", backup_type="full", storage="local")

    def test_one_cause_is_one_incident_whatever_it_makes_fail(self) -> None:
        error = StorageUnavailable("aws_s3 does not answer", storage="aws_s3", hint="Is the network there?")
        full, other = self.FULL.by(error), Ended("verification", "verify-failed").by(error)
        assert sightings(full)[0].key == sightings(other)[0].key == "storage-unavailable:aws_s3"
        assert sightings(full)[0].finding.message == "The full backup failed: aws_s3 does not answer"

    def test_the_next_success_of_the_same_ends_it(self) -> None:
        (failed,) = sightings(self.FULL.by(BackupFailed("nothing could be captured")))
        incident = Incident(failed.named(), NOW, NOW, NOW)
        assert incident.last.event == "backup-failed"
        assert ends(self.FULL, incident)
        assert not ends(self.FULL.by(BackupFailed("again")), incident)
        assert not ends(Ended("configuration backup", "backup-failed", storage="local"), incident)

    def test_a_success_shows_that_its_storage_answers(self) -> None:
        def of(storage: str) -> Incident:
            finding = Finding("storage-unavailable", "error", storage, "it does not answer")
            return Incident(Sighting(finding, operation="verification").named(), NOW, NOW, NOW)

        assert ends(self.FULL, of("local"))
        assert not ends(self.FULL, of("aws_s3"))

    def test_what_is_cancelled_or_too_long_has_its_own_event(self) -> None:
        def of(how: str, ended: Ended) -> tuple[str, str]:
            (seen,) = sightings(Ended(ended.operation, ended.event, how=how, backup_type=ended.backup_type))  # type: ignore[arg-type]
            return seen.finding.code, seen.finding.severity

        verify = Ended("verification", "verify-failed")
        assert of("cancelled", self.FULL) == ("backup-cancelled", "warning")
        assert of("over-time", self.FULL) == ("backup-over-time", "error")
        assert of("cancelled", verify) == ("verify-failed", "warning")
