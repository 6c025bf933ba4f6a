"""An SFTP server that goes away, stalls, crashes or is full, and clients that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chrono_backups.errors import StorageDenied, StorageError, StorageFull, StorageUnavailable
from chrono_backups.storage.base import Storage
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups.storage.settings import SftpSettings
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups.storage.sftp_connection import Patience
from chrono_backups.storage.sftp_session import SftpSession
from chrono_backups_tests.contracts.storage_contract import content_of, keys_of
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Refuse, Reset, Slow, Stall
from chrono_backups_tests.servers.sshd import SshServer, server_user, ssh_server, sshd_program
from chrono_backups_tests.storage.watching import everything_in
from chrono_backups_tests.undisturbed import once_undisturbed

pytestmark = pytest.mark.skipif(sshd_program() is None, reason="needs sshd")

IMPATIENT = Patience(connect=3.0, login=3.0, progress=1.0)
SIZE = 4_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with ssh_server() as server:
        yield server


@pytest.fixture
def proxy(server: SshServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.port, http=False) as proxy:
        yield proxy


@pytest.fixture
def path(server: SshServer) -> str:
    return f"storages/{uuid4()}"


@pytest.fixture
def root(server: SshServer, path: str) -> Path:
    return server.data / path


@pytest.fixture
def direct(server: SshServer, path: str) -> Iterator[SftpStorage]:
    """A storage that nothing happens to, with one object in it."""
    storage = SftpStorage.open(server.settings(path=path), create=True)
    storage.put("there", content_of("there", SIZE))
    yield storage
    storage.close()


@pytest.fixture
def struck(server: SshServer, proxy: FaultProxy, direct: SftpStorage, path: str) -> Iterator[SftpStorage]:
    """The same one through the proxy."""
    with closing(SftpStorage.open(server.settings(path=path, port=proxy.port))) as storage:
        yield storage


@pytest.fixture
def impatient(server: SshServer, proxy: FaultProxy, direct: SftpStorage, path: str) -> Iterator[SftpStorage]:
    """And one that gives up soon: on a slow machine too, so that what is to succeed has to be tried ``patiently``."""
    with closing(SftpStorage.open(server.settings(path=path, port=proxy.port), patience=IMPATIENT)) as storage:
        yield storage


def patiently(storage: SftpStorage) -> RetryingStorage:
    return RetryingStorage(storage, attempts=12, first_wait=0.05)


def in_time(call: Callable[[], Any], seconds: float = 30.0) -> StorageUnavailable:
    """The error that the call raises, long before a stalled peer would go on, or a usual patience ends."""
    began = time.monotonic()
    with pytest.raises(StorageUnavailable) as caught:
        call()
    assert time.monotonic() - began < seconds
    assert caught.value.storage == "sftp"
    return caught.value


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Until it is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestConnections:
    @pytest.mark.parametrize("after", [0, 100, 2000, 5000, 50_000, 3_000_000])
    def test_reset_while_putting(
        self, proxy: FaultProxy, struck: SftpStorage, direct: SftpStorage, root: Path, after: int
    ) -> None:
        proxy.script(Reset(direction="up", after=after))
        buffer = bytearray(content_of("new", SIZE))
        error = in_time(lambda: struck.put("new/a", buffer))
        assert (error.operation, error.key) == ("put", "new/a")
        buffer.extend(b"while the error is still at hand")
        assert keys_of(direct.list()) == ["there"]
        struck.put("new/a", content_of("new", SIZE))
        assert bytes(direct.get("new/a")) == content_of("new", SIZE)

    @pytest.mark.parametrize("after", [0, 100, 2500, 5000, 50_000, 3_000_000])
    def test_reset_while_getting(self, proxy: FaultProxy, struck: SftpStorage, after: int) -> None:
        proxy.script(Reset(direction="down", after=after))
        error = in_time(lambda: struck.get("there"))
        assert (error.operation, error.key) == ("get", "there")
        assert bytes(struck.get("there")) == content_of("there", SIZE)

    def test_every_moment_of_a_put(self, proxy: FaultProxy, struck: SftpStorage, direct: SftpStorage) -> None:
        """Answers are lost at any byte of them, and the put is repeated: done in the end, and done once."""
        struck.info("there")
        for number, after in enumerate(range(1800, 4600, 200)):
            struck.close()
            proxy.script(Reset(direction="down", after=after))
            patiently(struck).put(f"a/{number}", content_of(str(number), 300_000))
            proxy.clear()
            assert bytes(direct.get(f"a/{number}")) == content_of(str(number), 300_000)
        assert len(keys_of(direct.list("a/"))) == number + 1

    def test_refused(self, proxy: FaultProxy, struck: SftpStorage) -> None:
        struck.info("there")
        with proxy.refusing():
            in_time(lambda: struck.info("there"))  # over the connection that was idle, where it was not missed yet
            assert "refused" in in_time(lambda: struck.info("there")).message
        assert struck.info("there").size == SIZE

    def test_refused_for_a_while(self, proxy: FaultProxy, struck: SftpStorage) -> None:
        proxy.script(Refuse(seconds=0.5))
        assert bytes(patiently(struck).get("there")) == content_of("there", SIZE)

    def test_idle_connections_that_died_are_not_used_again(self, proxy: FaultProxy, struck: SftpStorage) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: struck.get("there"), range(8)))
        idle = list(struck._pool._idle)
        proxy.drop()
        until(lambda: not any(session.sound for session in idle))
        assert struck.info("there").size == SIZE

    def test_no_more_connections_than_allowed(self, server: SshServer, proxy: FaultProxy, direct: SftpStorage) -> None:
        path = direct.location.partition("~/")[2]
        storage = SftpStorage.open(server.settings(path=path, port=proxy.port, connections=2))
        with ThreadPoolExecutor(8) as pool:
            for got in pool.map(lambda _: storage.get("there", 0, 100_000), range(24)):
                assert bytes(got) == content_of("there", 100_000)
        storage.close()
        assert proxy.count() == 2

    @pytest.mark.parametrize("after", [1, 1000, 5000, 2_000_000])
    @pytest.mark.parametrize("direction", ["up", "down"])
    def test_stalled(self, proxy: FaultProxy, impatient: SftpStorage, direction: Any, after: int) -> None:
        proxy.script(Stall(seconds=120, direction=direction, after=after))

        def call(storage: Storage) -> None:
            if direction == "up":
                storage.put("a", content_of("a", SIZE))
            else:
                storage.get("there")

        in_time(lambda: call(impatient), 60)
        call(patiently(impatient))

    def test_slow_is_not_stalled(self, proxy: FaultProxy, impatient: SftpStorage) -> None:
        def slowly() -> None:
            impatient.close()
            proxy.clear()
            proxy.script(Slow(direction="down", bytes_per_second=100_000))
            try:
                assert len(impatient.get("there", 0, 250_000)) == 250_000
            except StorageUnavailable as error:
                raise AssertionError(error.message) from error

        once_undisturbed(slowly)

    def test_keys_are_renewed_in_the_middle_of_a_large_object(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("paramiko.packet.Packetizer.REKEY_BYTES", 16 * 2**20)
        with ssh_server(options=["LogLevel DEBUG1"]) as server:
            storage = SftpStorage.open(server.settings(), create=True)
            data = content_of("large", 70 * 2**20)
            storage.put("large", data)
            assert storage.get("large") == data
            storage.close()
            # Once for the login and once for every 16 MiB or so each way; what went while keys changed counts for none.
            assert server.log.read_text().count("SSH2_MSG_NEWKEYS received") >= 1 + 3 + 3

    def test_a_listing_is_taken_up_again(self, proxy: FaultProxy, struck: SftpStorage, direct: SftpStorage) -> None:
        keys = sorted(f"many/{number % 7}/{number:03}" for number in range(60))
        for key in keys:
            direct.put(key, b"x")
        listing = patiently(struck).list("many/")
        found = [next(listing).key]
        proxy.drop()
        assert [*found, *keys_of(listing)] == keys


class TestShortAnswers:
    def test_a_server_that_gives_less_at_a_time_than_asked(
        self, direct: SftpStorage, server: SshServer, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """OpenSSH's gives 255 KiB at most, and is asked for more here."""
        monkeypatch.setattr("chrono_backups.storage.sftp_session._LIMITS", "no such extension")
        monkeypatch.setattr("chrono_backups.storage.sftp_session._SAFE_DATA", 600_000)
        storage = SftpStorage.open(server.settings(path=path))
        assert bytes(storage.get("there")) == content_of("there", SIZE)
        assert bytes(storage.get("there", 1000, SIZE - 2000)) == content_of("there", SIZE)[1000:-1000]
        storage.close()

    @pytest.mark.parametrize("left", [0, 5, 1_000_003])
    def test_an_object_cut_short_while_it_is_read(
        self, direct: SftpStorage, root: Path, monkeypatch: pytest.MonkeyPatch, left: int
    ) -> None:
        real = SftpSession.read

        def overtaken(session: SftpSession, handle: bytes, offset: int, length: int) -> bytearray:
            os.truncate(root / "there", left)
            return real(session, handle, offset, length)

        monkeypatch.setattr(SftpSession, "read", overtaken)
        with pytest.raises(StorageError, match=f"expected bytes 0 to {SIZE}, found only {left}"):
            direct.get("there")


