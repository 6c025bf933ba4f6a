"""Archived WAL is kept back to the oldest kept base backup, and goes with it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.clock import FrozenClock
from chrono_backups.errors import Damaged, ObjectLocked
from chrono_backups.maintenance.forget import forget, forget_ids, plan_forget
from chrono_backups.maintenance.locks import extend_locks
from chrono_backups.maintenance.prune import PrunePlan, PruneReport, plan_prune, prune
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.maintenance.wal_retention import ABANDONED
from chrono_backups.repository.evidence import Evidence, put_evidence
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.damaging import last_byte_changed
from chrono_backups_tests.maintenance.site import Site
from chrono_backups_tests.maintenance.wal_site import (
    SYSTEM,
    archive,
    name,
    put_base,
    put_history,
    put_piece,
    put_segments,
    stored,
)

GRACE = timedelta(hours=24)
DAY = timedelta(days=1)
ONE = RetentionPolicy(
    retention_days=0,
    keep_daily_for_days=0,
    keep_weekly_for_weeks=0,
    keep_monthly_for_months=0,
    keep_yearly_for_years=0,
    min_backups_to_keep=1,
)


def planned(site: Site, repository: Repository) -> PrunePlan:
    return plan_prune(repository, grace=GRACE, now=site.clock.now())


def pruned(site: Site, repository: Repository) -> PruneReport:
    return prune(repository, planned(site, repository))


def three_days(site: Site, repository: Repository) -> list[str]:
    """Ten segments and a base backup a day; the backups' ids."""
    ids = []
    for day in range(3):
        put_segments(repository, range(10 * day, 10 * day + 5))
        ids.append(put_base(repository, 10 * day + 5).backup_id)
        put_segments(repository, range(10 * day + 5, 10 * day + 10))
        site.clock.advance(DAY)
    return ids


