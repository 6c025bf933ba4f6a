"""What is damaged or missing in one storage is put back from another; what can't be is said."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from chrono_backups.errors import ChronoBackupsError, StorageError
from chrono_backups.maintenance.heal import HealReport, heal
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.maintenance.replicate import replicate
from chrono_backups.maintenance.verify import verify
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import Content, Site, assert_whole, random_files

HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "flip": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "drop": lambda content: None,
}


class Pair:
    """A repository with two backups, and a whole replica of it."""

    def __init__(self, site: Site, mirror: MemoryStorage) -> None:
        self.site = site
        self.mirror = mirror
        self.expected: dict[str, Content] = {}
        with site.create() as repository:
            for _ in range(2):
                files = random_files(4, 30_000)
                site.write(files)
                self.expected[site.backup(repository).backup_id] = files
            assert replicate(repository, mirror).ok
        self.sound = dict(site.storage.objects)

    def keys(self, folder: str) -> list[str]:
        return sorted(key for key in self.site.storage.objects if key.partition("/")[0] == folder)

    def harm(self, harm: str, *keys: str, storage: MemoryStorage | None = None) -> None:
        objects = (storage or self.site.storage).objects
        for key in keys:
            changed = HARMS[harm](objects[key])
            if changed is None:
                del objects[key]
            else:
                objects[key] = changed

    def heal(self, storage: Storage | None = None, *, full: bool = True) -> HealReport:
        with self.site.open(self.mirror) as other:
            keyring = other.keyring
            with Repository(storage or self.site.storage, keyring, self.site.clock) as repository:
                return heal(repository, [other], full=full)

    def assert_healed(self, report: HealReport) -> None:
        assert report.verified.ok, report.verified.findings
        assert report.unrepaired == ()
        assert len(assert_whole(self.site, self.site.storage, self.expected)) == 2


@pytest.fixture
def pair(site: Site) -> Pair:
    return Pair(site, MemoryStorage("mirror"))


@pytest.mark.parametrize("folder", ["packs", "index", "snapshots", "manifests", "repository", "keys"])
@pytest.mark.parametrize("harm", HARMS)
def test_each_kind_of_object(pair: Pair, folder: str, harm: str) -> None:
    keys = pair.keys(folder)
    pair.harm(harm, *keys)
    report = pair.heal()
    pair.assert_healed(report)
    if (folder, harm) == ("index", "drop"):
        assert [one.subject.partition("/")[0] for one in report.repaired] == ["index"]
        return
    assert {one.subject for one in report.repaired} == set(keys)
    assert {key: pair.site.storage.objects[key] for key in keys} == {key: pair.sound[key] for key in keys}


def test_what_is_well_is_left_alone(pair: Pair) -> None:
    report = pair.heal()
    assert report.repaired == report.unrepaired == ()
    assert pair.site.storage.objects == pair.sound


def test_damage_on_both_sides_is_mended_as_far_as_one_has_it(pair: Pair) -> None:
    first, second = pair.keys("packs")[:2]
    pair.harm("flip", first, second)
    pair.harm("flip", second, storage=pair.mirror)
    report = pair.heal()
    assert [one.subject for one in report.repaired] == [first]
    assert [one.subject for one in report.unrepaired] == [second]
    assert "no other storage has it whole" in report.unrepaired[0].message
    assert not report.verified.ok
    assert {one.subject for one in report.verified.findings} == {second}


def test_an_index_that_nobody_has_is_made_anew(pair: Pair) -> None:
    keys = pair.keys("index")
    pair.harm("flip", *keys)
    pair.harm("cut", *keys, storage=pair.mirror)
    report = pair.heal()
    pair.assert_healed(report)
    assert not set(pair.keys("index")) & set(keys)
    assert any("made anew" in one.message for one in report.repaired)


def test_chunks_that_the_other_has_in_another_pack(pair: Pair) -> None:
    """The replica was pruned: what was in one pack is in another one there."""
    site = pair.site
    oldest, newest = sorted(pair.expected)
    with site.open(pair.mirror) as mirror:
        files = {**pair.expected[newest], "more": secrets.token_bytes(100)}
        for name in sorted(files)[:3]:
            files.pop(name)
        site.write(files)
        kept = site.backup(mirror).backup_id
        for name in (oldest, newest):
            mirror.forget(name, "test")
        for _ in range(3):
            site.clock.advance(timedelta(days=3))
            prune(mirror, plan_prune(mirror, grace=timedelta(0), now=site.clock.now()))
    with site.open(pair.mirror) as mirror, site.open() as repository:
        assert replicate(mirror, repository.storage).ok
    lost = [key for key in pair.keys("packs") if key not in pair.mirror.objects]
    assert lost, "prune has moved nothing"
    with site.open() as repository:
        repository.forget(oldest, "test")
        repository.forget(newest, "test")
        assert verify(repository).ok
    pair.harm("drop", *lost)
    report = pair.heal()
    assert report.verified.ok, report.verified.findings
    assert assert_whole(site, site.storage, {kept: files}) == [kept]


def test_a_manifest_that_was_forgotten_does_not_come_back(pair: Pair) -> None:
    oldest = min(pair.expected)
    with pair.site.open(pair.mirror) as mirror:
        mirror.forget(oldest, "test")
    pair.harm("drop", f"manifests/{oldest}")
    report = pair.heal()
    assert report.repaired == ()
    assert f"manifests/{oldest}" not in pair.site.storage.objects


def test_a_key_that_was_removed_does_not_come_back(pair: Pair) -> None:
    with pair.site.open() as repository:
        slot = repository.keyring.add(bytes(32), "gone")
        assert replicate(repository, pair.mirror).ok
        repository.keyring.remove(slot.key_id)
    pair.harm("flip", *pair.keys("packs"))
    pair.heal()
    assert len(pair.keys("keys")) == 1


def test_what_is_locked_is_explained(pair: Pair) -> None:
    pack = pair.keys("packs")[0]
    pair.harm("flip", pack)
    pair.site.storage.locks[pack] = pair.site.clock.now() + timedelta(days=9)
    pair.site.storage._clock = pair.site.clock
    damaged = pair.site.storage.objects[pack]
    report = pair.heal()
    assert [one.subject for one in report.unrepaired] == [pack]
    assert "locked until 2026-01-10" in report.unrepaired[0].message
    assert pair.site.storage.objects[pack] == damaged
    pair.site.clock.advance(timedelta(days=9))
    pair.assert_healed(pair.heal())


def test_damaged_leases_and_condemnations_are_dropped(pair: Pair) -> None:
    with pair.site.open() as repository:
        repository.leases.take("full_20260101_000000")
        repository.condemn([])
    pair.harm("flip", *pair.keys("leases"), *pair.keys("condemned"))
    pair.assert_healed(pair.heal())
    assert not pair.keys("leases")
    assert not pair.keys("condemned")


def test_killed_at_every_call_the_next_repair_ends_it(site: Site) -> None:
    pair = Pair(site, MemoryStorage("mirror"))
    victims = [pair.keys(folder)[-1] for folder in ("packs", "index", "snapshots", "manifests")]
    for call in range(1000):
        site.storage.objects.clear()
        site.storage.objects.update(pair.sound)
        pair.harm("flip", *victims)
        faulty = FaultyStorage(site.storage, FailFrom(call, error=StorageError, after_effect=True))
        with suppress(ChronoBackupsError, AssertionError):  # the last one comes through
            pair.heal(faulty)
        if faulty.unreached:
            break
        pair.assert_healed(pair.heal())
    assert call > 20
