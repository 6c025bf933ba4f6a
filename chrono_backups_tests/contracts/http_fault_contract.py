"""What a storage that is reached by HTTP must hold when the way to it, or the service, fails.

A driver joins by saying which port its server listens on, and how it is opened through another port::

    class TestFaults(HttpFaultContract):
        @pytest.fixture
        def target(self, server): return server.port

        @pytest.fixture
        def open_at(self): return lambda port, timeout: …

Each fault is met twice: the driver alone must say that it passes (``StorageUnavailable``), and behind
``RetryingStorage`` the call must succeed as if nothing had been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.base import ObjectInfo, Storage
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer, Corrupt, Fault, LoseAnswer, Refuse, Reset, Slow, Stall, Truncate
from chrono_backups_tests.undisturbed import once_undisturbed

OpenAt = Callable[[int, tuple[float, float]], Storage]

QUICK = (1.0, 1.0)
PATIENT = (10.0, 10.0)
SIZE = 3_000_000
ATTEMPTS = 8
"""With the shortest waits there are, six seconds of them: no door stays closed for as long, on any machine."""
DATA = os.urandom(SIZE)

PUT_FAULTS: dict[str, Fault] = {
    "refused": Refuse(seconds=0.05),
    "reset before the body": Reset(after=0),
    "reset in the body": Reset(after=SIZE // 2),
    "stalled in the body": Stall(direction="up", after=SIZE // 2, seconds=120),
    "stalled before the answer": Stall(seconds=120),
    "answer lost": LoseAnswer(),
    "another byte arrives": Corrupt(direction="up", position=SIZE // 2),
}
GET_FAULTS: dict[str, Fault] = {
    "refused": Refuse(seconds=0.05),
    "reset in the body": Reset(direction="down", after=SIZE // 2),
    "reset before the body": Reset(direction="down", after=0),
    "stalled in the body": Stall(after=SIZE // 2, seconds=120),
    "stalled before the answer": Stall(seconds=120),
    "answer lost": LoseAnswer(),
    "truncated": Truncate(keep=SIZE // 2),
    "truncated to nothing": Truncate(keep=0),
    "truncated, and the length lies": Truncate(keep=SIZE // 2, lying=True),
}
PASSING = [408, 429, 500, 502, 503, 504]


class HttpFaultContract:
    BODY_BREAKS = 1
    """How often a body has to break off until the driver says so: its library may try again by itself."""

    @pytest.fixture
    def target(self) -> int:
        raise NotImplementedError

    @pytest.fixture
    def open_at(self) -> OpenAt:
        raise NotImplementedError

    @pytest.fixture
    def proxy(self, target: int) -> Iterator[FaultProxy]:
        with FaultProxy(target) as proxy:
            yield proxy

    @pytest.fixture
    def direct(self, target: int, open_at: OpenAt) -> Iterator[Storage]:
        storage = open_at(target, PATIENT)
        yield storage
        storage.close()

    @pytest.fixture
    def storage(self, proxy: FaultProxy, open_at: OpenAt) -> Iterator[Storage]:
        storage = open_at(proxy.port, PATIENT)
        yield storage
        storage.close()

    @pytest.fixture
    def retrying(self, storage: Storage) -> Storage:
        return RetryingStorage(storage, attempts=ATTEMPTS, first_wait=0.1)

    @staticmethod
    def check_it_is_well_told(error: StorageError, storage: Storage, operation: str, key: str) -> None:
        assert (error.storage, error.operation, error.key) == (storage.name, operation, key)
        assert storage.name in error.message and key in error.message and "\n" not in error.message

    @pytest.mark.parametrize("fault", PUT_FAULTS.values(), ids=PUT_FAULTS)
    def test_put(self, proxy: FaultProxy, open_at: OpenAt, direct: Storage, fault: Fault) -> None:
        storage = open_at(proxy.port, QUICK if isinstance(fault, Stall) else PATIENT)
        proxy.script(fault)
        with pytest.raises(StorageUnavailable) as caught:
            storage.put("packs/one", DATA)
        self.check_it_is_well_told(caught.value, storage, "put", "packs/one")
        assert list(direct.list("packs/one")) in ([], [ObjectInfo("packs/one", SIZE)])
        proxy.wait_open()

        proxy.script(fault)
        retrying = RetryingStorage(storage, attempts=ATTEMPTS, first_wait=0.1)
        retrying.put("packs/two", DATA)
        assert bytes(direct.get("packs/two")) == DATA
        with pytest.raises(ObjectExists):
            retrying.put("packs/two", DATA)
        storage.close()

    @pytest.mark.parametrize("fault", GET_FAULTS.values(), ids=GET_FAULTS)
    def test_get(self, proxy: FaultProxy, open_at: OpenAt, direct: Storage, fault: Fault) -> None:
        direct.put("packs/one", DATA)
        storage = open_at(proxy.port, QUICK if isinstance(fault, Stall) else PATIENT)
        proxy.script(*[fault] * self.BODY_BREAKS)
        try:
            # A library that reads on after a body that broke off may well give all of it.
            assert bytes(storage.get("packs/one")) == DATA
        except StorageUnavailable as error:
            self.check_it_is_well_told(error, storage, "get", "packs/one")
        proxy.wait_open()
        proxy.clear()

        proxy.script(fault)
        retrying = RetryingStorage(storage, attempts=ATTEMPTS, first_wait=0.1)
        assert bytes(retrying.get("packs/one", 1000, SIZE - 2000)) == DATA[1000:-1000]
        storage.close()

    def test_a_whole_object_with_another_byte_in_it_is_got_again(
        self, proxy: FaultProxy, storage: Storage, retrying: Storage, direct: Storage
    ) -> None:
        direct.put("packs/one", DATA)
        proxy.script(Corrupt(position=SIZE // 3))
        with pytest.raises(StorageUnavailable, match="do not have"):
            storage.get("packs/one")
        proxy.script(Corrupt(position=0))
        assert bytes(retrying.get("packs/one")) == DATA

    @pytest.mark.parametrize("status", PASSING)
    def test_a_busy_service_is_asked_again_after_the_time_it_says(
        self, proxy: FaultProxy, storage: Storage, status: int
    ) -> None:
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: storage.put("a", b"content"),
            "get": lambda: storage.get("a"),
            "info": lambda: storage.info("a"),
            "list": lambda: list(storage.list("a")),
            "delete": lambda: storage.delete("a"),
        }
        for operation, call in calls.items():
            proxy.script(Answer(status, retry_after=7))
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert getattr(caught.value, "retry_after") == 7.0  # noqa: B009 - as RetryingStorage asks for it
            self.check_it_is_well_told(caught.value, storage, operation, "a")
            assert proxy.count() == 1, proxy.requests  # the library did not ask again by itself
            proxy.clear()

    @pytest.mark.parametrize(("status", "kind"), [(403, StorageDenied), (507, StorageFull), (400, StorageError)])
    def test_what_asking_again_does_not_mend(
        self, proxy: FaultProxy, retrying: Storage, status: int, kind: type[StorageError]
    ) -> None:
        proxy.script(Answer(status, b"no <b>reason</b>"))
        with pytest.raises(kind) as caught:
            retrying.put("a", b"content")
        assert not isinstance(caught.value, StorageUnavailable | ObjectExists | ObjectMissing)
        assert proxy.count() == 1

    def test_something_else_that_answers(self, proxy: FaultProxy, retrying: Storage, direct: Storage) -> None:
        html = (("Content-Type", "text/html"),)
        proxy.script(Answer(200, b"<html>Please log in", headers=html, times=1))
        retrying.put("a", b"content")
        assert bytes(direct.get("a")) == b"content"
        proxy.script(Answer(200, b"<html>Please log in", headers=html, times=1))
        assert retrying.info("a").size == 7
        proxy.script(Answer(200, b"<html>Please log in", headers=html, times=1))
        assert list(retrying.list()) == [ObjectInfo("a", 7)]

    def test_a_listing_goes_on_where_it_broke_off(
        self, proxy: FaultProxy, retrying: Storage, direct: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{type(direct).__module__}._PAGE", 20)
        keys = [f"many/{number:04d}" for number in range(50)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: direct.put(key, b""), keys))
        proxy.script(Answer(503, skip=1), Reset(direction="down", after=100))
        assert [info.key for info in retrying.list("many/")] == keys

    def test_a_connection_that_the_server_closed_meanwhile(
        self, proxy: FaultProxy, retrying: Storage, storage: Storage
    ) -> None:
        storage.put("a", b"content")
        proxy.drop()
        assert bytes(retrying.get("a")) == b"content"
        proxy.drop()
        retrying.put("b", b"content")

    def test_a_slow_link_is_no_fault(self, proxy: FaultProxy, open_at: OpenAt, direct: Storage) -> None:
        # Longer than the timeout in all, and never without a piece within it, unless the machine itself stands still.
        # The answer comes when what the system holds ready for sending has got through as well.
        data = os.urandom(10_000_000)

        def up() -> None:
            direct.delete("up")
            with closing(open_at(proxy.port, (1.5, 10))) as storage:
                proxy.script(Slow(direction="up", bytes_per_second=3_000_000))
                began = time.monotonic()
                self.put_in_one_go(storage, "up", data)
                assert time.monotonic() - began > 3.0
            assert bytes(direct.get("up")) == data

        def down() -> None:
            with closing(open_at(proxy.port, (1.0, 1.0))) as storage:
                proxy.script(Slow(direction="down", bytes_per_second=2_000_000))
                try:
                    got = storage.get("up", 0, 3_000_000)
                except StorageUnavailable as error:
                    raise AssertionError(error.message) from error
                assert bytes(got) == data[:3_000_000]

        once_undisturbed(up)
        once_undisturbed(down)

    @staticmethod
    def put_in_one_go(storage: Storage, key: str, data: bytes) -> None:
        try:
            storage.put(key, data)
        except StorageUnavailable as error:
            raise AssertionError(error.message) from error

    def test_nobody_there(self, proxy: FaultProxy, storage: Storage) -> None:
        with proxy.refusing():
            for call in (lambda: storage.get("a"), lambda: storage.put("a", b""), lambda: list(storage.list())):
                with pytest.raises(StorageUnavailable, match="refused") as caught:
                    call()
                assert "reached" in caught.value.hint

    def test_the_callers_buffer_is_let_go_when_the_connection_breaks(self, proxy: FaultProxy, storage: Storage) -> None:
        proxy.script(Reset(after=SIZE // 2))
        buffer = bytearray(DATA)
        with pytest.raises(StorageUnavailable):
            storage.put("a", buffer)
        buffer.extend(b"BufferError if a view of it were still held")

    def test_connections_are_used_again(self, proxy: FaultProxy, open_at: OpenAt) -> None:
        storage = open_at(proxy.port, PATIENT)
        opened = set()

        def work(number: int) -> None:
            storage.put(f"a/{number}", b"content")
            storage.get(f"a/{number}")
            opened.add(len(proxy._open))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(40)))
        assert max(opened) <= 2 * 4  # two ends each
        storage.close()