class TestPrune:
    def test_wal_from_before_the_oldest_base_backup_goes(self, site: Site) -> None:
        with site.create() as repository:
            oldest, *_ = three_days(site, repository)
            before = dict(site.storage.objects)
            plan = planned(site, repository)
            (verdict,) = plan.wal
            assert site.storage.objects == before, "a plan changes nothing"
            assert verdict.remove == tuple(name(number) for number in range(5))
            assert verdict.keep_from == name(5).upper()
            assert oldest in verdict.reason
            assert plan.to_json()["wal_objects_to_delete"] == 5
            assert plan.bytes_freed == verdict.bytes_to_remove > 0
            report = prune(repository, plan)
            assert report.wal_objects_deleted == 5
            assert report.bytes_freed == verdict.bytes_to_remove
            assert stored(repository) == [name(number) for number in range(5, 30)]
            assert pruned(site, repository).wal_objects_deleted == 0

    def test_it_goes_with_its_base_backup_after_the_grace_period(self, site: Site) -> None:
        with site.create() as repository:
            three_days(site, repository)
            plan = plan_forget(repository, ONE, site.clock.now())
            (told,) = plan.wal
            assert told.keep_from == name(25).upper()
            forget(repository, plan)
            pruned(site, repository)
            assert stored(repository)[0] == name(5), "what was forgotten a moment ago may still be wanted"
            site.clock.advance(GRACE)
            pruned(site, repository)
            assert stored(repository) == [name(number) for number in range(25, 30)]

    def test_a_pin_keeps_the_wal_since(self, site: Site) -> None:
        with site.create() as repository:
            oldest, *_ = three_days(site, repository)
            repository.pin(oldest, "synthetic recovery point")
            forget(repository, plan_forget(repository, ONE, site.clock.now()))
            site.clock.advance(GRACE)
            pruned(site, repository)
            assert stored(repository) == [name(number) for number in range(5, 30)]

    def test_a_proven_backup_keeps_the_wal_since(self, site: Site) -> None:
        with site.create() as repository:
            _, proven, _ = three_days(site, repository)
            now = site.clock.now()
            put_evidence(repository, Evidence(proven, now, now, True, {}))
            plan = plan_forget(repository, ONE, now)
            reasons = {one.backup_id: one.reasons for one in plan.verdicts if one.keep}
            assert reasons[proven] == ("newest backup whose restore was proven by a drill",)
            forget(repository, plan)
            site.clock.advance(GRACE)
            pruned(site, repository)
            assert stored(repository)[0] == name(15)

    def test_pieces_go_too_and_histories_stay(self, site: Site) -> None:
        with site.create() as repository:
            put_piece(repository, 3, 0, 500)
            put_base(repository, 4)
            put_piece(repository, 4, 0, 700)
            put_history(repository, 2, (1, 9))
            pruned(site, repository)
            assert stored(repository) == [f"{name(4)}.00000000-000002bc", "00000002.history"]

    def test_a_backup_that_goes_on_holds_back_what_it_may_need(self, site: Site) -> None:
        """It began first, and the one that began after it was committed and is the oldest kept one."""
        with site.create() as repository:
            put_segments(repository, range(10))
            plan = plan_backup(repository, "full", ["postgres"])
            site.clock.advance(timedelta(minutes=5))
            put_base(repository, 8)
            (verdict,) = planned(site, repository).wal
            assert (verdict.remove, verdict.held_up_by) == ((), (plan.backup_id,))
            assert "waits" in verdict.reason
            assert pruned(site, repository).wal_objects_deleted == 0

    def test_a_backup_that_began_long_after_holds_nothing_back(self, site: Site) -> None:
        with site.create() as repository:
            three_days(site, repository)
            plan_backup(repository, "full", ["postgres"])
            assert pruned(site, repository).wal_objects_deleted == 5

    def test_the_receiver_may_write_meanwhile(self, site: Site) -> None:
        with site.create() as repository:
            three_days(site, repository)
            plan = planned(site, repository)
            put_segments(repository, [30])
            put_piece(repository, 31, 0, 100)
            prune(repository, plan)
            assert stored(repository)[-2:] == [name(30), f"{name(31)}.00000000-00000064"]

    def test_what_the_plan_did_not_show_stays(self, site: Site) -> None:
        with site.create() as repository:
            oldest, *_ = three_days(site, repository)
            forget_ids(repository, [oldest])
            plan = planned(site, repository)
            site.clock.advance(GRACE)
            prune(repository, plan)
            assert stored(repository)[0] == name(5)

    def test_nothing_goes_while_a_base_backup_can_not_be_read(self, site: Site) -> None:
        with site.create() as repository:
            oldest, *_ = three_days(site, repository)
            key = f"manifests/{oldest}"
            site.storage.objects[key] = last_byte_changed(site.storage.objects[key])
            with pytest.raises(Damaged):
                planned(site, repository)
            assert plan_forget(repository, ONE, site.clock.now()).wal == ()


class TestTimelines:
    def test_the_way_to_a_base_backup_goes_on_every_timeline(self, site: Site) -> None:
        with site.create() as repository:
            put_segments(repository, range(10))
            put_history(repository, 2, (1, 7))
            put_segments(repository, range(7, 15), timeline=2)
            put_base(repository, 12, timeline=2)
            pruned(site, repository)
            kept = [name(8), name(9), *(name(number, 2) for number in (12, 13, 14)), "00000002.history"]
            assert stored(repository) == sorted(kept), "behind the switch the old timeline leads elsewhere"

    def test_a_timeline_that_leads_on_from_a_kept_base_backup_stays(self, site: Site) -> None:
        """Restored to the past: the new timeline begins before the old one's newest base backup."""
        with site.create() as repository:
            put_segments(repository, range(20))
            put_base(repository, 3)
            site.clock.advance(DAY)
            put_base(repository, 18)
            put_history(repository, 2, (1, 7))
            put_segments(repository, range(7, 10), timeline=2)
            pruned(site, repository)
            assert stored(repository)[0] == name(3)
            assert name(7, 2) in stored(repository)

    def test_a_new_timeline_without_a_base_backup_of_its_own_stays(self, site: Site) -> None:
        """A base backup may be under way on it, though it lies before all that are kept."""
        with site.create() as repository:
            put_segments(repository, range(20))
            put_base(repository, 18)
            put_history(repository, 2, (1, 7))
            put_segments(repository, range(7, 10), timeline=2)
            pruned(site, repository)
            assert [one for one in stored(repository) if one.startswith("00000002")] == [
                "00000002.history", *(name(number, 2) for number in (7, 8, 9))
            ]  # fmt: skip
            assert stored(repository)[0] == name(18)

    def test_without_its_history_a_timeline_stays(self, site: Site) -> None:
        with site.create() as repository:
            put_segments(repository, range(10))
            put_base(repository, 5)
            put_segments(repository, range(3, 8), timeline=3)
            pruned(site, repository)
            assert [one for one in stored(repository) if one.startswith("00000003")] == [
                name(number, 3) for number in range(3, 8)
            ]


