"""Leases: taken once, renewed half-way, run out, let go."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import Damaged, LeaseLost, ObjectExists
from chrono_backups.pipeline.encryption import Keys
from chrono_backups.repository.leases import TERM, Leases
from chrono_backups.storage.memory import MemoryStorage

KEYS = Keys("AES-256-GCM", bytes(range(32)), bytes(range(16)))
HOLDER = "full_20260101_000000"


class World:
    """A storage, a clock and any number of processes' leases."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.clock = FrozenClock()

    def leases(self) -> Leases:
        return Leases(self.storage, KEYS, self.clock)


@pytest.fixture
def world() -> World:
    return World()


def test_a_name_is_claimed_once(world: World) -> None:
    lease = world.leases().take(HOLDER)
    assert lease.holder == lease.name == HOLDER
    assert lease.expires_at == world.clock.now() + TERM
    with pytest.raises(ObjectExists):
        world.leases().take(HOLDER)
    assert world.leases().find(HOLDER) == lease
    assert world.leases().all() == [lease]


def test_a_lease_is_renewed_once_half_its_term_is_over(world: World) -> None:
    leases = world.leases()
    lease = leases.take(HOLDER)
    world.clock.advance(TERM / 2 - timedelta(seconds=1))
    assert leases.keep(lease) is lease
    world.clock.advance(timedelta(seconds=1))
    renewed = leases.keep(lease)
    assert renewed.name == f"{HOLDER}.1"
    assert renewed.holder == HOLDER
    assert renewed.started_at == lease.started_at
    assert renewed.expires_at == world.clock.now() + TERM
    assert leases.find(HOLDER) == renewed
    world.clock.advance(TERM / 2)
    again = leases.keep(renewed)
    assert again.name == f"{HOLDER}.2"
    assert sorted(leases.names()) == [HOLDER, f"{HOLDER}.1", f"{HOLDER}.2"]


def test_a_lease_that_ran_out_is_lost(world: World) -> None:
    leases = world.leases()
    lease = leases.take(HOLDER)
    world.clock.advance(TERM - timedelta(microseconds=1))
    leases.check(lease)
    world.clock.advance(timedelta(microseconds=1))
    for attempt in (leases.check, leases.keep):
        with pytest.raises(LeaseLost, match=HOLDER) as raised:
            attempt(lease)
        assert raised.value.hint


def test_another_step_of_the_same_backup_renewed_it_first(world: World) -> None:
    """The later of two renewals is bound to what is stored, not to what it would have stored."""
    mine = world.leases().take(HOLDER)
    world.clock.advance(TERM / 2)
    theirs = world.leases().keep(mine)
    world.clock.advance(TERM / 4)
    kept = world.leases().keep(mine)
    assert kept == theirs
    assert kept.expires_at < world.clock.now() + TERM


def test_letting_go_leaves_nothing_of_it_and_all_of_others(world: World) -> None:
    leases = world.leases()
    lease = leases.take(HOLDER)
    other = leases.take(f"{HOLDER}1")
    world.clock.advance(TERM / 2)
    leases.keep(lease)
    leases.release(HOLDER)
    assert leases.all() == [other]
    with pytest.raises(LeaseLost, match="has no lease"):
        leases.find(HOLDER)
    leases.release(HOLDER)
    assert leases.take(HOLDER)


def test_the_newest_renewal_counts_even_past_the_ninth(world: World) -> None:
    leases = world.leases()
    lease = leases.take(HOLDER)
    for _ in range(12):
        world.clock.advance(TERM / 2)
        lease = leases.keep(lease)
    assert lease.name == f"{HOLDER}.12"
    assert leases.find(HOLDER) == lease


def test_a_damaged_lease_is_its_holders_trouble_alone(world: World) -> None:
    leases = world.leases()
    mine = leases.take(HOLDER)
    leases.take("full_20260101_000001")
    world.storage.objects["leases/full_20260101_000001"] = b"junk"
    assert leases.find(HOLDER) == mine
    with pytest.raises(Damaged, match="leases/full_20260101_000001"):
        leases.find("full_20260101_000001")
    with pytest.raises(Damaged):
        leases.all()


def test_a_lease_in_anothers_place_is_noticed(world: World) -> None:
    leases = world.leases()
    leases.take(HOLDER)
    leases.take("full_20260101_000001")
    objects = world.storage.objects
    objects[f"leases/{HOLDER}"] = objects["leases/full_20260101_000001"]
    with pytest.raises(Damaged, match=HOLDER):
        leases.find(HOLDER)
