"""What is wrong with a storage is told: which storage, which operation, what to do; and no secret with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.cli.main import main
from chrono_backups_tests.cli.conftest import KEY, OTHER_KEY, write_tree
from chrono_backups_tests.servers.azurite import Azurite, azurite, azurite_command
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import s3_error
from chrono_backups_tests.servers.gcs_server import GcsServer
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY, MotoServer
from chrono_backups_tests.servers.s3_binary import program, s3_server
from chrono_backups_tests.servers.sshd import SshServer, make_key, ssh_server, sshd_program
from chrono_backups_tests.storage.s3_buckets import bucket_name, prefix_name

WRONG_SECRET = "this-secret-is-wrong-AND-long-enough-40c"
WRONG_AZURE_KEY = base64.b64encode(b"this key of the account is wrong" * 2).decode()


@dataclass(frozen=True)
class Told:
    """What a run told."""

    code: int
    document: Any
    text: str

    @property
    def error(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.document["error"]
        return shown

    def names(self, storage: str, *operations: str) -> None:
        """It is about that storage, and about one of these operations."""
        assert storage in self.error["message"]
        assert self.error["storage"] == storage
        assert self.error["operation"] in operations
        assert self.error["hint"]


Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The program in this process, with ``--json --debug``: what it prints has no secret in it, tracebacks neither."""
    write_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    usual = {
        "BACKUP_ENCRYPTION_KEY": KEY,
        "BACKUP_FILES_PATHS": str(tmp_path / "data"),
        "BACKUP_CACHE_DIR": str(tmp_path / "cache"),
    }

    def run(settings: dict[str, str], *words: str) -> Told:
        with monkeypatch.context() as environment:
            for name, value in {**usual, **settings}.items():
                environment.setenv(name, value)
            capfd.readouterr()
            code = main([*words, "--json", "--debug"])
        printed = capfd.readouterr()
        for secret in (KEY, OTHER_KEY, SECRET_KEY, WRONG_SECRET, WRONG_AZURE_KEY):
            assert secret not in printed.out + printed.err
        return Told(code, json.loads(printed.out), printed.out + printed.err)

    return run


def s3(port: int, bucket: str, prefix: str = "", secret: str = SECRET_KEY) -> dict[str, str]:
    return {
        "BACKUP_AWS_ENABLED": "true",
        "BACKUP_AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "BACKUP_AWS_BUCKET_NAME": bucket,
        "BACKUP_AWS_PREFIX": prefix,
        "BACKUP_AWS_REGION": "us-east-1",
        "BACKUP_AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "BACKUP_AWS_SECRET_ACCESS_KEY": secret,
    }


