"""What holds of whole backups in a storage that is reached by HTTP: through the front door, and when the way fails.

A driver joins with ``target``, the port its server listens on, and ``variables``: port → the ``BACKUP_…`` settings.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chrono_backups.assembly import Application
from chrono_backups.errors import StorageDenied, StorageUnavailable
from chrono_backups.settings import load
from chrono_backups_tests.cli.conftest import KEY, Site, same_tree, write_tree
from chrono_backups_tests.cli.in_process import SiteInProcess
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer, Corrupt, LoseAnswer, Reset, Truncate

Variables = Callable[[int], dict[str, str]]


class WholeBackupContract:
    UPLOADS = "PUT"

    @pytest.fixture
    def target(self) -> int:
        raise NotImplementedError

    @pytest.fixture
    def variables(self) -> Variables:
        raise NotImplementedError

    @pytest.fixture
    def proxy(self, target: int) -> Iterator[FaultProxy]:
        with FaultProxy(target) as proxy:
            yield proxy

    @pytest.fixture
    def site(self, tmp_path: Path, target: int, variables: Variables, monkeypatch: pytest.MonkeyPatch) -> Site:
        """A tree to protect, the storage's settings, no repository yet."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        made = SiteInProcess(tmp_path)
        write_tree(made.data)
        made.settings = {
            "BACKUP_ENCRYPTION_KEY": KEY,
            "BACKUP_FILES_PATHS": str(made.data),
            **variables(target),
        }
        return made

    def test_through_the_front_door(self, site: Site) -> None:
        site.run("init")
        first = site.backup()
        (site.data / "later.txt").write_text("came later")
        second = site.backup("incremental")
        assert [one["id"] for one in site.json("list")] == [second, first]
        site.run("verify", "--full")
        site.run("restore", "latest", "--to", str(site.root / "restored"))
        assert same_tree(site.data, site.root / "restored" / "files" / str(site.data).lstrip("/"))
        site.run("init", code=2)

    def test_faults_of_uploads_cost_an_attempt_each(self, site: Site, proxy: FaultProxy, variables: Variables) -> None:
        application = self.ready(site, proxy, variables)
        proxy.script(
            Answer(503, retry_after=1, method=self.UPLOADS),
            LoseAnswer(method=self.UPLOADS),
            Reset(after=200, method=self.UPLOADS),
            Corrupt(direction="up", position=2000, method=self.UPLOADS, skip=1),
            LoseAnswer(method=self.UPLOADS, skip=1),
        )
        manifest = application.take_backup("full", trigger="test")
        assert manifest.status == "complete"
        self.check(site)

    def test_answers_cut_short_cost_an_attempt(self, site: Site, proxy: FaultProxy, variables: Variables) -> None:
        application = self.ready(site, proxy, variables)
        application.take_backup("full", trigger="test")
        proxy.script(Truncate(method="GET", path="packs", keep=10), Reset(method="GET", path="packs", direction="down"))
        restored = site.root / "restored"
        through_proxy = SiteInProcess(site.root, site.settings | variables(proxy.port))
        through_proxy.run("restore", "latest", "--to", str(restored))
        assert same_tree(site.data, restored / "files" / str(site.data).lstrip("/"))

    def test_a_storage_that_goes_away_is_named_and_the_next_run_goes_on(
        self, site: Site, proxy: FaultProxy, variables: Variables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chrono_backups.assembly._REMOTE_ATTEMPTS", 2)
        (site.data / "more.bin").write_bytes(os.urandom(40_000_000))
        application = self.ready(site, proxy, variables)
        proxy.script(Answer(503, method=self.UPLOADS, skip=3, times=1000))
        with pytest.raises(StorageUnavailable) as caught:
            application.take_backup("full", trigger="test")
        assert caught.value.storage in application.settings.storages
        proxy.clear()

        with application.open_repository() as repository:
            assert list(repository.storage.list("packs/"))
            assert application.take_backup("full", trigger="test").status == "complete"
            # What the run before had stored is not stored again.
            assert sum(info.size for info in repository.storage.list("packs/")) < 44_000_000
        self.check(site)

    def test_credentials_that_run_out_are_told_and_the_next_run_goes_on(
        self, site: Site, proxy: FaultProxy, variables: Variables
    ) -> None:
        (site.data / "more.bin").write_bytes(os.urandom(20_000_000))
        application = self.ready(site, proxy, variables)
        proxy.script(Answer(403, method=self.UPLOADS, skip=2, times=1000))
        with pytest.raises(StorageDenied) as caught:
            application.take_backup("full", trigger="test")
        assert caught.value.storage in application.settings.storages and caught.value.hint
        assert len([one for one in proxy.requests if one.method == self.UPLOADS]) < 8, "a refusal is not asked again"
        proxy.clear()
        assert application.take_backup("full", trigger="test").status == "complete"
        with application.open_repository() as repository:
            assert [one.status for one in repository.backups()] == ["complete"]
        self.check(site)

    def ready(self, site: Site, proxy: FaultProxy, variables: Variables) -> Application:
        """An application over the proxy, with an empty repository."""
        application = Application(load(site.settings | variables(proxy.port)))
        application.create_repository().close()
        proxy.clear()
        return application

    def check(self, site: Site) -> None:
        """The newest backup is whole, and restores."""
        site.run("verify", "--full")
        restored = site.root / "checked"
        site.run("restore", "latest", "--to", str(restored))
        large = Path(str(site.data).lstrip("/"), "media", "large.bin")
        assert filecmp.cmp(site.data / "media" / "large.bin", restored / "files" / large, shallow=False)
