"""Storages in Dagster: a resource each, nothing imported for those that are not enabled, days × storages for all."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.identifiers import StorageName
from chrono_backups.maintenance.verify import verify
from chrono_backups.orchestration.names import REPLICA, VERIFICATION
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.orchestration.site import Site, facts, failures
from chrono_backups_tests.orchestration.test_backfills import days_ago, take
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY, MotoServer
from chrono_backups_tests.servers.sshd import ssh_server

SECRETS = {
    "BACKUP_AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7NOTREAL",
    "BACKUP_AWS_SECRET_ACCESS_KEY": "a-secret-of-the-bucket",
    "BACKUP_AZURE_ACCOUNT_KEY": "YS1zZWNyZXQtb2YtYXp1cmU=",
    "BACKUP_SFTP_PASSWORD": "a-secret-of-the-server",
}
EVERY = {
    **SECRETS,
    "BACKUP_AWS_ENABLED": "true",
    "BACKUP_AWS_BUCKET_NAME": "the-bucket",
    "BACKUP_AWS_REGION": "eu-central-1",
    "BACKUP_GCS_ENABLED": "true",
    "BACKUP_GCS_BUCKET_NAME": "the-other-bucket",
    "BACKUP_AZURE_ENABLED": "true",
    "BACKUP_AZURE_ACCOUNT_NAME": "account",
    "BACKUP_AZURE_CONTAINER_NAME": "the-container",
    "BACKUP_SFTP_ENABLED": "true",
    "BACKUP_SFTP_HOST": "backup.example.com",
    "BACKUP_SFTP_USERNAME": "somebody",
}


@pytest.fixture
def every(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with all storages enabled, none of which is asked."""
    for name, value in EVERY.items():
        monkeypatch.setenv(name, value)
    return site


def within(definitions: dg.Definitions, work: Any, run_config: dict[str, Any] | None = None) -> None:
    """Have ``work`` do something with the resource `backups`, inside a run."""

    @dg.op
    def look(backups: BackupsResource) -> None:
        work(backups)

    @dg.job
    def looking() -> None:
        look()

    located = dg.Definitions(jobs=[looking], resources=definitions.resources, executor=dg.in_process_executor)
    assert located.resolve_job_def("looking").execute_in_process(run_config=run_config).success


