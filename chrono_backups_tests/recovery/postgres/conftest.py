"""One cluster with two backups for all tests that only read them: making it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chrono_backups.repository.records import Manifest
from chrono_backups_tests.recovery.postgres.clusters import Protected, protected


@dataclass(frozen=True)
class Taken:
    """A cluster, its full and its incremental backup, and what it held then."""

    protected: Protected
    full: Manifest
    incremental: Manifest
    accounts: int
    """Rows of pgbench_accounts at the incremental one; a tenth fewer than at the full one."""


@pytest.fixture(scope="session")
def taken() -> Iterator[Taken]:
    with protected(18) as cluster:
        full = cluster.back_up("full")
        cluster.server.execute("DELETE FROM pgbench_accounts WHERE aid % 10 = 0")
        cluster.server.execute("INSERT INTO elsewhere VALUES (5000)")
        incremental = cluster.back_up("incremental")
        accounts = cluster.server.value("SELECT count(*) FROM pgbench_accounts")
        yield Taken(cluster, full, incremental, accounts)
