"""Forgetting by policy and by id."""

from datetime import timedelta

import pytest

from chrono_backups.errors import BackupMissing, RepositoryError, UsageError
from chrono_backups.maintenance.forget import forget, forget_ids, plan_forget
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.repository.repository import Repository
from chrono_backups_tests.maintenance.site import Content, Site, assert_whole, random_files

TWO = RetentionPolicy(
    retention_days=0,
    keep_daily_for_days=0,
    keep_weekly_for_weeks=0,
    keep_monthly_for_months=0,
    keep_yearly_for_years=0,
    min_backups_to_keep=2,
)
Taken = tuple[Site, Repository, dict[str, Content]]


@pytest.fixture
def four(site: Site) -> Taken:
    repository = site.create()
    expected: dict[str, Content] = {}
    for _ in range(4):
        files = random_files(2, 100)
        site.write(files)
        expected[site.backup(repository).backup_id] = files
        site.clock.advance(timedelta(days=1))
    return site, repository, expected


def test_by_policy(four: Taken) -> None:
    site, repository, expected = four
    before = dict(site.storage.objects)
    plan = plan_forget(repository, TWO, site.clock.now())
    assert site.storage.objects == before
    oldest, second, third, newest = expected
    assert [one.backup_id for one in plan.verdicts] == [newest, third, second, oldest]
    assert set(plan.forget) == {oldest, second}
    assert [one["backup_id"] for one in plan.to_json()["forget"]] == [second, oldest]
    forget(repository, plan)
    forget(repository, plan)
    assert set(repository.forgotten()) == {oldest, second}
    assert "older than 0 days" in repository.record("forgotten", oldest)["reason"]
    assert assert_whole(site, site.storage, expected) == [newest, third]
    assert plan_forget(repository, TWO, site.clock.now()).forget == ()


def test_pins_hold_whenever_they_came(four: Taken) -> None:
    site, repository, expected = four
    oldest, second, *_ = expected
    repository.pin(oldest, "the audit")
    plan = plan_forget(repository, TWO, site.clock.now())
    assert plan.forget == (second,)
    repository.pin(second, "the other audit")
    forget(repository, plan)
    assert repository.forgotten() == []
    for key in [key for key in site.storage.objects if key.startswith("pins/")]:
        site.storage.objects[key] = b"damaged"
    assert plan_forget(repository, TWO, site.clock.now()).forget == ()


def test_a_plan_whose_grounds_are_gone_is_refused(four: Taken) -> None:
    site, repository, expected = four
    plan = plan_forget(repository, TWO, site.clock.now())
    forget_ids(repository, [list(expected)[3]])
    with pytest.raises(RepositoryError, match="forgotten since"):
        forget(repository, plan)
    assert repository.forgotten() == [list(expected)[3]]


def test_a_damaged_manifest_is_left_alone_and_can_be_forgotten_by_name(four: Taken) -> None:
    site, repository, expected = four
    oldest, second, third, newest = expected
    site.storage.objects[f"manifests/{newest}"] = b"damaged"
    plan = plan_forget(repository, TWO, site.clock.now())
    assert plan.forget == (oldest,)
    assert "damaged" in plan.verdicts[-1].reasons[0]
    forget(repository, plan)
    forget_ids(repository, [newest])
    assert assert_whole(site, site.storage, expected) == [third, second]


def test_by_id(four: Taken) -> None:
    _, repository, expected = four
    oldest, second, *rest = expected
    with pytest.raises(BackupMissing):
        forget_ids(repository, [oldest, "full_20200101_000000"])
    assert repository.forgotten() == [], "all or nothing"
    forget_ids(repository, [oldest, second, oldest])
    forget_ids(repository, [oldest])
    assert set(repository.forgotten()) == {oldest, second}
    with pytest.raises(UsageError, match="last complete"):
        forget_ids(repository, rest)
    assert len(repository.backups()) == 2
    forget_ids(repository, rest, force=True)
    assert repository.backups() == []
    forget_ids(repository, [oldest])
