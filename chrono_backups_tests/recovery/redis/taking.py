"""Backups of Redis servers in tests, real and made by hand, and their restores."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from chrono_backups.clock import SystemClock
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.in_place import StorePlan, StoreReport, Stores, Wanted, plan_store
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.base import Earlier, StreamedCapture, StreamedEntry
from chrono_backups.sources.redis.crc64 import crc64
from chrono_backups.sources.redis.source import RedisSource
from chrono_backups.sources.settings import MeilisearchSettings, RedisSettings
from chrono_backups_tests.backup.taking import take
from chrono_backups_tests.servers.redis import RedisServer


def captured(repository: Repository, server: RedisServer) -> Manifest:
    return take(repository, "full", RedisSource(server.settings()))


def planned(
    repository: Repository, manifest: Manifest, settings: RedisSettings, wanted: Wanted | None = None
) -> StorePlan:
    stores = Stores(settings, MeilisearchSettings(), SystemClock())
    return plan_store(repository, manifest, "redis", stores, wanted or Wanted())


def restored(
    repository: Repository,
    manifest: Manifest,
    settings: RedisSettings,
    wanted: Wanted | None = None,
    listener: Listener = silent,
) -> StoreReport:
    """Planned, checked and carried out."""
    plan = planned(repository, manifest, settings, wanted)
    plan.check()
    return plan.execute(listener)


def sealed(content: bytes) -> bytes:
    """An RDB file with its checksum."""
    return content + crc64(content).to_bytes(8, "little")


class Handmade:
    """Pours out an RDB file that no server would."""

    name: SourceName = "redis"

    def __init__(self, content: bytes, facts: Mapping[str, Any]) -> None:
        self._content = content
        self.facts_given = facts

    def probe(self) -> list[Finding]:
        return []

    @contextmanager
    def stream(self, _earlier: Earlier | None, _asked: Any, _listener: Listener) -> Iterator[StreamedCapture]:
        yield _HandmadeCapture(self._content, self.facts_given)


class _HandmadeCapture:
    effective: Literal["full"] = "full"
    reason = ""
    expected_bytes = None

    def __init__(self, content: bytes, facts: Mapping[str, Any]) -> None:
        self._left = content
        self._facts = facts

    def entries(self) -> Iterator[StreamedEntry]:
        yield StreamedEntry(b"dump.rdb", stat.S_IFREG | 0o600, size=-1, read_into=self._read_into)

    def _read_into(self, view: memoryview) -> int:
        part = self._left[: len(view)]
        view[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def facts(self) -> Mapping[str, Any]:
        return self._facts


def handmade(repository: Repository, content: bytes, **file: Any) -> Manifest:
    """A backup of that RDB file; ``file``: what was recorded of it."""
    recorded: dict[str, Any] = {
        "entry": "dump.rdb", "rdb_version": 10, "keys": 1, "databases": {"0": {"keys": 1, "expires": 0, "types": {}}},
        "has_module_data": False, "used_memory": 1000, "sample": [], "unknown": "", **file,
    }  # fmt: skip
    facts = {"server_version": "7.0.15", "modules": [], "files": [recorded]}
    return take(repository, "full", Handmade(content, facts))
