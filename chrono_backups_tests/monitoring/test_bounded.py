"""Looks that answer, fail and hang."""

from __future__ import annotations

import threading
import time

from chrono_backups.errors import StorageDenied
from chrono_backups.monitoring.bounded import Bounded


def test_one_that_hangs_keeps_nobody_waiting_and_is_not_asked_twice() -> None:
    bounded, let_go, asked = Bounded(), threading.Event(), []

    def hangs() -> str:
        asked.append(1)
        let_go.wait()
        return "late"

    found = bounded.run({"a": lambda: "here", "b": hangs, "c": _refuses}, 3.0)
    assert found["a"].value == "here" and found["b"].hangs and isinstance(found["c"].error, StorageDenied)
    assert _hangs(bounded)
    again = bounded.run({"a": lambda: "here", "b": hangs}, 0.3)
    assert again["b"].hangs and again["b"].seconds >= 0.3 and asked == [1]
    let_go.set()
    end = time.monotonic() + 60
    while _hangs(bounded):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert bounded.run({"b": hangs}, 60)["b"].value == "late"


def test_it_is_done_when_all_have_answered() -> None:
    began = time.monotonic()
    Bounded().run({"a": lambda: 1, "b": lambda: 2}, 600)
    assert time.monotonic() - began < 300


def _hangs(bounded: Bounded) -> bool:
    return bounded.hanging


def _refuses() -> str:
    raise StorageDenied("no")
