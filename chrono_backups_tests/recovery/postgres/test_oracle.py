"""The oracle, shortly. The long way: ``make oracle``."""

from __future__ import annotations

import pytest

from chrono_backups_tests.recovery.postgres.clusters import need
from chrono_backups_tests.recovery.postgres.oracle import Oracle, main
from chrono_backups_tests.servers.postgres import postgres_home

SEED = 20260104


def test_random_moments_hold_exactly_what_was_committed_by_then() -> None:
    need(18)
    with postgres_home() as home:
        oracle = Oracle(home, seed=SEED)
        oracle.live(8)
        effective = [one.snapshots[0].effective for one in oracle.manifests]
        assert "incremental" in effective
        # Across a promotion the server may send too little: that backup is a full one.
        assert effective.count("full") == 2
        for target, last in oracle.moments(3):
            oracle.check(target, last)


@pytest.mark.soak
def test_twenty_random_moments_of_a_longer_history() -> None:
    need(18)
    assert main(["--seconds", "90", "--moments", "20"]) == 0
