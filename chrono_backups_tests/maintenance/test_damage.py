"""Every object flipped at every byte, cut, dropped and swapped: each is named, and nothing stops at the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.errors import ChronoBackupsError, Damaged
from chrono_backups.maintenance.verify import verify
from chrono_backups_tests.damaging import last_byte_changed
from chrono_backups_tests.maintenance.site import Site, random_files

KINDS = ("repository", "keys", "packs", "index", "snapshots", "manifests", "leases", "forgotten", "pins", "condemned")


def fill(site: Site, *, each: int) -> Site:
    """A small repository that has objects of every kind: so many of those that can be had many of."""
    with site.create() as repository:
        repository.keyring.add(bytes(32), "second")
        ids = []
        for _ in range(2 * each):
            site.write({"a/one": b"1" * 50, **random_files(1, 30)})
            ids.append(site.backup(repository).backup_id)
        for forgotten, kept in zip(ids[:each], ids[each:], strict=True):
            repository.forget(forgotten, "test")
            repository.pin(kept, "kept")
            repository.condemn([])
            plan_backup(repository, "full", ["files"])
            site.clock.advance(timedelta(seconds=1))
    assert {key.partition("/")[0] for key in site.storage.objects} == set(KINDS)
    return site


@pytest.fixture
def small_site(site: Site) -> Site:
    return fill(site, each=1)


@pytest.fixture
def full_site(site: Site) -> Site:
    return fill(site, each=2)


@contextmanager
def damaged(site: Site, **changes: bytes | None) -> Iterator[None]:
    """With these objects changed, or dropped where None."""
    before = dict(site.storage.objects)
    for key, content in changes.items():
        if content is None:
            del site.storage.objects[key]
        else:
            site.storage.objects[key] = content
    try:
        yield
    finally:
        site.storage.objects.clear()
        site.storage.objects.update(before)


def named(site: Site, *, full: bool = True) -> set[str]:
    """What verification names, or the error that stands in its way; nothing else may come out."""
    try:
        with site.open() as repository:
            report = verify(repository, full=full)
            assert report.ok == (not any(one.severity == "error" for one in report.findings))
            return {one.subject for one in report.findings}
    except Damaged as error:
        return {error.key}
    except ChronoBackupsError as error:
        return {str(error)}


@pytest.mark.parametrize("folder", KINDS)
def test_every_byte(small_site: Site, folder: str) -> None:
    keys = [key for key in small_site.storage.objects if key.partition("/")[0] == folder]
    for key in keys:
        content = small_site.storage.objects[key]
        for position in range(len(content)):
            flipped = bytearray(content)
            flipped[position] ^= 0x01
            with damaged(small_site, **{key: bytes(flipped)}):
                found = named(small_site)
            assert any(key in one for one in found), f"{key} at {position}: {found}"
            # Packs that only a damaged index object names are whole, and named as not found by anybody.
            others = {one for one in found if key not in one and not (folder == "index" and "packs/" in one)}
            assert not others, f"only what is damaged is named: {found}"


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
def test_cut_and_grown(full_site: Site, full: bool) -> None:
    for key, content in list(full_site.storage.objects.items()):
        for changed in (b"", content[:1], content[:39], content[: len(content) // 2], content[:-1], content + b"x"):
            with damaged(full_site, **{key: changed}):
                found = named(full_site, full=full)
            assert any(key in one for one in found), f"{key} with {len(changed)} bytes: {found}"


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
def test_swapped(full_site: Site, full: bool) -> None:
    for folder in KINDS[1:]:
        one, two = sorted(key for key in full_site.storage.objects if key.partition("/")[0] == folder)[:2]
        contents = full_site.storage.objects[two], full_site.storage.objects[one]
        if contents[0] == contents[1] or (folder == "packs" and not full and len(contents[0]) == len(contents[1])):
            continue
        with damaged(full_site, **{one: contents[0], two: contents[1]}):
            found = named(full_site, full=full)
        if folder == "keys":  # with the key in use swapped it does not even open
            assert any(one in name or two in name for name in found)
        else:
            assert {one, two} <= found


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
def test_dropped(full_site: Site, full: bool) -> None:
    with full_site.open() as repository:
        visible = {one.backup_id for one in repository.backups()}
        needed = {one.snapshots[0].snapshot_id for one in repository.backups()}
        current = repository.keyring.current
    for key in list(full_site.storage.objects):
        folder, _, name = key.partition("/")
        with damaged(full_site, **{key: None}):
            found = named(full_site, full=full)
        if folder in {"leases", "forgotten", "pins", "condemned"} or (folder == "keys" and name != current):
            continue  # nothing says that it was ever there
        if folder == "manifests":
            snapshot = next(one for one in full_site.storage.objects if one.startswith(f"snapshots/{name}"))
            assert found == ({snapshot} if name in visible else set()), f"{key}: {found}"
        elif folder == "snapshots":
            assert found == ({key} if name in needed else set()), f"{key}: {found}"
        elif folder == "index":
            assert all(one.startswith("packs/") for one in found)
        elif folder == "keys":
            assert any(str(current) in one for one in found)
        elif folder == "repository":
            assert any("no repository" in one for one in found)
        else:
            assert found == {key}


def test_all_damage_is_named_at_once_with_what_it_spoils(site: Site) -> None:
    with site.create() as repository:
        files = random_files(20, 700)
        site.write(files)
        first = site.backup(repository)
        site.write({**files, "more": b"x" * 100})
        second = site.backup(repository, "incremental")
        first_packs = {key for key in site.storage.objects if key.startswith("packs/")}
        content = max(first_packs, key=lambda key: len(site.storage.objects[key]))
        site.storage.objects[content] = site.storage.objects[content][:-300] + bytes(300)
        snapshot = f"snapshots/{second.snapshots[0].snapshot_id}"
        site.storage.objects[snapshot] = bytes(200)
        report = verify(repository, full=True)
        by_subject = {one.subject: one for one in report.findings}
        assert set(by_subject) == {content, snapshot}
        assert second.backup_id in by_subject[snapshot].message
        assert first.backup_id in by_subject[content].message
        assert f"{site.root}/folder0/" in by_subject[content].message
        assert "more" in by_subject[content].message
        assert all(one.hint for one in report.findings)


def test_one_backup_is_judged_by_what_it_needs(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files(2, 500))
        first = site.backup(repository)
        before = set(site.storage.objects)
        site.write(random_files(2, 500))
        second = site.backup(repository)
        for pack in [key for key in site.storage.objects.keys() - before if key.startswith("packs/")]:
            site.storage.objects[pack] = last_byte_changed(site.storage.objects[pack])
        assert verify(repository, backup_id=first.backup_id, full=True).findings == ()
        report = verify(repository, backup_id=second.backup_id, full=True)
        assert report.findings
        assert report.ok, "the pack's last byte is none of its chunks"
        assert not verify(repository, full=True).ok


def test_a_chunk_that_was_stored_again_spoils_nothing(site: Site) -> None:
    with site.create() as repository:
        files = random_files(2, 500)
        site.write(files)
        site.backup(repository)
        packs = [key for key in site.storage.objects if key.startswith("packs/")]
        for pack in packs:
            del site.storage.objects[pack]
        assert not verify(repository).ok
        second = site.backup(repository)
        report = verify(repository, full=True)
        assert report.ok
        assert {one.subject for one in report.findings} == set(packs)
        assert verify(repository, backup_id=second.backup_id, full=True).ok
