"""Whole backups to S3: how many requests they take, and what becomes of them on a bad day."""

from __future__ import annotations

import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.assembly import Application
from chrono_backups.clock import SystemClock
from chrono_backups.errors import Damaged, StorageError, StorageUnavailable
from chrono_backups.events import Finding
from chrono_backups.identifiers import StorageName
from chrono_backups.maintenance.verify import verify
from chrono_backups.recovery.plan import plan_restore
from chrono_backups.recovery.restore import restore
from chrono_backups.repository.records import Manifest
from chrono_backups.settings import load
from chrono_backups.sources import scan
from chrono_backups.storage import s3
from chrono_backups.storage.base import Storage
from chrono_backups.storage.s3 import S3Storage
from chrono_backups_tests.backup.taking import noise, total, write_all
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import (
    Answer,
    Corrupt,
    Fault,
    LoseAnswer,
    Refuse,
    Reset,
    Slow,
    Stall,
    Truncate,
    busy,
    s3_error,
)
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY, MotoServer
from chrono_backups_tests.storage.s3_buckets import bucket_name, prefix_name
from demo.compare import compare

KEY = urlsafe_b64encode(bytes(range(32))).decode()


class Hasty(SystemClock):
    """Waits less than it is told to."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.1))


class Later(SystemClock):
    """A minute ahead: what was written just now counts as settled, and is not read once more."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=1)


class Impatient(Application):
    """An application whose S3 gives up after a second."""

    def _driver(self, name: StorageName, *, create: bool) -> Storage:
        assert name == "aws_s3"
        return S3Storage.open(self.settings.aws_s3, create=create, clock=self.clock, read_timeout=1.0)


@dataclass
class Site:
    """A tree and a repository for it in a bucket."""

    root: Path
    room: Path
    settings: dict[str, str] = field(default_factory=dict)
    patient: bool = False
    """Where requests are counted, a slow machine must not look like a storage that has to be asked again."""

    @property
    def application(self) -> Application:
        return Application(load(self.settings), clock=Later()) if self.patient else self.impatient

    @property
    def impatient(self) -> Application:
        return Impatient(load(self.settings), clock=Hasty())

    def take(self, backup_type: str = "incremental") -> Manifest:
        return self.application.take_backup(backup_type, trigger="test")  # type: ignore[arg-type]

    def check(self) -> None:
        """The newest backup restores as it is, and every byte is proven."""
        out = self.room / f"out-{secrets.token_hex(4)}"
        with self.application.open_repository() as repository:
            backup = repository.backup("latest").backup_id
            assert restore(repository, plan_restore(repository, backup, out)).damaged == 0
            assert not [one for one in verify(repository, full=True).findings if one.severity == "error"]
        assert compare(self.root, out / "files" / self.root.relative_to("/")) == []


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(moto: MotoServer) -> str:
    return moto.make_bucket(bucket_name())


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[FaultProxy]:
    with FaultProxy(moto.port) as proxy:
        yield proxy


@pytest.fixture
def site(tmp_path: Path, proxy: FaultProxy, bucket: str) -> Site:
    root = tmp_path / "site"
    write_all(root, {f"large/{number}": noise(number, 3_000_000) for number in range(7)})
    write_all(root, {f"small/{number}": noise(number, 1000 + number) for number in range(50)})
    (tmp_path / "env").write_text("A=1\n")
    settings = {
        "BACKUP_AWS_ENABLED": "true",
        "BACKUP_AWS_BUCKET_NAME": bucket,
        "BACKUP_AWS_PREFIX": prefix_name(),
        "BACKUP_AWS_REGION": "us-east-1",
        "BACKUP_AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "BACKUP_AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "BACKUP_AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "BACKUP_FILES_PATHS": str(root),
        "BACKUP_CONFIGURATION_PATHS": str(tmp_path / "env"),
        "BACKUP_ENCRYPTION_KEY": KEY,
        "BACKUP_CACHE_DIR": str(tmp_path / "cache"),
    }
    made = Site(root, tmp_path, settings)
    made.application.create_repository().close()
    return made


def keep_what_leads_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders above the site are the machine's, and change all the time: here they are as they were seen first."""
    leading = {os.fsencode(folder.name) for folder in root.parents}
    seen: dict[bytes, list[os.stat_result]] = {}
    attributes = scan.attributes

    def as_seen_first(names: list[bytes], stats: list[os.stat_result]) -> Any:
        alone = len(names) == 1 and names[0] in leading
        return attributes(names, seen.setdefault(names[0], stats) if alone else stats)

    monkeypatch.setattr(scan, "attributes", as_seen_first)


