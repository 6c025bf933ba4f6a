"""A restore goes on in another storage when the one that is read fails, has an object damaged, or lost it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups import settings
from chrono_backups.assembly import Application
from chrono_backups.errors import RepositoryError, RepositoryMissing, StorageError, StorageUnavailable
from chrono_backups.events import Finding
from chrono_backups.identifiers import StorageName
from chrono_backups.maintenance.replicate import replicate
from chrono_backups.recovery.plan import plan_restore
from chrono_backups.recovery.restore import RestoreReport, restore
from chrono_backups.storage.base import Storage
from chrono_backups.storage.faulty import FailFrom, Fault, FaultyStorage

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class Failing(Application):
    """An application of which one storage fails as scripted."""

    faults: tuple[Fault, ...] = ()
    faulty: FaultyStorage | None = None

    def _driver(self, name: StorageName, *, create: bool) -> Storage:
        inner = super()._driver(name, create=create)
        if name != "local" or not self.faults:
            return inner
        self.faulty = FaultyStorage(inner, *self.faults)
        return self.faulty


class Site:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.data.mkdir()
        for number in range(40):
            (self.data / f"{number}.bin").write_bytes(os.urandom(300_000))
        environment = {
            "BACKUP_LOCAL_PATH": str(root / "one"),
            "BACKUP_LOCAL_MIRROR_PATH": str(root / "two"),
            "BACKUP_FILES_PATHS": str(self.data),
            "BACKUP_ENCRYPTION_KEY": KEY,
        }
        self.application = Failing(settings.load(environment))
        with self.application.create_repository() as repository:
            self.application.storage("local_mirror", create=True).close()
            self.backup_id = self.application.take_backup("full", trigger="test").backup_id
            destination = self.application.storage("local_mirror")
            assert replicate(repository, destination).ok
        self.findings: list[Finding] = []

    def restore(self, storage: StorageName | None = None) -> RestoreReport:
        target = self.root / "restored"
        with self.application.open_for_reading(storage, self.find) as repository:
            plan = plan_restore(repository, self.backup_id, target)
            return restore(repository, plan)

    def find(self, event: object) -> None:
        assert isinstance(event, Finding)
        self.findings.append(event)

    def assert_restored(self, report: RestoreReport) -> None:
        assert report.damaged == 0
        base = self.root / "restored" / "files" / str(self.data).lstrip("/")
        for path in self.data.iterdir():
            assert (base / path.name).read_bytes() == path.read_bytes()

    def objects(self, place: str, folder: str) -> list[Path]:
        return sorted(path for path in (self.root / place / folder).rglob("*") if path.is_file())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)


@pytest.mark.parametrize("call", [0, 1, 3, 6, 8, 10])
def test_the_storage_that_is_read_goes_away(site: Site, call: int) -> None:
    """At the header, between records, amid the packs: the n-th call and all after it fail."""
    site.application.faults = (FailFrom(call, error=StorageUnavailable),)
    site.assert_restored(site.restore())
    assert site.application.faulty is not None
    assert site.application.faulty.unreached == ()
    assert [one.code for one in site.findings] == ["storage-given-up"]


@pytest.mark.parametrize("folder", ["packs", "index", "snapshots"])
@pytest.mark.parametrize("harm", ["flip", "cut", "drop"])
def test_an_object_is_damaged_where_it_is_read(site: Site, folder: str, harm: str) -> None:
    for path in site.objects("one", folder):
        content = bytearray(path.read_bytes())
        path.chmod(0o600)
        if harm == "drop":
            path.unlink()
            continue
        if harm == "flip":
            for position in range(45, len(content), 50_000 if folder == "packs" else 10**9):
                content[position] ^= 1
        path.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    site.assert_restored(site.restore())
    if (folder, harm) != ("index", "drop"):  # packs' own directories stand in for it
        assert {one.code for one in site.findings} == {"read-elsewhere"}


def test_each_has_something_the_other_has_not(site: Site) -> None:
    """A pack is damaged in one storage, another in the other: together they are whole."""
    one, two = site.objects("one", "packs"), site.objects("two", "packs")
    assert len(one) > 1
    one[0].write_bytes(b"")
    two[1].write_bytes(b"")
    site.assert_restored(site.restore())


def test_a_forced_storage_is_the_only_one(site: Site) -> None:
    site.application.faults = (FailFrom(0, error=StorageUnavailable),)
    with pytest.raises(StorageUnavailable):
        site.restore("local")
    site.assert_restored(site.restore("local_mirror"))
    assert site.findings == []


def test_a_disk_that_is_not_mounted(site: Site) -> None:
    (site.root / "one").rename(site.root / "away")
    (site.root / "one").mkdir()
    site.assert_restored(site.restore())
    assert [(one.code, one.subject) for one in site.findings] == [("storage-given-up", "local")]


def test_none_answers(site: Site) -> None:
    (site.root / "one").rename(site.root / "away")
    (site.root / "two" / "repository").unlink()
    with pytest.raises(StorageError, match="local_mirror: there is no repository"):
        site.restore()
    (site.root / "away").rename(site.root / "one")
    (site.root / "one" / "repository").unlink()
    with pytest.raises(RepositoryMissing):
        site.restore()


def test_another_repository_is_never_read_along(site: Site) -> None:
    for path in (site.root / "two").rglob("*"):
        if path.is_file():
            path.unlink()
    site.application.create_repository("local_mirror").close()
    max(site.objects("one", "packs"), key=lambda path: path.stat().st_size).unlink()
    assert site.restore().damaged > 0
    shutil.rmtree(site.root / "restored")
    assert any("holds another repository than local" in one.message for one in site.findings)
    site.application.faults = (FailFrom(3, error=StorageUnavailable),)
    with pytest.raises((RepositoryError, StorageUnavailable), match="holds another repository"):
        site.restore()
