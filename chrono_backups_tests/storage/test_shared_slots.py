"""So many operations at once over all threads and processes, and nobody waits for one that died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chrono_backups.storage.shared_slots import SharedSlots

CONTEXT = multiprocessing.get_context("spawn")


def hold(place: Path, count: int, held: Any, free: Any) -> None:
    with SharedSlots(count, ["a"], place=place).one(lambda: None):
        held.set()
        free.wait(240)


def test_no_more_than_so_many_at_once(tmp_path: Path) -> None:
    lock, at_work, most, waited = threading.Lock(), 0, 0, []
    all_came = threading.Event()

    def wait(number: int) -> None:
        waited.append(number)
        if len(waited) == 3:
            all_came.set()

    def work(number: int) -> None:
        nonlocal at_work, most
        slots = SharedSlots(2, ["a"], place=tmp_path)  # each has its own, as each process has
        with slots.one(lambda: wait(number)):
            with lock:
                at_work += 1
                most = max(most, at_work)
            assert all_came.wait(120)
            with lock:
                at_work -= 1

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert most == 2
    assert len(waited) == len(set(waited)) == 3


def test_processes_share_them_and_a_killed_one_holds_none(tmp_path: Path) -> None:
    held, free = CONTEXT.Event(), CONTEXT.Event()
    other = CONTEXT.Process(target=hold, args=(tmp_path, 1, held, free))
    other.start()
    assert held.wait(240)
    waits: list[str] = []

    def killed() -> None:
        waits.append("told")
        os.kill(other.pid or 0, signal.SIGKILL)

    with SharedSlots(1, ["a"], place=tmp_path).one(killed):
        assert waits == ["told"]
    other.join()
    with SharedSlots(1, ["a"], place=tmp_path).one(lambda: waits.append("again")):
        pass
    assert waits == ["told"]


def test_installations_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with SharedSlots(1, ["a"], place=tmp_path).one(lambda: None):
        for installation in ("b", "c", "d"):
            with SharedSlots(1, [installation], place=tmp_path).one(lambda: (_ for _ in ()).throw(AssertionError())):
                pass


def test_where_there_is_no_place_nothing_is_waited_for(tmp_path: Path) -> None:
    nowhere = SharedSlots(1, ["a"], place=tmp_path / "nowhere")
    with nowhere.one(lambda: None), nowhere.one(lambda: None):
        pass