class TestServer:
    def test_sessions_killed_while_putting(self, server: SshServer, direct: SftpStorage, root: Path) -> None:
        """The crash loop of the storage: SIGKILL at any moment; whole or not at all, and a retry completes."""
        done = threading.Event()

        def kill() -> None:
            for wait in (0.3, 0.05, 0.2, 0.5, 0.15, 0.4, 0.25, 0.6):
                done.wait(wait)
                server.kill_sessions()

        killer = threading.Thread(target=kill)
        killer.start()
        storage = RetryingStorage(direct, attempts=60, first_wait=0.02, longest_wait=0.1)
        try:
            for number in range(20):
                storage.put(f"packs/{number:02}", content_of(str(number), 3_000_000))
        finally:
            done.set()
            killer.join()
        # The last kill may have come after the last put: what is asked first meets a session that is gone.
        assert keys_of(storage.list("packs/")) == [f"packs/{number:02}" for number in range(20)]
        for number in range(20):
            assert bytes(direct.get(f"packs/{number:02}")) == content_of(str(number), 3_000_000)

    @pytest.mark.parametrize("operation", ["put", "get", "info", "list"])
    def test_a_server_that_hangs(self, server: SshServer, direct: SftpStorage, path: str, operation: str) -> None:
        storage = SftpStorage.open(server.settings(path=path), patience=IMPATIENT)
        patiently(storage).info("there")
        calls: dict[str, Callable[[Storage], Any]] = {
            "put": lambda storage: storage.put("a", content_of("a", 30_000_000)),
            "get": lambda storage: storage.get("there"),
            "info": lambda storage: storage.info("there"),
            "list": lambda storage: keys_of(storage.list()),
        }
        server.kill_sessions(signal.SIGSTOP)
        try:
            assert "silent" in in_time(lambda: calls[operation](storage)).message
        finally:
            server.kill_sessions(signal.SIGCONT)
        calls[operation](patiently(storage))
        storage.close()

    def test_a_restarted_server(self, direct: SftpStorage, server: SshServer) -> None:
        server.stop()
        try:
            in_time(lambda: direct.info("there"))
        finally:
            server.start()
        assert direct.info("there").size == SIZE

    def test_nothing_hangs_longer_than_a_minute(self) -> None:
        patience = Patience()
        assert patience.connect + patience.login <= 60
        assert patience.progress <= 60


