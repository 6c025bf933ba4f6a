"""Under a bandwidth the content of all drivers moves piece by piece: the line is even, and not full now and then."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from threading import Event, Thread
from uuid import uuid4

import pytest

from chrono_backups.storage.base import Storage
from chrono_backups.storage.gcs import GcsStorage
from chrono_backups.storage.pacing import leave, paced_by, piece, read_whole
from chrono_backups.storage.s3 import S3Storage
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups.storage.throttled import Bandwidth, ThrottledStorage
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.gcs_server import GcsServer
from chrono_backups_tests.servers.moto_server import MotoServer, s3_settings
from chrono_backups_tests.servers.sshd import ssh_server, sshd_program
from chrono_backups_tests.storage.test_gcs import settings as gcs_settings
from chrono_backups_tests.undisturbed import once_undisturbed

SIZE = 2_000_000
_PIECE = 100_000
_MOST = 300_000
"""SFTP's largest message is more than a piece here."""


class Recorded:
    """A pace that waits for nothing and remembers."""

    def __init__(self) -> None:
        self.piece = _PIECE
        self.sizes: list[int] = []

    def take(self, size: int) -> None:
        self.sizes.append(size)


@pytest.fixture(params=["s3", "s3 as AWS", "gcs", "azure", "sftp"])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    name = request.param
    with ExitStack() as stack:
        opened: Storage
        if name.startswith("s3"):
            moto = stack.enter_context(MotoServer())
            settings = moto.settings(moto.make_bucket("bucket"))
            opened = S3Storage.open(settings)
            if name == "s3 as AWS":
                opened = S3Storage(opened._client, "bucket", keeps_checksums=True)
        elif name == "gcs":
            server = stack.enter_context(GcsServer())
            server.make_bucket("backups")
            opened = GcsStorage.open(gcs_settings(server.url))
        elif name == "azure":
            from chrono_backups.storage.azure import AzureBlobStorage

            azurite, container = (request.getfixturevalue(f"azurite_{what}") for what in ("server", "container"))
            opened = AzureBlobStorage.open(azurite.settings(container))
        else:
            if sshd_program() is None:
                pytest.skip("needs sshd")
            sshd = stack.enter_context(ssh_server())
            opened = SftpStorage.open(sshd.settings(path=f"storages/{uuid4()}"), create=True)
        yield stack.enter_context(closing(opened))


def test_all_content_is_asked_leave_for(storage: Storage) -> None:
    data = os.urandom(SIZE)
    assert getattr(storage, "paces", False)
    for direction, moved in (("put", SIZE), ("get", SIZE), ("range", 1_000_000)):
        pace = Recorded()
        with paced_by(pace):
            if direction == "put":
                storage.put("packs/paced", data)
            elif direction == "get":
                assert bytes(storage.get("packs/paced")) == data
            else:
                assert bytes(storage.get("packs/paced", 1000, moved)) == data[1000 : 1000 + moved]
        assert moved <= sum(pace.sizes) < moved * 1.01, direction
        assert max(pace.sizes) <= _MOST, direction


def test_the_line_is_even() -> None:
    """Half of the time, half of the bytes: one object at 16 Mbit/s, seen from the server's end of the line."""
    with MotoServer() as moto, FaultProxy(moto.port, http=False) as proxy:
        bucket = moto.make_bucket("bucket")
        inner = S3Storage.open(s3_settings(proxy.port, bucket))
        took: list[float] = []

        def evenly() -> None:
            storage = ThrottledStorage(inner, Bandwidth(16))
            storage.put(f"small/{len(took)}", b"x")
            before, began = proxy.moved, time.monotonic()
            seen: list[tuple[float, int]] = []
            done = Event()

            def watch() -> None:
                while not done.wait(0.05):
                    seen.append((time.monotonic() - began, proxy.moved))

            watcher = Thread(target=watch)
            watcher.start()
            storage.put(f"packs/{len(took)}", os.urandom(4_000_000))
            took.append(time.monotonic() - began)
            done.set()
            watcher.join()
            assert took[-1] < 2.1
            middle = [moved - before for at, moved in seen if 0.9 < at < 1.1]
            assert middle and 1_400_000 < middle[0] < 2_700_000

        once_undisturbed(evenly)
        inner.close()
    assert min(took) > 1.9


def test_without_a_limit_it_costs_nothing() -> None:
    leave(1000)
    assert piece(5) == 5
    assert read_whole(lambda: b"all at once") == b"all at once"


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 16 * 1024), (5, 62_500), (1000, 256 * 1024)])
def test_a_piece_is_a_tenth_of_a_second(rate: float, expected: int) -> None:
    assert Bandwidth(rate).piece == expected
