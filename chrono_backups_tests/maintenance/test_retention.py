"""Retention: golden tables, and what holds whatever the backups and the policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.identifiers import BackupType, SourceName, backup_id
from chrono_backups.maintenance.retention import Verdict, judge
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.repository.records import Manifest, SnapshotSummary, Statistics, Status

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)  # a Monday
NOTHING = RetentionPolicy(
    retention_days=0,
    keep_daily_for_days=0,
    keep_weekly_for_weeks=0,
    keep_monthly_for_months=0,
    keep_yearly_for_years=0,
    min_backups_to_keep=1,
)


def made(
    moment: datetime,
    backup_type: BackupType = "full",
    sources: Sequence[SourceName] = ("files", "configuration"),
    status: Status = "complete",
    needs: Sequence[str] = (),
) -> Manifest:
    snapshots = tuple(
        SnapshotSummary(source, f"{source}-x", "full", "", moment, moment, Statistics(), {"needs": list(needs)}, 0)
        for source in sources
    )
    failures = {} if status == "complete" else {"redis": "it was away"}
    identifier = backup_id(backup_type, moment)
    return Manifest(identifier, backup_type, status, moment, moment, snapshots, failures, "host", "program", "test")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def kept(verdicts: Sequence[Verdict]) -> set[str]:
    return {one.backup_id for one in verdicts if one.keep}


def daily(days: int) -> list[Manifest]:
    """One full backup every night at two, newest first."""
    return [made(at("2026-11-23T02:00") - timedelta(days=day)) for day in range(days)]


GOLDEN: dict[str, tuple[dict[str, int], list[str]]] = {
    "only the minimum": ({"min_backups_to_keep": 2}, ["2026-11-23", "2026-11-22"]),
    "by age": ({"retention_days": 3}, ["2026-11-23", "2026-11-22", "2026-11-21"]),
    "by day": ({"keep_daily_for_days": 2}, ["2026-11-23", "2026-11-22"]),
    # Weeks end on Sundays. That of the 1st is 22 days and an hour old: out of reach of three weeks.
    "by week": ({"keep_weekly_for_weeks": 3}, ["2026-11-23", "2026-11-22", "2026-11-15", "2026-11-08"]),
    "by month": ({"keep_monthly_for_months": 3}, ["2026-11-23", "2026-10-31", "2026-09-30", "2026-08-31"]),
    "by year": ({"keep_yearly_for_years": 2}, ["2026-11-23", "2025-12-31", "2024-12-31"]),
    "all together": (
        {
            "retention_days": 1,
            "keep_daily_for_days": 3,
            "keep_weekly_for_weeks": 2,
            "keep_monthly_for_months": 2,
            "keep_yearly_for_years": 1,
        },
        ["2026-11-23", "2026-11-22", "2026-11-21", "2026-11-15", "2026-10-31", "2026-09-30", "2025-12-31"],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    settings, expected = GOLDEN[name]
    verdicts = judge(daily(900), NOTHING.model_copy(update=settings), NOW)
    days = [one.backup_id[5:13] for one in verdicts if one.keep]
    assert days == [day.replace("-", "") for day in expected]


def test_reasons_are_for_people() -> None:
    policy = RetentionPolicy(retention_days=1, keep_daily_for_days=2, keep_weekly_for_weeks=2, min_backups_to_keep=1)
    verdicts = judge(daily(40), policy, NOW)
    assert verdicts[0].reasons == (
        "younger than 1 day",
        "newest full backup of 2026-11-23",
        "newest full backup of week 2026-W48",
        "newest full backup of 2026-11",
        "newest full backup of 2026",
        "among the newest complete backups of its sources",
    )
    assert verdicts[1].reasons == ("newest full backup of 2026-11-22", "newest full backup of week 2026-W47")
    assert verdicts[2].reasons == (
        "older than 1 day",
        "a newer full one stands for its week, month and year",
        "too old to be kept as the newest of its day (2 days)",
    )


def test_a_backup_stands_only_for_those_whose_sources_it_holds() -> None:
    full = made(at("2026-11-20T02:00"))
    small = made(at("2026-11-20T23:00"), "configuration", ["configuration"])
    fewer = made(at("2026-11-20T22:00"), sources=["configuration"])
    policy = NOTHING.model_copy(update={"keep_daily_for_days": 7})
    assert kept(judge([small, fewer, full], policy, NOW)) == {full.backup_id, small.backup_id, fewer.backup_id}
    more = made(at("2026-11-20T22:00"), sources=["files", "configuration", "redis"])
    assert kept(judge([more, full], policy, NOW)) == {more.backup_id}


def test_the_last_backups_of_a_dropped_source_stay() -> None:
    old = made(at("2020-01-01T00:00"), sources=["files", "redis"])
    older = made(at("2019-01-01T00:00"), sources=["files", "redis"])
    assert kept(judge([*daily(5), old, older], NOTHING, NOW)) == {daily(1)[0].backup_id, old.backup_id}


def test_types_do_not_stand_for_each_other() -> None:
    full = made(at("2026-11-15T02:00"))
    incremental = made(at("2026-11-15T14:00"), "incremental")
    policy = NOTHING.model_copy(update={"keep_weekly_for_weeks": 4})
    assert kept(judge([incremental, full], policy, NOW)) == {full.backup_id, incremental.backup_id}


def test_a_partial_backup_stands_for_nothing() -> None:
    complete = made(at("2026-11-20T02:00"))
    partial = made(at("2026-11-20T22:00"), status="partial")
    policy = NOTHING.model_copy(update={"keep_daily_for_days": 7})
    verdicts = judge([partial, complete], policy, NOW)
    assert complete.backup_id in kept(verdicts)
    newer = [made(at("2026-11-21T02:00")), made(at("2026-11-22T02:00"))]
    verdict = judge([*newer, partial, complete], policy, NOW)[2]
    assert verdict == Verdict(
        partial.backup_id, False, ("older than 0 days", "partial, and newer backups hold each of its sources")
    )


def test_where_all_are_partial_the_last_ones_stay() -> None:
    backups = [made(NOW - timedelta(days=100 + day), status="partial") for day in range(5)]
    verdicts = judge(backups, NOTHING.model_copy(update={"min_backups_to_keep": 2}), NOW)
    assert [one.keep for one in verdicts] == [True, True, False, False, False]
    assert verdicts[0].reasons == ("among the 2 newest backups of configuration and of files, complete or not",)


def test_pinned_proven_and_needed() -> None:
    base = made(at("2020-01-01T00:00"))
    middle = made(at("2020-01-02T00:00"), "incremental", needs=[base.backup_id])
    pinned = made(at("2020-01-03T00:00"), "incremental", needs=[middle.backup_id])
    proven = [made(at("2020-02-01T00:00")), made(at("2020-02-02T00:00"))]
    backups = [*daily(2), *reversed(proven), pinned, middle, base]
    ids = {one.backup_id for one in proven}
    verdicts = {
        one.backup_id: one
        for one in judge(backups, NOTHING, NOW, pinned={pinned.backup_id: "the audit of 2020"}, proven=ids)
    }
    assert verdicts[pinned.backup_id].reasons == ("pinned: the audit of 2020",)
    assert verdicts[middle.backup_id].reasons == (f"needed by {pinned.backup_id}",)
    assert verdicts[base.backup_id].reasons == (f"needed by {middle.backup_id}",)
    assert verdicts[proven[1].backup_id].reasons == ("newest backup whose restore was proven by a drill",)
    assert not verdicts[proven[0].backup_id].keep


def test_days_are_those_of_the_timezone() -> None:
    evening, night = made(at("2026-11-20T22:30")), made(at("2026-11-20T23:30"))
    policy = NOTHING.model_copy(update={"keep_daily_for_days": 7})
    assert kept(judge([night, evening], policy, NOW)) == {night.backup_id}
    berlin = ZoneInfo("Europe/Berlin")  # where the later one is of the 21st
    assert kept(judge([night, evening], policy, NOW, timezone=berlin)) == {night.backup_id, evening.backup_id}


def test_a_clock_that_was_ahead_costs_nothing() -> None:
    ahead = made(NOW + timedelta(days=400))
    assert ahead.backup_id in kept(judge([ahead, *daily(3)], RetentionPolicy(), NOW))


def test_rules_reach_back_over_short_months_and_leap_days() -> None:
    policy = NOTHING.model_copy(update={"keep_monthly_for_months": 1, "keep_yearly_for_years": 1})
    for now, edge in (("2026-03-31T12:00", "2026-02-28T12:00"), ("2028-02-29T12:00", "2027-02-28T12:00")):
        inside, outside = made(at(edge) + timedelta(hours=1)), made(at(edge) - timedelta(hours=1))
        newest = made(at(now))
        assert kept(judge([newest, inside], policy, at(now))) == {newest.backup_id, inside.backup_id}
        assert kept(judge([newest, outside], policy, at(now))) == {newest.backup_id}


# What holds always.

MOMENTS = st.integers(min_value=0, max_value=900 * 24).map(lambda hours: NOW - timedelta(hours=hours))
SOURCES = st.sampled_from([("files",), ("configuration",), ("files", "configuration"), ("files", "redis")])
BACKUPS = st.lists(
    st.builds(
        made,
        MOMENTS,
        st.sampled_from(["full", "incremental", "configuration"]),
        SOURCES,
        st.sampled_from(["complete", "complete", "partial"]),
    ),
    max_size=40,
    unique_by=lambda one: one.backup_id,
)
POLICIES = st.builds(
    RetentionPolicy,
    retention_days=st.integers(0, 60),
    keep_daily_for_days=st.integers(0, 30),
    keep_weekly_for_weeks=st.integers(0, 20),
    keep_monthly_for_months=st.integers(0, 24),
    keep_yearly_for_years=st.integers(0, 3),
    min_backups_to_keep=st.integers(1, 6),
)


def newest_first(backups: Sequence[Manifest]) -> list[Manifest]:
    return sorted(backups, key=lambda one: (one.started_at, one.backup_id), reverse=True)


@given(BACKUPS, POLICIES)
def test_the_newest_complete_ones_are_kept(backups: list[Manifest], policy: RetentionPolicy) -> None:
    keep = kept(judge(backups, policy, NOW))
    complete = [one for one in newest_first(backups) if one.status == "complete"]
    assert {one.backup_id for one in complete[: policy.min_backups_to_keep]} <= keep
    for source in ("files", "configuration", "redis"):
        holders = [one for one in complete if one.snapshot(source)]
        assert {one.backup_id for one in holders[: policy.min_backups_to_keep]} <= keep
        newest = next((one for one in newest_first(backups) if one.snapshot(source)), None)
        assert newest is None or newest.backup_id in keep, "the newest copy of a source, complete or not"


@given(BACKUPS, POLICIES)
def test_a_partial_backup_never_costs_a_complete_one(backups: list[Manifest], policy: RetentionPolicy) -> None:
    complete = [one for one in backups if one.status == "complete"]
    assert kept(judge(complete, policy, NOW)) == kept(judge(backups, policy, NOW)) & {one.backup_id for one in complete}


@given(BACKUPS, POLICIES, st.data())
def test_adding_a_backup_never_has_another_one_kept(
    backups: list[Manifest], policy: RetentionPolicy, data: st.DataObject
) -> None:
    more = data.draw(BACKUPS.filter(bool))
    ids = {one.backup_id for one in backups}
    added = [one for one in more if one.backup_id not in ids]
    assert kept(judge([*backups, *added], policy, NOW)) & ids <= kept(judge(backups, policy, NOW))


@given(BACKUPS, POLICIES)
def test_an_older_backup_changes_nothing_for_newer_ones(backups: list[Manifest], policy: RetentionPolicy) -> None:
    ordered = newest_first(backups)
    verdicts = judge(ordered, policy, NOW)
    half = ordered[: len(ordered) // 2]
    assert judge(half, policy, NOW) == verdicts[: len(half)]


@given(BACKUPS, POLICIES, st.sampled_from(sorted(RetentionPolicy.model_fields)), st.integers(1, 20))
def test_a_more_generous_policy_keeps_no_less(
    backups: list[Manifest], policy: RetentionPolicy, field: str, more: int
) -> None:
    generous = policy.model_copy(update={field: getattr(policy, field) + more})
    assert kept(judge(backups, policy, NOW)) <= kept(judge(backups, generous, NOW))


@given(BACKUPS, POLICIES)
def test_forgetting_what_is_to_be_forgotten_settles_it(backups: list[Manifest], policy: RetentionPolicy) -> None:
    keep = kept(judge(backups, policy, NOW))
    assert kept(judge([one for one in backups if one.backup_id in keep], policy, NOW)) == keep


@given(BACKUPS, POLICIES)
def test_the_order_of_backups_does_not_matter_and_every_verdict_has_reasons(
    backups: list[Manifest], policy: RetentionPolicy
) -> None:
    verdicts = judge(backups, policy, NOW)
    assert [one.backup_id for one in verdicts] == [one.backup_id for one in backups]
    assert all(one.reasons for one in verdicts)
    turned = judge(list(reversed(backups)), policy, NOW)
    assert {one.backup_id: one for one in turned} == {one.backup_id: one for one in verdicts}
