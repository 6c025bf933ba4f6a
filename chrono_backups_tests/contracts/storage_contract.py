"""What every storage must hold. A driver joins by saying how it is opened::

    class TestMemoryStorage(StorageContract):
        @pytest.fixture
        def opener(self):
            storage = MemoryStorage()
            return lambda: storage

``opener`` returns a callable that opens one more instance over the same objects, as another process
would. Objects must be gone with the test: give each test a root, bucket or prefix of its own. Where the
callable can be pickled and works in another process, ``SharedStorageContract`` is the class to join: it
lets writers of several processes race as well.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chrono_backups.errors import ObjectExists, ObjectMissing, StorageError
from chrono_backups.storage.base import ObjectInfo, Storage
from chrono_backups_tests.contracts.storage_key_contract import Opener, StorageKeyContract, keys_of

__all__ = ["Opener", "SharedStorageContract", "StorageContract", "keys_of"]


def content_of(key: str, size: int) -> bytes:
    """Bytes that only this key has."""
    block = hashlib.sha256(key.encode()).digest() * 1024
    return (block * (size // len(block) + 1))[:size]


def race(opener: Opener, mark: bytes, keys: list[str], barrier: Any, wins: Any) -> None:
    """A racing writer, in a thread or a process: puts every key at the same time as the others."""
    storage = opener()
    won = []
    try:
        for key in keys:
            barrier.wait(240)  # a process may take long to start
            try:
                storage.put(key, mark * 50_000)
                won.append(key)
            except ObjectExists:
                pass
    finally:
        wins.put((mark, won))
        storage.close()


class StorageContract(StorageKeyContract):
    # Put and get

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1_000_003])
    def test_what_is_put_is_got(self, storage: Storage, size: int) -> None:
        data = content_of("a", size)
        storage.put("a", data)
        assert bytes(storage.get("a")) == data
        assert storage.info("a") == ObjectInfo("a", size)

    def test_a_large_object(self, opener: Opener, storage: Storage) -> None:
        data = os.urandom(20 * 2**20)
        storage.put("packs/large", data)
        assert storage.info("packs/large").size == len(data)
        assert bytes(opener().get("packs/large")) == data
        assert bytes(storage.get("packs/large", 19 * 2**20 + 5, 2**20 - 5)) == data[19 * 2**20 + 5 :]

    @pytest.mark.parametrize(
        "given",
        [bytearray(b"content"), memoryview(b"content"), memoryview(bytearray(b"xcontentx"))[1:-1]],
        ids=["bytearray", "memoryview", "slice of a bytearray"],
    )
    def test_any_buffer_is_taken_and_left_as_it_was(self, storage: Storage, given: bytearray | memoryview) -> None:
        storage.put("a", given)
        assert bytes(given) == b"content"
        assert bytes(storage.get("a")) == b"content"

    def test_views_of_other_shapes_are_taken_as_their_bytes(self, storage: Storage) -> None:
        words = memoryview(content_of("words", 4000)).cast("I")
        storage.put("words", words)
        storage.put("every-second", memoryview(b"c-o-n-t-e-n-t-")[::2])
        assert bytes(storage.get("words")) == words.tobytes()
        assert storage.info("words").size == 4000
        assert bytes(storage.get("every-second")) == b"content"

    def test_a_buffer_may_be_used_again_after_the_put(self, storage: Storage) -> None:
        buffer = bytearray(b"content")
        storage.put("a", buffer)
        buffer[:] = b"XXXXXXX"
        buffer.extend(b"let go of")  # BufferError if a view of it were still held
        assert bytes(storage.get("a")) == b"content"

    def test_a_buffer_is_let_go_when_the_put_fails(self, storage: Storage) -> None:
        storage.put("a", b"first")
        buffer = bytearray(b"second")
        with pytest.raises(ObjectExists) as caught:
            storage.put("a", buffer)
        buffer.extend(b"while the error is still at hand")
        assert caught.value.key == "a"

    def test_what_is_got_is_the_callers_own(self, storage: Storage) -> None:
        storage.put("a", b"content")
        got = storage.get("a")
        if isinstance(got, bytearray):
            got[:] = b"XXXXXXX"
        assert bytes(storage.get("a")) == b"content"

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [
            (0, None, b"0123456789"),
            (0, 10, b"0123456789"),
            (0, 3, b"012"),
            (4, 3, b"456"),
            (7, 3, b"789"),
            (7, None, b"789"),
            (9, 1, b"9"),
            (0, 0, b""),
            (5, 0, b""),
            (10, 0, b""),
            (10, None, b""),
        ],
    )
    def test_ranges(self, storage: Storage, offset: int, length: int | None, expected: bytes) -> None:
        storage.put("a", b"0123456789")
        assert bytes(storage.get("a", offset, length)) == expected

    @pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (11, 0), (11, None), (50, 5), (0, 2**50)])
    def test_past_the_end_is_an_error_that_names_the_object(
        self, storage: Storage, offset: int, length: int | None
    ) -> None:
        storage.put("folder/a", b"0123456789")
        with pytest.raises(StorageError, match="folder/a") as caught:
            storage.get("folder/a", offset, length)
        assert not isinstance(caught.value, ObjectMissing)
        assert caught.value.key == "folder/a"

    def test_past_the_end_of_an_empty_object(self, storage: Storage) -> None:
        storage.put("empty", b"")
        assert bytes(storage.get("empty")) == b""
        assert bytes(storage.get("empty", 0, 0)) == b""
        with pytest.raises(StorageError):
            storage.get("empty", 0, 1)
        assert list(storage.list()) == [ObjectInfo("empty", 0)]

    @pytest.mark.parametrize(("offset", "length"), [(-1, None), (-1, 1), (0, -1)])
    def test_ranges_that_are_none(self, storage: Storage, offset: int, length: int | None) -> None:
        storage.put("a", b"0123456789")
        with pytest.raises(ValueError, match="range"):
            storage.get("a", offset, length)

    def test_a_missing_object(self, storage: Storage) -> None:
        storage.put("folder/b", b"")
        for key in ("a", "folder", "folder/a", "folder/b/c"):
            with pytest.raises(ObjectMissing) as caught:
                storage.get(key)
            assert caught.value.key == key
            assert caught.value.storage == storage.name
            with pytest.raises(ObjectMissing):
                storage.get(key, 5, 10)
            with pytest.raises(ObjectMissing):
                storage.info(key)

    # Created once

    def test_an_object_is_created_once(self, storage: Storage) -> None:
        storage.put("a/b", b"first")
        for second in (b"second, longer", b"", b"first"):
            with pytest.raises(ObjectExists) as caught:
                storage.put("a/b", second)
            assert caught.value.key == "a/b"
        assert bytes(storage.get("a/b")) == b"first"
        assert list(storage.list()) == [ObjectInfo("a/b", 5)]

    def test_a_deleted_object_may_be_created_anew(self, storage: Storage) -> None:
        storage.put("a", b"first")
        storage.delete("a")
        storage.put("a", b"second")
        assert bytes(storage.get("a")) == b"second"

    def test_of_racing_threads_one_wins(self, opener: Opener) -> None:
        self._race(opener, threading.Thread, threading.Barrier, _Wins())

    def _race(self, opener: Opener, start: Any, barrier_of: Any, wins: Any) -> None:
        marks = [b"0", b"1", b"2", b"3"]
        keys = [f"racing/{number % 3}/{number}" for number in range(20)]
        barrier = barrier_of(len(marks))
        racers = [start(target=race, args=(opener, mark, keys, barrier, wins)) for mark in marks]
        for racer in racers:
            racer.start()
        winners = dict(wins.get() for _ in marks)
        for racer in racers:
            racer.join()
        assert sorted(key for won in winners.values() for key in won) == sorted(keys)
        storage = opener()
        for mark, won in winners.items():
            for key in won:
                assert bytes(storage.get(key)) == mark * 50_000
        assert keys_of(storage.list()) == sorted(keys)

    # Visible at once, whole or not at all

    def test_a_put_is_visible_to_other_instances_at_once(self, opener: Opener, storage: Storage) -> None:
        other = opener()
        for number in range(5):
            key = f"a/{number}"
            assert key not in keys_of(other.list("a/"))
            storage.put(key, b"content")
            assert bytes(other.get(key)) == b"content"
            assert other.info(key).size == 7
            assert key in keys_of(other.list("a/"))
            storage.delete(key)
            assert key not in keys_of(other.list("a/"))
            with pytest.raises(ObjectMissing):
                other.get(key)

    def test_readers_see_whole_objects_only(self, opener: Opener) -> None:
        size = 3_000_000
        keys = [f"packs/{number}" for number in range(8)]
        done = threading.Event()

        def write() -> None:
            storage = opener()
            try:
                for key in keys:
                    storage.put(key, content_of(key, size))
            finally:
                done.set()

        def read() -> int:
            storage = opener()
            seen = 0
            while not done.is_set():
                for info in storage.list():
                    assert info.key in keys
                    assert info.size == size
                for key in keys:
                    try:
                        assert storage.info(key).size == size
                        assert bytes(storage.get(key)) == content_of(key, size)
                        seen += 1
                    except ObjectMissing:
                        break
            return seen

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            pool.submit(write).result()
            for reader in readers:
                reader.result()
        assert keys_of(opener().list()) == keys

    def test_one_instance_serves_many_threads(self, storage: Storage) -> None:
        def work(worker: int) -> None:
            for number in range(15):
                key = f"{number % 4}/{worker}-{number}"
                storage.put(key, content_of(key, 10_000))
                assert bytes(storage.get(key, 100, 1000)) == content_of(key, 10_000)[100:1100]
                assert storage.info(key).size == 10_000
                assert key in keys_of(storage.list(f"{number % 4}/"))
                if number % 3 == 0:
                    storage.delete(key)

        with ThreadPoolExecutor(6) as pool:
            for result in [pool.submit(work, worker) for worker in range(6)]:
                result.result()
        expected = [f"{number % 4}/{worker}-{number}" for worker in range(6) for number in range(15) if number % 3]
        assert keys_of(storage.list()) == sorted(expected)

    # Delete, usage, close

    def test_deleting_what_is_not_there_is_no_error(self, storage: Storage) -> None:
        storage.delete("a")
        storage.delete("no/such/folder")
        storage.put("a/b", b"content")
        storage.delete("a")
        storage.delete("a/b/c")
        assert bytes(storage.get("a/b")) == b"content"
        storage.delete("a/b")
        storage.delete("a/b")
        assert list(storage.list()) == []

    def test_usage_counts_objects(self, storage: Storage) -> None:
        before = storage.usage()
        storage.put("a/b", b"x" * 1000)
        storage.put("c", b"x" * 234)
        assert storage.usage().used == before.used + 1234
        storage.delete("a/b")
        assert storage.usage().used == before.used + 234
        assert before.free is None or before.free > 0

    def test_it_says_what_it_is(self, storage: Storage) -> None:
        assert storage.name
        assert storage.location

    def test_closing_twice(self, opener: Opener) -> None:
        storage = opener()
        storage.put("a", b"content")
        storage.close()
        storage.close()
        assert bytes(opener().get("a")) == b"content"


class SharedStorageContract(StorageContract):
    def test_of_racing_processes_one_wins(self, opener: Opener) -> None:
        context = multiprocessing.get_context("spawn")
        self._race(opener, context.Process, context.Barrier, context.SimpleQueue())


class _Wins:
    """A queue for threads with the calls of ``multiprocessing.SimpleQueue``."""

    def __init__(self) -> None:
        from queue import SimpleQueue

        self._queue: SimpleQueue[tuple[bytes, list[str]]] = SimpleQueue()

    def put(self, item: tuple[bytes, list[str]]) -> None:
        self._queue.put(item)

    def get(self) -> tuple[bytes, list[str]]:
        return self._queue.get(timeout=240)