def gcs(port: int, bucket: str = "backups") -> dict[str, str]:
    return {
        "BACKUP_GCS_ENABLED": "true",
        "BACKUP_GCS_BUCKET_NAME": bucket,
        "BACKUP_GCS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


def azure(server: Azurite, container: str, key: str | None = None) -> dict[str, str]:
    settings = server.settings(container)
    return {
        "BACKUP_AZURE_ENABLED": "true",
        "BACKUP_AZURE_ACCOUNT_NAME": settings.account_name or "",
        "BACKUP_AZURE_ACCOUNT_KEY": key or server.key,
        "BACKUP_AZURE_CONTAINER_NAME": container,
        "BACKUP_AZURE_ENDPOINT_URL": settings.endpoint_url or "",
    }


def sftp(server: SshServer, **more: str) -> dict[str, str]:
    return {
        "BACKUP_SFTP_ENABLED": "true",
        "BACKUP_SFTP_HOST": "127.0.0.1",
        "BACKUP_SFTP_PORT": str(server.port),
        "BACKUP_SFTP_USERNAME": server.username,
        "BACKUP_SFTP_PRIVATE_KEY_PATH": str(server.user_key),
        "BACKUP_SFTP_KNOWN_HOSTS": str(server.known_hosts),
        "BACKUP_SFTP_PATH": "data/repository",
        **more,
    }


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def blobs() -> Iterator[Azurite]:
    if azurite_command() is None:
        pytest.skip("needs azurite")
    with azurite() as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    if sshd_program() is None:
        pytest.skip("needs sshd")
    with ssh_server() as server:
        yield server


@pytest.fixture
def google() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.make_bucket("backups")
        yield server


class TestWrongCredentials:
    @pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"])
    def test_s3(self, run: Run, moto: MotoServer, code: str) -> None:
        bucket = moto.make_bucket(bucket_name())
        with FaultProxy(moto.port) as proxy:
            proxy.script(s3_error(code, 403, method="GET", times=100), s3_error(code, 403, method="PUT", times=100))
            told = run(s3(proxy.port, bucket, secret=WRONG_SECRET), "list")
            proxy.clear()
        assert told.code == 6
        told.names("aws_s3", "get")

    def test_s3_of_a_server_that_looks(self, run: Run, tmp_path: Path) -> None:
        found = program()
        if found is None:
            pytest.skip("no versitygw and no minio on the PATH")
        with s3_server(found, tmp_path) as port:
            told = run(s3(port, "bucket", secret=WRONG_SECRET), "storage", "test", "aws_s3")
        assert told.code == 6
        assert "BACKUP_AWS_SECRET_ACCESS_KEY" in told.error["hint"] or "BACKUP_AWS" in told.error["hint"]

    def test_gcs(self, run: Run) -> None:
        with GcsServer(token="a-token") as server:
            server.make_bucket("backups")
            told = run(gcs(server.port), "init")
        assert told.code == 6
        told.names("gcs", "info")
        assert "BACKUP_GCS_CREDENTIALS_PATH" in told.error["hint"]

    def test_azure(self, run: Run, blobs: Azurite) -> None:
        blobs.make_container("credentials")
        told = run(azure(blobs, "credentials", WRONG_AZURE_KEY), "storage", "test", "azure_blob")
        assert told.code == 6
        told.names("azure_blob", "list")
        assert "BACKUP_AZURE_ACCOUNT_NAME" in told.error["hint"]

    def test_sftp(self, run: Run, server: SshServer, tmp_path: Path) -> None:
        stranger = make_key(tmp_path / "stranger")
        told = run(sftp(server, BACKUP_SFTP_PRIVATE_KEY_PATH=str(stranger)), "init")
        assert told.code == 6
        told.names("sftp", "create")


class TestMissing:
    def test_s3(self, run: Run, moto: MotoServer) -> None:
        for words in (("init",), ("storage", "test", "aws_s3"), ("list",)):
            told = run(s3(moto.port, "no-such-bucket"), *words)
            assert told.code == 1
            told.names("aws_s3", "init", "list", "get")
            assert "no-such-bucket" in told.error["message"]
            assert "BACKUP_AWS_BUCKET_NAME" in told.error["hint"]

    def test_gcs(self, run: Run, google: GcsServer) -> None:
        told = run(gcs(google.port, "no-such-bucket"), "init")
        assert told.code == 1
        told.names("gcs", "info")
        assert "no-such-bucket" in told.error["hint"]

    def test_azure(self, run: Run, blobs: Azurite) -> None:
        told = run(azure(blobs, "no-such-container"), "storage", "test", "azure_blob")
        assert told.code == 1
        told.names("azure_blob", "list")
        assert "no-such-container" in told.error["hint"]

    def test_sftp(self, run: Run, server: SshServer) -> None:
        told = run(sftp(server, BACKUP_SFTP_PATH="data/nowhere"), "list")
        told.names("sftp", "get")
        assert "BACKUP_SFTP_PATH" in told.error["hint"]


class TestUnknownHost:
    def test_no_key_is_known(self, run: Run, server: SshServer, tmp_path: Path) -> None:
        (tmp_path / "known").write_text("")
        told = run(sftp(server, BACKUP_SFTP_KNOWN_HOSTS=str(tmp_path / "known")), "init")
        assert told.code == 6
        told.names("sftp", "create")
        assert "ssh-keyscan" in told.error["hint"]
        assert "SHA256:" in told.text

    def test_another_key_is_known(self, run: Run, server: SshServer, tmp_path: Path) -> None:
        other = make_key(tmp_path / "other").with_name("other.pub").read_text().split()
        (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
        told = run(sftp(server, BACKUP_SFTP_KNOWN_HOSTS=str(tmp_path / "known")), "init")
        assert told.code == 6
        told.names("sftp", "create")


class TestNoRightToDelete:
    """Enough for backups, which say nothing of it; prune says what it could not do."""

    def test_s3(self, run: Run, moto: MotoServer, tmp_path: Path) -> None:
        settings = {**s3(moto.port, moto.make_bucket(bucket_name())), "BACKUP_PRUNE_GRACE_HOURS": "0"}
        run(settings, "init")
        first = run(settings, "backup", "--type", "full").document["id"]
        (tmp_path / "data" / "media" / "large.bin").unlink()
        with FaultProxy(moto.port) as proxy:
            proxy.script(s3_error("AccessDenied", 403, method="DELETE", times=1000))
            writer = {**settings, **s3(proxy.port, settings["BACKUP_AWS_BUCKET_NAME"])}
            assert run(writer, "backup", "--type", "full").code == 0
            assert run(writer, "forget", first).code == 0
            told = run(writer, "prune")  # condemns, which takes no right to delete
            assert told.document["report"]["packs_condemned"] > 0
            told = run(writer, "prune")
            assert told.code == 4
            finding = told.document["report"]["findings"][-1]
            assert (finding["code"], finding["subject"]) == ("delete-refused", "aws_s3")
            assert "s3:DeleteObject is needed" in finding["message"] and "docs/operations.md" in finding["hint"]
            told = run(writer, "storage", "test", "aws_s3", "--megabytes", "1")
            assert told.code == 0
            assert told.document["storages"][0]["rights"]["delete"] is False
            proxy.clear()
        assert run(settings, "prune").code == 0
        assert run(settings, "verify", "--full").code == 0


class TestPretending:
    """A store that takes the condition "only where there is none" and ignores it."""

    def check(self, run: Run, settings: dict[str, str], storage: str) -> None:
        for _ in range(2):
            told = run(settings, "init")
            assert told.code == 1
            told.names(storage, "init")
            assert "overwrites" in told.error["message"]
            assert "storage test" in told.error["hint"]
        told = run(settings, "storage", "test", storage)
        assert told.code == 1
        assert "an existing object is overwritten" in told.text
        assert "only pretends" in told.text

    def test_s3(self, run: Run) -> None:
        with MotoServer(pretends=True) as moto:
            bucket = moto.make_bucket(bucket_name())
            self.check(run, s3(moto.port, bucket), "aws_s3")
            assert moto.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0

    def test_gcs(self, run: Run) -> None:
        with GcsServer(pretends=True) as server:
            bucket = server.make_bucket("backups")
            self.check(run, gcs(server.port), "gcs")
            assert not bucket.objects


class TestAnothersPlace:
    def test_a_prefix_that_another_repository_uses(self, run: Run, moto: MotoServer) -> None:
        settings = s3(moto.port, moto.make_bucket(bucket_name()), prefix_name())
        assert run(settings, "init").code == 0
        told = run({**settings, "BACKUP_ENCRYPTION_KEY": OTHER_KEY}, "init")
        assert told.code == 2
        assert "aws_s3" in told.error["message"] and settings["BACKUP_AWS_PREFIX"] in told.error["message"]
        assert told.error["hint"]
        told = run({**settings, "BACKUP_ENCRYPTION_KEY": OTHER_KEY}, "backup")
        assert told.code == 2
        assert told.error["kind"] == "WrongKey" and "aws_s3" in told.error["message"]

    def test_two_storages_with_different_repositories(self, run: Run, moto: MotoServer, tmp_path: Path) -> None:
        remote = s3(moto.port, moto.make_bucket(bucket_name()), prefix_name())
        assert run(remote, "init").code == 0
        local = {"BACKUP_LOCAL_PATH": str(tmp_path / "repository")}
        assert run(local, "init").code == 0
        both = {**local, **remote}
        told = run(both, "backup", "--type", "full")
        assert told.code == 4
        assert "aws_s3 has no complete replica" in told.text
        assert "holds another repository" in told.text
        told = run(both, "replicate")
        assert told.code == 1
        assert "aws_s3" in told.error["message"] and "holds another repository" in told.error["message"]
        assert told.error["hint"]
        told = run(both, "validate")
        assert told.code != 0
        assert "aws_s3" in told.text