class TestRequests:
    @pytest.fixture
    def site(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
        site.patient = True
        keep_what_leads_to(site.root, monkeypatch)
        return site

    def unchanged(self, site: Site, proxy: FaultProxy, backup_type: str) -> Manifest:
        """A backup that found nothing new."""
        proxy.clear()
        manifest = site.take(backup_type)
        assert manifest.status == "complete"
        assert manifest.statistics.bytes_added == 0
        return manifest

    def test_a_backup_of_nothing_new_takes_few(self, site: Site, proxy: FaultProxy) -> None:
        site.take("full")
        for _ in range(2):
            self.unchanged(site, proxy, "incremental")
            assert len(proxy.requests) <= 20, proxy.requests
            assert proxy.count("HEAD") == 0
            assert proxy.count("GET", "/manifests/") == proxy.count("GET", "/index/") == 0

    def test_so_many_are_all_that_older_backups_cost(self, site: Site, proxy: FaultProxy) -> None:
        site.take("full")
        counts = []
        for _ in range(6):
            self.unchanged(site, proxy, "configuration")
            counts.append(len(proxy.requests))
        assert max(counts) <= min(counts) + 1
        proxy.clear()
        with site.application.open_repository() as repository:
            assert len(repository.backups()) >= 7
        assert len(proxy.requests) == 4  # header, key, two listings

    def test_without_a_cache_everything_works(self, site: Site, proxy: FaultProxy) -> None:
        file = site.room / "file"
        file.write_text("in the way")
        site.settings["BACKUP_CACHE_DIR"] = str(file / "cache")
        site.take("full")
        assert site.take().statistics.bytes_added < 10_000
        site.check()

    def test_a_listing_is_one_request_a_thousand_objects(
        self, moto: MotoServer, bucket: str, site: Site, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert s3._PAGE == 1000
        monkeypatch.setattr(s3, "_PAGE", 100)
        prefix = site.settings["BACKUP_AWS_PREFIX"]
        for number in range(201):
            moto.client.put_object(Bucket=bucket, Key=f"{prefix}/packs/{number:064}", Body=b"")
        proxy.clear()
        with Application(load(site.settings)).open_repository() as repository:
            assert len(repository.names("pack")) == 201
        assert proxy.count("GET", "list-type=2") == 3


PASSING: dict[str, list[Fault]] = {
    "refused": [Refuse(0.3, method="PUT", path="/packs/")],
    "reset within what is sent": [Reset("up", 500_000, method="PUT", path="/packs/", times=3)],
    "reset within what comes": [Reset("down", 10, method="GET", path="list-type", times=3)],
    "answers lost": [
        LoseAnswer(method="PUT", path=path) for path in ("lease", "pack", "index", "snapshot", "manifest")
    ],
    "stalled": [Stall(60, "up", 100_000, method="PUT", path="/packs/"), Stall(60, method="GET", path="/keys/")],
    "slow": [Slow(20_000_000, "up", method="PUT", path="/packs/")],
    "busy": [busy(status, retry_after=1, path=path) for status, path in ((503, "packs"), (500, "index"), (429, "man"))],
    "cut short": [Truncate(100, path="/repository", method="GET"), Truncate(100, path="list-type", times=2)],
    "damaged on the way there": [s3_error("BadDigest", 400, method="PUT", path="/packs/")],
    "not what S3 says": [Answer(502, b"<html>", path="list-type")],
}


@pytest.mark.parametrize("name", PASSING)
def test_a_backup_is_complete_whatever_passes(name: str, site: Site, proxy: FaultProxy) -> None:
    proxy.script(*PASSING[name])
    assert site.take("full").status == "complete"
    assert proxy.unreached == []
    site.check()


FINAL: dict[str, Fault] = {
    "no right": s3_error("AccessDenied", 403, method="PUT", path="/packs/", skip=1),
    "expired": s3_error("ExpiredToken", 400, method="PUT", path="/packs/", skip=1),
    "clock": s3_error("RequestTimeTooSkewed", 403, method="PUT", path="/index/"),
    "full": s3_error("QuotaExceeded", 403, method="PUT", path="/snapshots/"),
    "gone": busy(method="PUT", path="/packs/", skip=1, times=40),
    "gone at the end": Reset("up", method="PUT", path="/manifests/", times=8),
}


@pytest.mark.parametrize("name", FINAL)
def test_a_backup_that_fails_names_the_storage_and_the_next_goes_on(name: str, site: Site, proxy: FaultProxy) -> None:
    proxy.script(FINAL[name])
    with pytest.raises(StorageError, match="aws_s3"):
        site.take("full")
    proxy.clear()
    with site.application.open_repository() as repository:
        assert repository.backups() == []
        stored = sum(info.size for info in repository.storage.list("packs/"))
    assert stored
    manifest = site.take("full")
    assert manifest.status == "complete"
    assert manifest.statistics.bytes_added < total(site.root) - stored + 300_000  # what was there is not sent again
    site.check()


def test_wrong_bytes_are_never_restored(site: Site, proxy: FaultProxy) -> None:
    site.take("full")
    proxy.script(Corrupt(position=60_000, method="GET", path="/packs/", times=3))
    found: list[Finding] = []
    out = site.room / "out"
    with site.application.open_repository() as repository:
        backup = repository.backup("latest").backup_id
        report = restore(repository, plan_restore(repository, backup, out), listener=lambda one: None)
        found += report.findings
    for path in sorted(one for one in (out / "files" / site.root.relative_to("/")).rglob("*") if one.is_file()):
        assert (
            path.read_bytes() == (site.root / path.relative_to(out / "files" / site.root.relative_to("/"))).read_bytes()
        )
    assert report.damaged == len(found) or report.damaged == 0
    proxy.clear()
    site.check()


def test_a_wrong_header_is_named_and_a_storage_that_is_away_is(site: Site, proxy: FaultProxy) -> None:
    proxy.script(Corrupt(position=30, method="GET", path="/repository"))
    with pytest.raises(Damaged, match="repository"):
        site.take("full")
    proxy.clear()
    with proxy.refusing(), pytest.raises(StorageUnavailable, match=r"aws_s3.*refused"):
        site.take("full")
