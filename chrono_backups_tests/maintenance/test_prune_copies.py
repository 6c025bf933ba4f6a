"""Pruning what is stored more than once."""

from datetime import timedelta

from chrono_backups_tests.maintenance.site import Site, assert_whole, contents, random_files
from chrono_backups_tests.maintenance.test_prune import GRACE, packs, pruned


def test_copies_of_a_chunk_go_but_one(site: Site) -> None:
    """Two backups that ran at once have stored the same twice."""
    with site.create() as repository:
        files = random_files()
        site.write(files)
        one = site.backup(repository)
        saved = dict(site.storage.objects)
        for key in [key for key in saved if key.startswith(("packs/", "index/"))]:
            del site.storage.objects[key]
        site.storage.objects.pop(f"manifests/{one.backup_id}")
        repository.reload()
        two_ = site.backup(repository)
        site.storage.objects.update(saved)
        expected = {one.backup_id: files, two_.backup_id: files}
        assert len(packs(site)) == 4
        stored = [chunk_id for chunk_id, _ in repository.load_index().chunks()]
        assert len(stored) > len(set(stored))
        # The listings of the directories that lead to the site may differ: /tmp changes while this runs.
        condemned = pruned(site, repository).packs_condemned
        assert condemned in {1, 2}
        site.clock.advance(GRACE)
        assert pruned(site, repository).packs_deleted == condemned
        left = [chunk_id for chunk_id, _ in repository.load_index().chunks()]
        assert len(left) == len(set(left))
        assert set(left) == set(stored)
        assert_whole(site, site.storage, expected)


def test_two_condemned_copies_do_not_both_go(site: Site) -> None:
    with site.create() as repository:
        files = random_files()
        site.write(files)
        one = site.backup(repository)
        saved = dict(site.storage.objects)
        for key in [key for key in saved if key.startswith(("packs/", "index/"))]:
            del site.storage.objects[key]
        repository.reload()
        site.backup(repository)
        site.storage.objects.update(saved)
        for pack in packs(site):
            repository.condemn([bytes.fromhex(pack.removeprefix("packs/"))])
            site.clock.advance(timedelta(seconds=1))
        site.clock.advance(GRACE)
        report = pruned(site, repository)
        assert report.packs_deleted == 2
        assert contents(repository, one.backup_id, site.root) == files
