"""One bandwidth over all processes: it holds, and nobody waits for one that died or stands still."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups.storage.shared_bandwidth import FileLedger, shared_ledger
from chrono_backups.storage.throttled import Bandwidth, OwnLedger, ThrottledStorage
from chrono_backups_tests.undisturbed import once_undisturbed

MEGABIT = 1_000_000 / 8
CONTEXT = multiprocessing.get_context("spawn")


def transfer(place: Path, rate: float, seconds: float, size: int, begin: Any, totals: Any) -> None:
    """A process of two threads that transfer as much as they may; tells how much, and from when to when."""
    storage = ThrottledStorage(MemoryStorage(), Bandwidth(rate, ledger=shared_ledger(["a", "b"], place=place)))
    data = bytes(size)
    begin.wait(240)
    began = time.monotonic()

    def work(worker: int) -> int:
        sent = 0
        while time.monotonic() < began + seconds:
            storage.put(f"{worker}/{sent}", data)
            storage.delete(f"{worker}/{sent}")
            sent += size
        return sent

    with ThreadPoolExecutor(2) as pool:
        sent = sum(pool.map(work, range(2)))
    totals.put((sent, began, time.monotonic()))


@pytest.mark.parametrize(("rate", "size"), [(80, 20_000), (400, 1_000_000)])
def test_processes_together_keep_to_the_rate(tmp_path: Path, rate: float, size: int) -> None:
    reached: list[float] = []

    def together() -> None:
        begin, totals = CONTEXT.Barrier(3), CONTEXT.Queue()
        workers = [CONTEXT.Process(target=transfer, args=(tmp_path, rate, 3.0, size, begin, totals)) for _ in range(3)]
        for worker in workers:
            worker.start()
        ended = [totals.get(timeout=300) for _ in workers]
        for worker in workers:
            worker.join()
        lasted = max(end for _, _, end in ended) - min(began for _, began, _ in ended)
        reached.append(sum(sent for sent, _, _ in ended) / lasted / MEGABIT)
        assert reached[-1] > 0.95 * rate
        assert min(sent for sent, _, _ in ended) > 0

    once_undisturbed(together)
    assert max(reached) < 1.05 * rate


def test_a_killed_process_costs_the_others_what_it_had_booked_and_no_more(tmp_path: Path) -> None:
    begin, totals = CONTEXT.Barrier(2), CONTEXT.Queue()
    killed = CONTEXT.Process(target=transfer, args=(tmp_path, 80, 60.0, 500_000, begin, totals))
    killed.start()
    begin.wait(240)
    time.sleep(0.3)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    bandwidth = Bandwidth(80, ledger=shared_ledger(["a", "b"], place=tmp_path))
    began = time.monotonic()
    assert bandwidth.reserve(100_000, began)[1] - began < 0.5


def test_one_that_stands_still_in_a_booking_is_not_waited_for(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "ledger")
    ledger.book(10.0, 5.0)
    with (tmp_path / "ledger").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        assert ledger.book(20.0, 1.0) == 20.0
        assert ledger.book(20.0, 1.0) == 21.0
        assert 1.0 <= time.monotonic() - began < 60
    assert ledger.book(0.0, 1.0) == 15.0


def test_bookings_follow_one_another_over_all_who_open_it(tmp_path: Path) -> None:
    one, two = (shared_ledger(["a"], place=tmp_path) for _ in range(2))
    other = shared_ledger(["b"], place=tmp_path)
    assert isinstance(one, FileLedger)
    assert [one.book(100.0, 2.0), two.book(100.0, 3.0), one.book(101.0, 1.0)] == [100.0, 102.0, 105.0]
    assert one.book(200.0, 1.0) == 200.0
    assert other.book(100.0, 1.0) == 100.0


def test_what_was_booked_before_the_machine_started_counts_no_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(struct.pack("<16sd", b"another boot....", 1e12))
    assert FileLedger(path).book(7.0, 1.0) == 7.0
    path.write_bytes(b"junk")
    assert FileLedger(path).book(7.0, 1.0) == 7.0


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / f"chrono-backups-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert isinstance(shared_ledger(["a"], place=tmp_path), OwnLedger)
    folder.rmdir()
    folder.symlink_to("/")
    assert isinstance(shared_ledger(["a"], place=tmp_path), OwnLedger)
    assert isinstance(shared_ledger(["a"], place=tmp_path / "nowhere"), OwnLedger)


def test_time_that_went_unused_before_a_process_began_is_not_its_own(tmp_path: Path) -> None:
    clock = FrozenClock()
    clock.sleep(1000)
    bandwidth = Bandwidth(8, clock=clock, ledger=FileLedger(tmp_path / "ledger", clock))
    assert bandwidth.reserve(1_000_000, clock.monotonic()) == (1000.0, 1001.0)
