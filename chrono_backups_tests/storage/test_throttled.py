"""The bandwidth holds within 5 % over 30 seconds: small and large objects, both ways, many threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import StorageUnavailable
from chrono_backups.storage.faulty import Delay, Fail, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups.storage.throttled import Bandwidth, ThrottledStorage
from chrono_backups_tests.undisturbed import once_undisturbed


def megabits(total_bytes: int, seconds: float) -> float:
    return total_bytes * 8 / 1_000_000 / seconds


@pytest.mark.parametrize("size", [100, 5_000, 1_000_000, 16 * 2**20])
@pytest.mark.parametrize("rate", [5, 50, 900])
@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_the_rate_over_thirty_seconds(size: int, rate: float, way: str) -> None:
    clock = FrozenClock()
    storage = ThrottledStorage(MemoryStorage(), Bandwidth(rate, clock=clock))
    data = bytes(size)
    storage._inner.put("there", data)
    # 30 seconds or two objects, in steps that keep the test short.
    count = max(2, min(2000, int(30 * rate * 1e6 / 8 / size)))
    for number in range(count):
        if way == "up" or (way == "both" and number % 2):
            storage.put(f"{number}", data)
            storage.delete(f"{number}")
        else:
            assert len(storage.get("there", 0, size if number % 3 else None)) == size
    # Waits under 2 ms are left to the next slot: the last one may not have been slept.
    assert clock.monotonic() == pytest.approx(count * size * 8 / rate / 1e6, rel=0.05, abs=0.002)


@pytest.mark.parametrize("way", ["put", "get"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_time_that_the_transfer_takes_itself_counts(way: str, share: float) -> None:
    """A slot of 16 MiB at 50 Mbit/s is 2.7 s; the network needs a part of it."""
    clock = FrozenClock()
    size, slot = 16 * 2**20, 16 * 2**20 * 8 / 50e6
    delays = [Delay(call, share * slot, way) for call in range(11)]  # type: ignore[arg-type]
    inner = MemoryStorage()
    inner.put("there", bytes(size))
    storage = ThrottledStorage(FaultyStorage(inner, *delays, clock=clock), Bandwidth(50, clock=clock))
    for number in range(11):
        storage.put(f"{number}", bytes(size)) if way == "put" else storage.get("there")
    assert clock.monotonic() == pytest.approx(11 * slot, rel=0.01)
    storage.close()


def test_time_that_nobody_used_is_not_saved_up() -> None:
    clock = FrozenClock()
    storage = ThrottledStorage(MemoryStorage(), Bandwidth(8, clock=clock))  # 1 MB/s
    storage.put("a", bytes(1_000_000))
    clock.sleep(3600)
    began = clock.monotonic()
    for number in range(10):
        storage.put(f"{number}", bytes(1_000_000))
    assert clock.monotonic() - began == pytest.approx(10 - 0.25)


def test_several_storages_share_one_bandwidth() -> None:
    clock = FrozenClock()
    bandwidth = Bandwidth(8, clock=clock)
    first, second = (ThrottledStorage(MemoryStorage(), bandwidth) for _ in range(2))
    for number in range(5):
        first.put(f"{number}", bytes(1_000_000))
        second.put(f"{number}", bytes(1_000_000))
    assert clock.monotonic() == pytest.approx(10)


def test_an_error_does_not_wait_for_the_slots_end_but_has_used_it() -> None:
    clock = FrozenClock()
    storage = ThrottledStorage(FaultyStorage(MemoryStorage(), Fail(0)), Bandwidth(8, clock=clock))
    with pytest.raises(StorageUnavailable):
        storage.put("a", bytes(5_000_000))
    assert clock.monotonic() == 0
    storage.put("a", bytes(1_000_000))
    assert clock.monotonic() == pytest.approx(6)


def test_calls_without_content_pass() -> None:
    clock = FrozenClock()
    storage = ThrottledStorage(MemoryStorage(), Bandwidth(0.001, clock=clock))
    storage.put("empty", b"")
    storage.info("empty")
    list(storage.list())
    storage.usage()
    storage.delete("empty")
    assert clock.monotonic() == 0


def test_threads_together_keep_to_the_rate() -> None:
    """In real time: 200 Mbit/s, 1.5 seconds, four threads, objects of all sizes, both ways."""
    reached: list[float] = []

    def together() -> None:
        storage = ThrottledStorage(MemoryStorage(), Bandwidth(200))
        storage._inner.put("there", bytes(1_000_000))
        began = time.monotonic()

        def work(worker: int) -> int:
            sent = 0
            sizes = [10_000, 1_000, 1_000_000, 250_000]
            while time.monotonic() < began + 1.5:
                size = sizes[worker]
                if sent % 2:
                    storage.get("there", 0, size)
                else:
                    storage.put(f"{worker}/{sent}", bytes(size))
                sent += size
            return sent

        with ThreadPoolExecutor(4) as pool:
            total = sum(pool.map(work, range(4)))
        reached.append(megabits(total, time.monotonic() - began))
        assert reached[-1] > 0.95 * 200

    once_undisturbed(together)
    assert max(reached) < 1.05 * 200


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_no_bandwidth_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="bandwidth"):
        Bandwidth(rate)


def test_bytes_are_what_counts_and_not_elements() -> None:
    clock = FrozenClock()
    ThrottledStorage(MemoryStorage(), Bandwidth(8, clock=clock)).put("words", memoryview(bytes(4_000_000)).cast("I"))
    assert clock.monotonic() == pytest.approx(4)