class TestWithoutBaseBackup:
    def test_what_was_received_before_the_first_base_backup_stays(self, site: Site) -> None:
        with site.create() as repository:
            put_segments(repository, range(5))
            site.clock.advance(DAY)
            (verdict,) = planned(site, repository).wal
            assert (verdict.keep_from, verdict.remove) == (None, ())
            assert "no base backup of the cluster yet" in verdict.reason
            assert pruned(site, repository).wal_objects_deleted == 0

    def test_an_abandoned_clusters_goes_but_for_its_end(self, site: Site) -> None:
        with site.create() as repository:
            put_segments(repository, range(5))
            put_base(repository, 9, system="7")
            site.clock.advance(ABANDONED)
            lease = plan_backup(repository, "full", ["postgres"])
            assert pruned(site, repository).wal_objects_deleted == 0, "a backup goes on"
            repository.leases.release(lease.backup_id)
            assert pruned(site, repository).wal_objects_deleted == 4
            assert stored(repository) == [name(4)]

    def test_clusters_do_not_stand_for_each_other(self, site: Site) -> None:
        with site.create() as repository:
            put_segments(repository, range(5))
            put_base(repository, 2)
            put_segments(repository, range(5), system="7")
            verdicts = {one.system_identifier: one for one in planned(site, repository).wal}
            assert (len(verdicts[SYSTEM].remove), len(verdicts["7"].remove)) == (2, 0)


class TestLocks:
    @pytest.fixture
    def locking(self, site: Site) -> Site:
        clock = FrozenClock()
        return Site(site.root, MemoryStorage(lock_days=30, clock=clock), clock)

    def test_locked_wal_waits_and_what_is_not_needed_is_not_locked_for_longer(self, locking: Site) -> None:
        with locking.create() as repository:
            three_days(locking, repository)
            plan = planned(locking, repository)
            assert plan.wal[0].remove == ()
            assert [one.key for one in plan.locked] == [f"wal/{SYSTEM}/{name(number)}" for number in range(5)]
            locking.clock.advance(timedelta(days=20))
            extended = extend_locks(repository)
            assert extended.until is not None
            key = f"wal/{SYSTEM}/{name(7)}"
            assert locking.storage.locks[key] == extended.until
            with pytest.raises(ObjectLocked):
                locking.storage.delete(key)
            locking.clock.advance(timedelta(days=10))
            assert pruned(locking, repository).wal_objects_deleted == 5


def test_evidence_goes_with_its_backup(site: Site) -> None:
    with site.create() as repository:
        oldest, _, newest = three_days(site, repository)
        now = site.clock.now()
        for backup_id in (oldest, newest):
            put_evidence(repository, Evidence(backup_id, now, now, False, {}))
        forget_ids(repository, [oldest])
        site.clock.advance(GRACE)
        pruned(site, repository)
        assert [one.partition("-")[0] for one in repository.names("drill")] == [newest]
        assert archive(repository).contents().segments