def put_for_ever(settings: SftpSettings) -> None:
    storage = SftpStorage.open(settings)
    number = 0
    while True:
        storage.put(f"packs/{os.getpid()}-{number}", content_of(f"{os.getpid()}-{number}", 2_000_000))
        number += 1


def test_clients_killed_while_putting(server: SshServer, direct: SftpStorage, path: str, root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours = set(server.sessions)
    for wait in (0.31, 0.17, 0.23):
        child = context.Process(target=put_for_ever, args=(server.settings(path=path),))
        child.start()
        before = len(keys_of(direct.list()))
        while len(keys_of(direct.list())) < before + 2:
            assert child.is_alive()
            time.sleep(0.01)
        time.sleep(wait)
        child.kill()
        child.join()
        # What a session was sent before its client died it still carries out.
        until(lambda: not set(server.sessions) - ours)
    found = list(direct.list("packs/"))
    assert len(found) >= 6
    for info in found:
        assert bytes(direct.get(info.key)) == content_of(info.key.removeprefix("packs/"), 2_000_000)
    left = everything_in(root / ".tmp")
    assert len(left) <= 3
    old = time.time() - 25 * 3600
    for name in left:
        os.utime(root / ".tmp" / name, (old, old))
    (root / ".tmp/put-young").write_bytes(b"")
    later = SftpStorage.open(server.settings(path=path))
    later.put("last", b"")
    later.close()
    assert everything_in(root / ".tmp") == ["put-young"]


class TestNoRoom:
    @pytest.fixture
    def small_disk(self, server: SshServer) -> Iterator[Path]:
        """A file system of 3 MiB below the account's home."""
        disk = server.data / f"disk-{uuid4()}"
        disk.mkdir()
        user = server_user()
        options = f"size=3m,uid={user.pw_uid},gid={user.pw_gid},mode=700"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True).returncode:
            pytest.skip("mounting a tmpfs needs root")
        yield disk
        subprocess.run(["umount", "-l", disk], check=True)

    def test_a_full_disk(self, server: SshServer, small_disk: Path) -> None:
        storage = SftpStorage.open(server.settings(path=str(small_disk)), create=True)
        storage.put("small", b"x" * 1000)
        free = storage.usage().free
        assert free is not None and free < 3 * 2**20
        buffer = bytearray(SIZE)
        with pytest.raises(StorageFull, match="no space left") as caught:
            storage.put("packs/large", buffer)
        buffer.extend(b"let go of")
        assert "Free space" in caught.value.hint
        assert caught.value.key == "packs/large"
        storage.close()
        assert everything_in(small_disk / ".tmp") == []
        assert keys_of(storage.list()) == ["small"]
        assert storage.usage().free == free
        storage.put("packs/large", b"x" * 200_000)
        storage.close()

    def test_a_limit_that_nobody_tells_of(self) -> None:
        """A quota looks like this: room on the disk, and no more data taken."""
        with ssh_server(file_size_limit=1_000_000) as server:
            storage = SftpStorage.open(server.settings(), create=True)
            storage.put("small", b"x" * 900_000)
            with pytest.raises(StorageFull, match="a quota, a file size limit or a broken disk"):
                storage.put("large", b"x" * 1_100_000)
            assert keys_of(storage.list()) == ["small"]
            storage.close()
            assert everything_in(server.data / "chrono-backups") == [".tmp", "small"]

    def test_a_read_only_disk(self, server: SshServer, small_disk: Path) -> None:
        storage = SftpStorage.open(server.settings(path=str(small_disk)), create=True)
        storage.put("a", b"content")
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        with pytest.raises(StorageDenied, match="read-only"):
            storage.put("b", b"content")
        with pytest.raises(StorageDenied, match="read-only"):
            storage.delete("a")
        assert bytes(storage.get("a")) == b"content"
        storage.close()


