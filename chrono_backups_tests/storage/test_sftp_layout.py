"""What lies on the server, in which order it gets there, and how many round trips that takes."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from chrono_backups.errors import ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups.storage.sftp_connection import SshChannel, SshDialer
from chrono_backups_tests.contracts.storage_contract import content_of, keys_of
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.sftp_by_paramiko import password_server
from chrono_backups_tests.servers.sshd import SshServer, ssh_server, sshd_program
from chrono_backups_tests.storage.watching import everything_in
from chrono_backups_tests.undisturbed import once_undisturbed

pytestmark = pytest.mark.skipif(sshd_program() is None, reason="needs sshd")


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with ssh_server() as server:
        yield server


@pytest.fixture
def path() -> str:
    return f"storages/{uuid4()}"


@pytest.fixture
def root(server: SshServer, path: str) -> Path:
    return server.data / path


@pytest.fixture
def storage(server: SshServer, path: str) -> Iterator[SftpStorage]:
    storage = SftpStorage.open(server.settings(path=path), create=True)
    yield storage
    storage.close()


class TestTheFolder:
    def test_nothing_is_made_but_by_init(self, server: SshServer) -> None:
        path = f"bare-{uuid4()}"
        root = server.data / path
        storage = SftpStorage.open(server.settings(path=path))
        calls: list[Callable[[], object]] = [
            lambda: storage.put("a", b""), lambda: storage.get("a"), lambda: storage.info("a"),
            lambda: storage.delete("a"), lambda: list(storage.list()), lambda: storage.usage(),
        ]  # fmt: skip
        for there in (False, True):  # a mount point without its disk: the folder is there, and empty
            if there:
                (root / "lost+found").mkdir(parents=True)
                server.give(root)
            for call in calls:
                with pytest.raises(StorageError, match="holds no storage") as caught:
                    call()
                assert not isinstance(caught.value, StorageUnavailable | ObjectMissing)
                assert f"/~/{path}" in caught.value.message
                assert "init" in caught.value.hint and "mount" in caught.value.hint
        assert everything_in(root) == ["lost+found"]
        storage.close()

    def test_a_copy_without_hidden_folders_can_be_read(self, storage: SftpStorage, root: Path) -> None:
        storage.put("a/b", b"content")
        storage.close()
        (root / ".tmp").rmdir()
        assert bytes(storage.get("a/b")) == b"content"
        assert keys_of(storage.list()) == ["a/b"]
        with pytest.raises(ObjectMissing):
            storage.get("a/c")
        with pytest.raises(StorageError, match="holds no storage"):
            storage.put("a/c", b"content")

    def test_an_absolute_path(self, server: SshServer) -> None:
        place = server.data / "deep/er/still"
        storage = SftpStorage.open(server.settings(path=f"{place}/"), create=True)
        storage.put("a/b", b"content")
        storage.close()
        assert (place / "a/b").read_bytes() == b"content"
        assert storage.location == f"sftp://{server.username}@127.0.0.1:{server.port}{place}/"

    def test_the_whole_of_a_confined_account(self) -> None:
        with password_server() as server:
            storage = SftpStorage.open(server.settings(path="/"), create=True)
            storage.put("a", b"1")
            storage.put("b/c", b"2")
            assert keys_of(storage.list()) == ["a", "b/c"]
            storage.delete("a")
            storage.close()
            assert everything_in(server.data) == [".tmp", "b", "b/c"]

    def test_a_file_where_the_folder_is_to_be(self, server: SshServer) -> None:
        (server.data / "file").write_bytes(b"")
        for path in ("file", "file/storage"):
            with pytest.raises(StorageError, match="create failed"):
                SftpStorage.open(server.settings(path=path), create=True)

    def test_only_the_account_may_look(self, storage: SftpStorage, root: Path) -> None:
        storage.put("a/b", b"content")
        modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in (".", ".tmp", "a", "a/b")}
        assert modes == {".": 0o700, ".tmp": 0o700, "a": 0o700, "a/b": 0o600}

    def test_folders_removed_meanwhile_are_made_anew(self, storage: SftpStorage, root: Path) -> None:
        storage.put("packs/ab/1", b"content")
        (root / "packs/ab/1").unlink()
        (root / "packs/ab").rmdir()
        storage.put("packs/ab/2", b"content")
        assert keys_of(storage.list()) == ["packs/ab/2"]

    def test_an_object_and_a_folder_of_one_name(self, storage: SftpStorage) -> None:
        storage.put("a/b", b"content")
        with pytest.raises(StorageError, match="a can't be both an object and a folder") as caught:
            storage.put("a", b"content")
        assert not isinstance(caught.value, ObjectExists)
        with pytest.raises(StorageError, match="a/b can't be both"):
            storage.put("a/b/c", b"content")
        with pytest.raises(StorageError, match="a/b can't be both"):
            storage.put("a/b/c/d", b"content")
        assert keys_of(storage.list()) == ["a/b"]

    def test_nothing_temporary_is_left(self, storage: SftpStorage, root: Path) -> None:
        storage.put("a", b"content")
        with pytest.raises(ObjectExists):
            storage.put("a", b"content")
        storage.close()
        assert everything_in(root) == [".tmp", "a"]

    def test_what_is_no_object_is_not_listed(self, storage: SftpStorage, root: Path) -> None:
        storage.put("packs/a", b"content")
        for name in ("README.TXT", ".nfs000012", "packs/.nfs000013", "packs/ä", "packs/a b", "x" * 201):
            (root / name).write_bytes(b"foreign")
        (root / ".snapshot/packs").mkdir(parents=True)
        (root / ".snapshot/packs/a").write_bytes(b"foreign")
        os.mkfifo(root / "packs/pipe")
        (root / "packs/dangling").symlink_to("nowhere")
        (root / "packs/z-linked").symlink_to("a")
        os.symlink("packs", root / "other")
        assert keys_of(storage.list()) == ["other/a", "other/z-linked", "packs/a", "packs/z-linked"]
        assert storage.usage().used == 28


class TestClaims:
    """How a name is given once where the server knows no hard links."""

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls) -> Iterator[SshServer]:
        with ssh_server(sftp_options=["-P", "hardlink"]) as server:
            yield server

    def test_a_killed_writers_claim_is_taken_over(self, plain: SshServer) -> None:
        storage = SftpStorage.open(plain.settings(path="a"), create=True)
        storage.put("a", b"content")
        claim = self.claim_of(plain.data / "a", "b")
        claim.mkdir()
        old = time.time() - 130
        os.utime(claim, (old, old))
        storage.put("b", b"content")
        storage.close()
        assert everything_in(plain.data / "a/.tmp") == []

    def test_a_living_writers_claim_is_waited_for(self, plain: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chrono_backups.storage.sftp_put._CLAIM_PATIENCE", 0.3)
        storage = SftpStorage.open(plain.settings(path="b"), create=True)
        claim = self.claim_of(plain.data / "b", "b")
        claim.mkdir()
        with pytest.raises(StorageUnavailable, match="another writer"):
            storage.put("b", b"content")
        assert keys_of(storage.list()) == []
        claim.rmdir()
        storage.put("b", b"content")
        storage.close()
        assert everything_in(plain.data / "b") == [".tmp", "b"]

    @staticmethod
    def claim_of(root: Path, key: str) -> Path:
        return root / ".tmp" / f"claim-{hashlib.sha256(key.encode()).hexdigest()[:32]}"


NAMES = {3: "open", 4: "close", 5: "read", 6: "write", 11: "list", 13: "remove", 14: "mkdir", 18: "rename"}


class Recording:
    """A connection whose requests are written down: what, and of which file, where that is told."""

    def __init__(self, channel: SshChannel, requests: list[str]) -> None:
        self._channel = channel
        self._requests = requests
        self._handles: dict[bytes, str] = {}
        self._rest = b""
        self._asked: dict[int, str] = {}
        self._came = b""

    def send(self, data: bytes | bytearray) -> None:
        self._rest += bytes(data)
        for kind, ticket, body in self._packets("_rest"):
            name, *fields = [NAMES.get(kind, "").encode(), *self._strings(body, 1)]
            if kind == 200:
                name, *fields = self._strings(body, 3)
            subject = fields[-1] if fields else b""
            told = self._handles.get(subject) or subject.decode("latin-1").rpartition("/")[2]
            told = "temporary" if told.startswith("put-") else told
            if kind == 3:
                self._asked[ticket] = told
            if name:
                self._requests.append(f"{name.decode().partition('@')[0]} {told}")
        self._channel.send(data)

    def receive(self) -> bytes:
        data = self._channel.receive()
        self._came += data
        for kind, ticket, body in self._packets("_came"):
            if kind == 102 and ticket in self._asked:
                self._handles[self._strings(body, 1)[0]] = self._asked[ticket]
        return data

    def _packets(self, stream: str) -> Iterator[tuple[int, int, bytes]]:
        data: bytes = getattr(self, stream)
        while len(data) >= 4 and len(data) >= 4 + (length := int.from_bytes(data[:4], "big")):
            kind, ticket = struct.unpack_from(">BI", data, 4)
            yield kind, ticket, data[9 : 4 + length]
            data = data[4 + length :]
        setattr(self, stream, data)

    @staticmethod
    def _strings(body: bytes, most: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < most and len(body) >= 4:
            length = int.from_bytes(body[:4], "big")
            found.append(body[4 : 4 + length])
            body = body[4 + length :]
        return found

    def has_come(self) -> bool:
        return False

    def broken(self, reason: str) -> Exception:
        return self._channel.broken(reason)

    @property
    def open(self) -> bool:
        return self._channel.open

    def close(self) -> None:
        self._channel.close()


class TestDurability:
    """A power failure can't be had here; the order of requests can."""

    @pytest.fixture
    def requests(self) -> list[str]:
        return []

    def watched(self, server: SshServer, path: str, requests: list[str]) -> SftpStorage:
        settings = server.settings(path=path)
        dialer = SshDialer(settings, name="sftp", location="here")
        storage = SftpStorage.open(settings, client=lambda: Recording(dialer.dial(), requests))
        list(storage.list())
        requests.clear()
        return storage

    def of(self, requests: list[str]) -> list[str]:
        return [one for one in requests if not one.startswith(("open", "list", "close"))]

    def test_data_before_name_and_name_before_return(
        self, server: SshServer, storage: SftpStorage, path: str, requests: list[str]
    ) -> None:
        watched = self.watched(server, path, requests)
        root = path.rpartition("/")[2]
        data = ["write temporary", "fsync temporary"]
        watched.put("packs/ab/abc", b"content")
        folders = ["mkdir packs", "mkdir ab"]
        name = ["hardlink abc", "fsync ab", "fsync packs", f"fsync {root}", "remove temporary"]
        assert self.of(requests) == data + folders + name
        assert requests.index("close temporary") < requests.index("hardlink abc"), "a server may write it at the close"
        requests.clear()
        watched.put("packs/ab/abd", b"content")
        assert self.of(requests) == [*data, "hardlink abd", "fsync ab", "remove temporary"]
        watched.close()

    def test_folders_that_others_made_are_not_trusted_to_be_durable(
        self, server: SshServer, storage: SftpStorage, path: str, requests: list[str]
    ) -> None:
        storage.put("packs/ab/abc", b"content")
        watched = self.watched(server, path, requests)
        watched.put("packs/ab/abd", b"content")
        synced = [one for one in requests if one.startswith("fsync")]
        assert synced == ["fsync temporary", "fsync ab", "fsync packs", f"fsync {path.rpartition('/')[2]}"]
        watched.close()

    def test_who_is_told_that_an_object_exists_may_rely_on_it(
        self, server: SshServer, storage: SftpStorage, path: str, requests: list[str]
    ) -> None:
        storage.put("packs/abc", b"content")
        watched = self.watched(server, path, requests)
        with pytest.raises(ObjectExists):
            watched.put("packs/abc", b"content")
        assert [one for one in self.of(requests) if one != "remove temporary"] == [
            "fsync packs", f"fsync {path.rpartition('/')[2]}",
        ]  # fmt: skip
        watched.close()

    def test_deletes_are_durable_too(
        self, server: SshServer, storage: SftpStorage, path: str, requests: list[str]
    ) -> None:
        storage.put("packs/abc", b"content")
        watched = self.watched(server, path, requests)
        watched.delete("packs/abc")
        assert self.of(requests) == ["remove abc", "fsync packs"]
        watched.close()

    def test_no_request_per_object(
        self, server: SshServer, storage: SftpStorage, path: str, requests: list[str]
    ) -> None:
        for number in range(300):
            storage.put(f"packs/{number % 3}/{number}", b"x")
        watched = self.watched(server, path, requests)
        assert len(keys_of(watched.list("packs/"))) == 300
        assert len(requests) < 60
        watched.close()

    def test_handles_are_closed(self, server: SshServer, storage: SftpStorage, path: str, requests: list[str]) -> None:
        storage.put("there", b"content")
        watched = self.watched(server, path, requests)
        for number in range(30):
            watched.put(f"packs/{number}/a", b"x")
            for wrong in (f"packs/{number}/a", f"packs/{number}", f"packs/{number}/a/b"):
                with pytest.raises(StorageError):
                    watched.put(wrong, b"x")
            with pytest.raises(ObjectMissing):
                watched.get(f"packs/{number}")
            with pytest.raises(StorageError):
                watched.get(f"packs/{number}/a", 5, 5)
            list(watched.list())
            watched.delete(f"packs/{number}/a")
        watched.info("there")
        assert sum(one.startswith(("open", "list")) for one in requests) > 300
        assert [file for pid in server.sessions for file in self.files_of(pid) if path in file] == []
        watched.close()

    @staticmethod
    def files_of(pid: int) -> list[str]:
        found = []
        with suppress(FileNotFoundError):  # the session of one that was closed ends meanwhile
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    found.append(os.readlink(link))
        return found


