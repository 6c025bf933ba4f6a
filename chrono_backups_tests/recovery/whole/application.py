"""An application of all five sources on real servers, which writes the same counter to each of its stores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from chrono_backups_tests.recovery.postgres.operated import Operated, operated
from chrono_backups_tests.servers.meilisearch import MeilisearchServer, program
from chrono_backups_tests.servers.redis import RedisServer, need, redis_server

MASTER_KEY = "a master key of the tests"


@dataclass
class Application:
    """The servers, and what is protected of them."""

    postgres: Operated
    redis: RedisServer
    meilisearch: MeilisearchServer
    written: list[tuple[float, int]] = field(default_factory=list)
    """When the counter had been written to all of them, by this machine's clock, and its value."""

    def write(self, value: int) -> None:
        """To the database first, then to what is made from it."""
        with self.postgres.server.connect() as connection:
            connection.execute("UPDATE counter SET value = %s", [value])
        self.redis.client().set("counter", value)
        self.meilisearch.fill("counter", [{"id": 1, "value": value}])
        self.written.append((time.time(), value))

    @contextmanager
    def writing(self, first: int = 1) -> Iterator[None]:
        """Counts on meanwhile."""
        ended = threading.Event()

        def run() -> None:
            value = first
            with self.postgres.server.connect() as connection:
                client = self.redis.client()
                while not ended.is_set():
                    connection.execute("UPDATE counter SET value = %s", [value])
                    client.set("counter", value)
                    self.meilisearch.fill("counter", [{"id": 1, "value": value}])
                    self.written.append((time.time(), value))
                    value += 1
                    time.sleep(0.002)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(60)
            assert not thread.is_alive()

    def value_at(self, moment: float) -> int:
        """What had been written everywhere by then."""
        return max((value for when, value in self.written if when <= moment), default=0)

    def held(self) -> dict[str, int]:
        """What the stores that run hold."""
        document = requests.get(
            f"{self.meilisearch.url}/indexes/counter/documents/1",
            headers={"Authorization": f"Bearer {MASTER_KEY}"},
            timeout=30,
        )
        found: Any = self.redis.client().get("counter")
        return {"redis": int(found), "meilisearch": int(document.json()["value"])}


@contextmanager
def application() -> Iterator[Application]:
    """A running one, with an empty repository."""
    need()
    fast = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
    with operated(18) as cluster, redis_server(fast) as store, MeilisearchServer(master_key=MASTER_KEY) as index:
        files = cluster.home / "media"
        files.mkdir()
        (files / "picture").write_bytes(b"as it was")
        (cluster.home / "app.conf").write_text("debug = no\n")
        cluster.write_settings(
            BACKUP_REDIS_HOST="127.0.0.1",
            BACKUP_REDIS_PORT=str(store.port),
            BACKUP_MEILISEARCH_HOST=index.url,
            BACKUP_MEILISEARCH_MASTER_KEY=MASTER_KEY,
            BACKUP_FILES_PATHS=str(files),
            BACKUP_CONFIGURATION_PATHS=str(cluster.home / "app.conf"),
            BACKUP_DRILL_DIR=str(cluster.home),
            BACKUP_MEILISEARCH_BIN=str(program(cluster.home)),
        )
        cluster.server.execute("CREATE TABLE counter (value int); INSERT INTO counter VALUES (0)")
        made = Application(cluster, store, index)
        made.write(0)
        yield made


@pytest.fixture(scope="module", name="application")
def running() -> Iterator[Application]:
    """One for all tests of a module: making it takes seconds."""
    with application() as made:
        yield made
