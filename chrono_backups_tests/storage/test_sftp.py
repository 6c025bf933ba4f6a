"""A storage on an OpenSSH server: the contract, and what holds of this one besides."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from uuid import uuid4

import pytest

from chrono_backups.storage.settings import SftpSettings
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups_tests.contracts.storage_contract import Opener, SharedStorageContract
from chrono_backups_tests.servers.sftp_by_paramiko import PasswordServer, password_server
from chrono_backups_tests.servers.sshd import SshServer, ssh_server, sshd_program

pytestmark = pytest.mark.skipif(sshd_program() is None, reason="needs sshd")


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with ssh_server() as server:
        yield server


def open_storage(settings: SftpSettings) -> SftpStorage:
    return SftpStorage.open(settings, create=True)


class TestSftpStorage(SharedStorageContract):
    @pytest.fixture
    def opener(self, server: SshServer) -> Iterator[Opener]:
        yield functools.partial(open_storage, server.settings(path=f"storages/{uuid4()}"))


class OtherServersContract(SharedStorageContract):
    """What a server may do otherwise. Keys and ranges are the driver's own doing: for those, once is enough."""

    test_good_keys_name_objects = None  # type: ignore[assignment]
    test_bad_keys_are_refused_before_anything_is_touched = None  # type: ignore[assignment]
    test_prefixes_no_key_can_have_are_refused = None  # type: ignore[assignment]
    test_list_of_a_prefix = None  # type: ignore[assignment]
    test_list_of_a_prefix_that_few_or_none_have = None  # type: ignore[assignment]
    test_past_the_end_is_an_error_that_names_the_object = None  # type: ignore[assignment]
    test_ranges = None  # type: ignore[assignment]
    test_ranges_that_are_none = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def plain_server() -> Iterator[SshServer]:
    with ssh_server(sftp_options=["-P", "hardlink,fsync,statvfs,limits,posix-rename"]) as server:
        yield server


class TestServerThatKnowsNoExtension(OtherServersContract):
    """OpenSSH's, kept from telling of hard links, fsync, statvfs and limits: plain SFTP, version 3."""

    @pytest.fixture
    def opener(self, plain_server: SshServer) -> Iterator[Opener]:
        yield functools.partial(open_storage, plain_server.settings(path=f"storages/{uuid4()}"))


@pytest.fixture(scope="module")
def other_server() -> Iterator[PasswordServer]:
    with password_server() as server:
        yield server


class TestServerWhoseRenameOverwrites(OtherServersContract):
    """Paramiko's, which knows no extension either; and one logs in by a password."""

    @pytest.fixture
    def opener(self, other_server: PasswordServer) -> Iterator[Opener]:
        yield functools.partial(open_storage, other_server.settings(path=f"storages-{uuid4()}"))
