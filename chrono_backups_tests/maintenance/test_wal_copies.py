"""Archived WAL in more than one storage: replicated, verified, put back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from chrono_backups.maintenance.heal import heal
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.maintenance.replicate import ReplicationReport, replicate
from chrono_backups.maintenance.verify import verify
from chrono_backups.repository.evidence import Evidence, put_evidence
from chrono_backups.repository.format import object_key
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


@pytest.fixture
def repository(site: Site) -> Iterator[Repository]:
    with site.create() as made:
        put_segments(made, range(2))
        put_base(made, 2)
        put_segments(made, range(2, 6))
        put_piece(made, 6, 0, 500)
        yield made


@pytest.fixture
def mirror() -> MemoryStorage:
    return MemoryStorage()


def copied(site: Site, mirror: MemoryStorage) -> list[str]:
    with site.open(mirror) as replica:
        return stored(replica)


def damage(storage: MemoryStorage, number: int) -> None:
    key = f"wal/{SYSTEM}/{name(number)}"
    content = bytearray(storage.objects[key])
    content[-1] ^= 1
    storage.objects[key] = bytes(content)


class TestReplicate:
    def test_what_base_backups_need_is_copied(self, site: Site, repository: Repository, mirror: MemoryStorage) -> None:
        report = replicate(repository, mirror)
        assert report.ok, report.findings
        expected = [*(name(number) for number in range(2, 6)), f"{name(6)}.00000000-000001f4"]
        assert copied(site, mirror) == expected
        again = replicate(repository, mirror)
        assert again.objects_copied == 0

    def test_a_segment_takes_its_pieces_place(self, site: Site, repository: Repository, mirror: MemoryStorage) -> None:
        replicate(repository, mirror)
        put_segments(repository, [6])
        archive(repository).remove(archive(repository).contents().needless())
        replicate(repository, mirror)
        assert copied(site, mirror) == [name(number) for number in range(2, 7)]

    def test_chosen_backups_take_their_wal_along(
        self, site: Site, repository: Repository, mirror: MemoryStorage
    ) -> None:
        site.clock.advance(timedelta(days=1))
        newest = put_base(repository, 5).backup_id
        report = replicate(repository, mirror, backup_ids=[newest])
        assert report.ok, report.findings
        assert copied(site, mirror) == [name(5), f"{name(6)}.00000000-000001f4"]

    def test_a_chosen_backup_without_a_database_takes_none(
        self, site: Site, repository: Repository, mirror: MemoryStorage
    ) -> None:
        site.write({"a": b"content"})
        files = site.backup(repository).backup_id
        assert replicate(repository, mirror, backup_ids=[files]).ok
        assert copied(site, mirror) == []

    def test_damage_at_the_source_is_named_and_not_copied(
        self, site: Site, repository: Repository, mirror: MemoryStorage
    ) -> None:
        damage(site.storage, 4)
        report = replicate(repository, mirror)
        assert not report.ok
        assert [one.subject for one in report.findings] == [f"wal/{SYSTEM}/{name(4)}"]
        assert name(4) not in copied(site, mirror)
        assert name(5) in copied(site, mirror)

    def test_another_sealing_of_the_same_wal_is_no_conflict(
        self, site: Site, repository: Repository, mirror: MemoryStorage
    ) -> None:
        replicate(repository, mirror)
        key = f"wal/{SYSTEM}/{name(4)}"
        with site.open(mirror) as replica:
            replica.storage.delete(key)
            put_segments(replica, [4])
        # The same content behind another moment may be a few bytes longer or shorter.
        mirror.objects[key] = self.sealed_otherwise(repository)
        assert len(mirror.objects[key]) != len(site.storage.objects[key])
        report = replicate(repository, mirror)
        assert report.ok, report.findings

    @staticmethod
    def sealed_otherwise(repository: Repository) -> bytes:
        from chrono_backups.repository.format import seal_object

        whole = f"{SYSTEM}/{name(4)}"
        content = bytes(8) + bytes(archive(repository).read_segment(name(4)).content)
        return bytes(seal_object(repository.keys, "wal", whole, content, repository.clock, level=9))

    def test_other_wal_of_the_same_name_is_a_conflict(
        self, site: Site, repository: Repository, mirror: MemoryStorage
    ) -> None:
        replicate(repository, mirror)
        with site.open(mirror) as replica:
            replica.storage.delete(f"wal/{SYSTEM}/{name(4)}")
            other = bytes(8) + bytes(range(256)) * 4096
            archive(replica).put_segment(name(4), other)
        report = replicate(repository, mirror)
        assert [one.code for one in report.findings] == ["conflict"]

    def test_evidence_is_copied(self, site: Site, repository: Repository, mirror: MemoryStorage) -> None:
        (base,) = repository.backups()
        now = site.clock.now()
        put_evidence(repository, Evidence(base.backup_id, now, now, True, {}))
        replicate(repository, mirror)
        with site.open(mirror) as replica:
            assert replica.names("drill") == repository.names("drill") != []


class TestVerify:
    def test_whole_wal_has_no_findings(self, site: Site, repository: Repository) -> None:
        put_history(repository, 2, (1, 6))
        for full in (False, True):
            report = verify(repository, full=full)
            assert report.findings == ()
        assert report.bytes >= sum(
            len(content) for key, content in site.storage.objects.items() if key.startswith("wal/")
        )

    def test_damage_is_found_by_a_full_one(self, site: Site, repository: Repository) -> None:
        damage(site.storage, 4)
        assert verify(repository).ok
        report = verify(repository, full=True)
        assert [(one.code, one.subject) for one in report.findings] == [("damaged", f"wal/{SYSTEM}/{name(4)}")]
        assert not report.ok

    def test_damage_of_what_no_base_backup_needs_is_a_warning(self, site: Site, repository: Repository) -> None:
        damage(site.storage, 0)
        report = verify(repository, full=True)
        assert [one.severity for one in report.findings] == ["warning"]
        assert report.ok

    def test_a_gap_is_told(self, site: Site, repository: Repository) -> None:
        site.storage.delete(f"wal/{SYSTEM}/{name(4)}")
        (finding,) = verify(repository).findings
        assert (finding.code, finding.severity) == ("wal-gap", "warning")
        assert finding.subject == f"wal/{SYSTEM}/{name(4)}"
        assert name(4).upper() in finding.message

    def test_a_damaged_history_is_found_at_once(self, site: Site, repository: Repository) -> None:
        put_history(repository, 2, (1, 6))
        key = object_key("wal", f"{SYSTEM}/00000002.history")
        site.storage.objects[key] = last_byte_changed(site.storage.objects[key])
        report = verify(repository)
        assert [(one.code, one.subject) for one in report.findings] == [("damaged", key)]

    def test_a_stray_object_is_named(self, site: Site, repository: Repository) -> None:
        site.storage.put(f"wal/{SYSTEM}/readme.txt", b"hello")
        assert [one.code for one in verify(repository).findings] == ["stray"]

    def test_one_backups_verification_does_without(self, site: Site, repository: Repository) -> None:
        damage(site.storage, 4)
        (base,) = repository.backups()
        assert verify(repository, backup_id=base.backup_id, full=True).findings == ()


class TestHeal:
    def replica(self, site: Site, repository: Repository, mirror: MemoryStorage) -> Repository:
        report: ReplicationReport = replicate(repository, mirror)
        assert report.ok
        return site.open(mirror)

    def test_damaged_wal_is_put_back(self, site: Site, repository: Repository, mirror: MemoryStorage) -> None:
        with self.replica(site, repository, mirror) as other:
            damage(site.storage, 4)
            report = heal(repository, [other], full=True)
        assert report.verified.findings == ()
        assert [one.subject for one in report.repaired] == [f"wal/{SYSTEM}/{name(4)}"]

    def test_a_gap_is_closed(self, site: Site, repository: Repository, mirror: MemoryStorage) -> None:
        with self.replica(site, repository, mirror) as other:
            for number in (3, 4):
                site.storage.delete(f"wal/{SYSTEM}/{name(number)}")
            report = heal(repository, [other])
        assert report.verified.findings == ()
        assert [one.subject for one in report.repaired] == [f"wal/{SYSTEM}/{name(number)}" for number in (3, 4)]

    def test_what_was_pruned_does_not_come_back(
        self, site: Site, repository: Repository, mirror: MemoryStorage
    ) -> None:
        with self.replica(site, repository, mirror) as other:
            put_segments(other, range(2))
            plan = plan_prune(repository, grace=timedelta(0), now=site.clock.now())
            assert prune(repository, plan).wal_objects_deleted == 2
            assert heal(repository, [other]).repaired == ()
            assert stored(repository)[0] == name(2)

    def test_what_nobody_has_is_told(self, site: Site, repository: Repository, mirror: MemoryStorage) -> None:
        with self.replica(site, repository, mirror) as other:
            damage(site.storage, 4)
            damage(mirror, 4)
            report = heal(repository, [other], full=True)
        assert [one.subject for one in report.unrepaired] == [f"wal/{SYSTEM}/{name(4)}"]