class TestDistance:
    """Round trips are what distance costs; 150 ms each here, so that they can be told apart."""

    LATENCY = 0.15

    @pytest.fixture
    def far(self, server: SshServer, storage: SftpStorage, path: str) -> Iterator[SftpStorage]:
        storage.put("packs/there", content_of("there", 3_000_000))
        for number in range(40):
            storage.put(f"index/{number:02}/a", b"x")
        with FaultProxy(server.port, http=False) as proxy:
            far = SftpStorage.open(server.settings(path=path, port=proxy.port))
            far.put("packs/first", b"connects, sweeps, and syncs the way to the folder")
            proxy.latency = self.LATENCY
            yield far
            proxy.latency = 0
            far.close()

    def trips(self, call: Callable[[], object]) -> float:
        began = time.monotonic()
        call()
        return (time.monotonic() - began) / self.LATENCY

    def take(self, call: Callable[[], object], most: float, least: float = 0.0) -> None:
        """No fewer round trips in any try, and no more in one of them."""
        taken: list[float] = []

        def once() -> None:
            taken.append(self.trips(call))
            assert taken[-1] < most

        once_undisturbed(once)
        assert min(taken) > least

    def test_a_put_takes_three_round_trips(self, far: SftpStorage) -> None:
        self.take(lambda: far.put(f"packs/{uuid4()}", b"x"), 3.9, 2.9)

    def test_a_get_takes_two(self, far: SftpStorage) -> None:
        self.take(lambda: far.get("packs/there", 5000, 90_000), 2.9, 1.9)

    def test_three_megabytes_take_no_more(self, far: SftpStorage) -> None:
        self.take(lambda: far.get("packs/there"), 3.5)

    def test_forty_folders_take_few(self, far: SftpStorage) -> None:
        self.take(lambda: keys_of(far.list("index/")), 22)