class TestResources:
    def test_each_enabled_storage_has_one(self, every: Site) -> None:
        definitions = every.definitions()
        dg.Definitions.validate_loadable(definitions)
        assert set(definitions.resources or ()) == {
            "local", "local_mirror", "aws_s3", "gcs", "azure_blob", "sftp", "backups",
        }  # fmt: skip
        partials: list[Any] = [one for name, one in (definitions.resources or {}).items() if name != "backups"]
        kinds = {partial.resource_cls.__mro__[1].__name__ for partial in partials}
        assert {"S3Resource", "GCSResource", "AzureBlobStorageResource"} <= kinds

    def test_credentials_are_names_of_variables(self, every: Site) -> None:
        from dagster._core.remote_representation.external_data import RepositorySnap

        text = repr(RepositorySnap.from_def(every.definitions().get_repository_def()).resources)
        for name, secret in SECRETS.items():
            assert name in text
            assert secret not in text
        for shown in ("the-bucket", "the-other-bucket", "the-container", "backup.example.com", "eu-central-1"):
            assert shown in text

    def test_a_run_has_the_settings_that_they_say(self, every: Site) -> None:
        def look(backups: BackupsResource) -> None:
            loaded = backups.load()
            assert loaded.storages == ("local", "local_mirror", "aws_s3", "gcs", "azure_blob", "sftp")
            assert loaded.aws_s3.secret_access_key is not None
            assert loaded.aws_s3.secret_access_key.get_secret_value() == SECRETS["BACKUP_AWS_SECRET_ACCESS_KEY"]
            assert loaded.azure_blob.account_key is not None
            assert loaded.azure_blob.account_key.get_secret_value() == SECRETS["BACKUP_AZURE_ACCOUNT_KEY"]
            assert loaded.azure_blob.endpoint_url is None
            assert loaded.sftp.password is not None

        within(every.definitions(), look)

    def test_what_the_launchpad_changes_goes_over_the_environment(self, every: Site) -> None:
        def look(backups: BackupsResource) -> None:
            loaded = backups.load()
            assert str(loaded.local.path) == "/somewhere/else"
            assert (loaded.aws_s3.bucket_name, loaded.aws_s3.prefix) == ("another", "here/")
            assert (loaded.sftp.host, loaded.sftp.port) == ("other.example.com", 2222)

        changed = {
            "local": {"config": {"path": "/somewhere/else"}},
            "aws_s3": {"config": {"bucket": "another", "prefix": "here/"}},
            "sftp": {"config": {"host": "other.example.com", "port": 2222}},
        }
        within(every.definitions(), look, {"resources": changed})

    def test_the_clients_are_the_integrations(self, every: Site) -> None:
        def look(backups: BackupsResource) -> None:
            application = backups.application()
            client = application.storage("aws_s3")
            assert "the-bucket" in client.location
            made = application._clients["aws_s3"]()
            assert made.meta.region_name == "eu-central-1"
            assert made._get_credentials().access_key == SECRETS["BACKUP_AWS_ACCESS_KEY_ID"]
            assert application._clients["azure_blob"]().account_name == "account"
            assert application._clients["sftp"]() is None

        within(every.definitions(), look)

    def test_keys_that_only_the_env_file_has_are_the_drivers(
        self, every: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in SECRETS:
            monkeypatch.delenv(name)
        (every.root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))

        def look(backups: BackupsResource) -> None:
            application = backups.application()
            assert application.settings.aws_s3.access_key_id == SECRETS["BACKUP_AWS_ACCESS_KEY_ID"]
            assert application._clients["aws_s3"]() is None
            assert application._clients["azure_blob"]() is None

        within(every.definitions(), look)

    def test_a_local_site_imports_no_sdk(self, site: Site) -> None:
        code = (
            "import sys, chrono_backups.definitions\n"
            "print(*(one for one in ('boto3', 'dagster_aws', 'google.cloud', 'dagster_gcp', 'azure', 'dagster_azure',"
            " 'paramiko') if one in sys.modules))"
        )
        ran = subprocess.run([sys.executable, "-c", code], cwd=site.root, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == ""


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture
def bucket(site: Site, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site with a bucket beside its directories."""
    name = moto.make_bucket(f"bucket-{abs(hash(str(site.root)))}")
    for variable, value in {
        "BACKUP_AWS_ENABLED": "true",
        "BACKUP_AWS_BUCKET_NAME": name,
        "BACKUP_AWS_ENDPOINT_URL": f"http://127.0.0.1:{moto.port}",
        "BACKUP_AWS_REGION": "us-east-1",
        "BACKUP_AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "BACKUP_AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }.items():
        monkeypatch.setenv(variable, value)
    return site


def replicate(site: Site, day: str, storage: str) -> dg.ExecuteInProcessResult:
    """One cell of the grid."""
    job = site.definitions().resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=site.instance,
        partition_key=dg.MultiPartitionKey({"day": day, "storage": storage}),
        asset_selection=[REPLICA],
        raise_on_error=False,
    )


def ids(site: Site, storage: StorageName) -> list[str]:
    with site.application().open_repository(storage) as repository:
        return [one.backup_id for one in repository.backups()]


class TestGrid:
    def test_a_new_storage_is_filled_day_by_day(self, bucket: Site) -> None:
        taken = {(moment := days_ago(number)).date().isoformat(): take(bucket, moment) for number in (5, 3, 2)}
        definition = bucket.definitions().resolve_assets_def(REPLICA).partitions_def
        assert isinstance(definition, dg.MultiPartitionsDefinition)
        storages = next(one for one in definition.partitions_defs if one.name == "storage").partitions_def
        assert list(storages.get_partition_keys()) == ["local_mirror", "aws_s3"]
        for number, day in enumerate(taken, 1):
            result = replicate(bucket, day, "aws_s3")
            assert result.success, failures(result)
            assert len(ids(bucket, "aws_s3")) == number
        assert ids(bucket, "aws_s3") == ids(bucket, "local")
        with bucket.application().open_repository("aws_s3") as replica:
            assert verify(replica, full=True).ok
        shown = {made.partition: facts(made)["objects_copied"] for made in bucket.materializations(REPLICA)}
        assert set(shown) == {f"{day}|aws_s3" for day in taken}

    def test_a_failed_cell_is_repaired_by_filling_it_again(self, bucket: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        day = days_ago(4).date().isoformat()
        take(bucket, days_ago(4))
        with monkeypatch.context() as changed:
            changed.setenv("BACKUP_AWS_BUCKET_NAME", "no-such-bucket")
            result = replicate(bucket, day, "aws_s3")
            assert not result.success
            assert "no-such-bucket" in failures(result)
            assert SECRET_KEY not in failures(result)
        assert replicate(bucket, day, "local_mirror").success, "the others go on"
        result = replicate(bucket, day, "aws_s3")
        assert result.success, failures(result)
        assert ids(bucket, "aws_s3") == ids(bucket, "local_mirror") == ids(bucket, "local")

    def test_over_sftp(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        day = days_ago(2).date().isoformat()
        take(site, days_ago(2))
        with ssh_server() as server:
            settings = server.settings()
            for variable, value in {
                "BACKUP_SFTP_ENABLED": "true",
                "BACKUP_SFTP_HOST": settings.host or "",
                "BACKUP_SFTP_PORT": str(settings.port),
                "BACKUP_SFTP_USERNAME": settings.username or "",
                "BACKUP_SFTP_PRIVATE_KEY_PATH": str(settings.private_key_path),
                "BACKUP_SFTP_KNOWN_HOSTS": str(settings.known_hosts),
                "BACKUP_SFTP_PATH": "data/repository",
            }.items():
                monkeypatch.setenv(variable, value)
            result = replicate(site, day, "sftp")
            assert result.success, failures(result)
            assert ids(site, "sftp") == ids(site, "local")


class TestProofs:
    @staticmethod
    def damage(pack: Path) -> None:
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(content)

    def test_a_day_is_repaired_from_another_storage(self, site: Site) -> None:
        assert site.backup().success
        assert replicate(site, site.today(), "local_mirror").success
        self.damage(site.pack())
        assert not site.launch("verification_job", site.today()).success
        result = site.launch("verification_job", site.today(), {"repair": True})
        assert result.success, failures(result)
        shown = facts(site.materializations(VERIFICATION)[0])
        assert shown["repaired"] == 1
        assert "local_mirror" in shown["what_was_repaired"]
        assert site.launch("verification_job", site.today()).success

    def test_a_replica_is_proven(self, site: Site) -> None:
        assert site.backup().success
        assert replicate(site, site.today(), "local_mirror").success
        packs = [path for path in (site.root / "mirror" / "packs").rglob("*") if path.is_file()]
        self.damage(max(packs, key=lambda path: path.stat().st_size))
        assert site.launch("verification_job", site.today()).success
        assert not site.launch("verification_job", site.today(), {"storage": "local_mirror"}).success
        result = site.launch("verification_job", site.today(), {"storage": "local_mirror", "repair": True})
        assert result.success, failures(result)

    def test_nothing_to_repair_it_from(self, site: Site) -> None:
        assert site.backup().success
        self.damage(site.pack())
        result = site.launch("verification_job", site.today(), {"repair": True})
        assert not result.success
        assert "not whole" in failures(result)


def test_retention_extends_locks_and_says_what_is_locked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket's own locks are the driver's tests; here a storage in memory stands for it."""
    from chrono_backups.assembly import Application

    clock = FrozenClock()
    memory = MemoryStorage("local_mirror", lock_days=30, clock=clock)
    driver = Application._driver

    def locking(self: Application, name: StorageName, *, create: bool) -> Any:
        return memory if name == "local_mirror" else driver(self, name, create=create)

    monkeypatch.setattr(Application, "_driver", locking)
    assert site.backup().success
    assert replicate(site, site.today(), "local_mirror").success
    clock.advance(timedelta(days=1))
    dry = site.launch("retention", config={"dry_run": True})
    assert dry.success, failures(dry)
    assert not any(key.startswith("locks/") for key in memory.objects)
    result = site.launch("retention", config={})
    assert result.success, failures(result)
    assert any(key.startswith("locks/") for key in memory.objects)