@pytest.mark.skipif(server_user().pw_uid == 0, reason="permissions do not bind root")
class TestNoRight:
    def test_to_write(self, direct: SftpStorage, root: Path) -> None:
        direct.close()  # a put does not wait until its temporary name is gone, and closing does
        (root / ".tmp").chmod(0o500)
        with pytest.raises(StorageDenied, match="Permission denied") as caught:
            direct.put("a", b"content")
        assert "read and write" in caught.value.hint
        (root / ".tmp").chmod(0o700)
        direct.put("folder/a", b"content")
        (root / "folder").chmod(0o500)
        with pytest.raises(StorageDenied):
            direct.put("folder/b", b"content")
        with pytest.raises(StorageDenied):
            direct.delete("folder/a")
        assert keys_of(direct.list()) == ["folder/a", "there"]
        direct.close()
        assert everything_in(root / ".tmp") == []

    def test_to_read(self, direct: SftpStorage, root: Path) -> None:
        (root / "there").chmod(0)
        with pytest.raises(StorageDenied):
            direct.get("there")
        direct.put("folder/a", b"content")
        (root / "folder").chmod(0)
        for call in (
            lambda: direct.get("folder/a"), lambda: direct.info("folder/a"), lambda: keys_of(direct.list()),
            lambda: keys_of(direct.list("folder/")), lambda: direct.usage(),
        ):  # fmt: skip
            with pytest.raises(StorageDenied):
                call()
        (root / "folder").chmod(0o700)

    def test_to_make_the_folder(self, server: SshServer) -> None:
        with pytest.raises(StorageDenied, match="create failed: Permission denied") as caught:
            SftpStorage.open(server.settings(path="/no-right-to-be-here/storage"), create=True)
        assert "/no-right-to-be-here/storage" in caught.value.hint

    def test_only_to_add(self) -> None:
        """An account that may not remove: puts work, what they leave in .tmp stays."""
        with ssh_server(sftp_options=["-P", "remove,rmdir"]) as server:
            storage = SftpStorage.open(server.settings(), create=True)
            storage.put("a", b"content")
            with pytest.raises(StorageError) as caught:
                storage.delete("a")
            assert isinstance(caught.value, StorageDenied)
            assert bytes(storage.get("a")) == b"content"
            storage.close()
