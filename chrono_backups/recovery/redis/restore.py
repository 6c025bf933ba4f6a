"""Redis in place: what a backup holds put over what a running server or cluster holds now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chrono_backups.errors import RestoreError, UsageError
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.in_place import StoreReport, Stores, Wanted
from chrono_backups.recovery.redis.dumps import SOURCE, Dump, dumps_of, prove
from chrono_backups.recovery.redis.keys import restore_keys
from chrono_backups.recovery.redis.replication import replicate, settled
from chrono_backups.recovery.redis.target import RESTORE_RIGHTS, Target, ask_target, keyspace
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.redis.connection import Address, RedisConnection, find_server, info, shards

Method = Literal["replication", "keys"]


def plan_redis(repository: Repository, manifest: Manifest, stores: Stores, wanted: Wanted) -> RedisPlan:
    """Ask the server that the settings name, and decide. Raises as ``in_place.Planner``."""
    settings = stores.redis
    if settings.host is None and not settings.sentinels:
        raise UsageError("no Redis server is named", hint="Set BACKUP_REDIS_HOST to the one that is to be restored.")
    dumps = dumps_of(repository, manifest)
    held = {number for dump in dumps for number in dump.databases}
    unknown = [number for number in wanted.databases if number not in held]
    if unknown:
        known = ", ".join(map(str, sorted(held))) or "none"
        raise UsageError(f"{manifest.backup_id} has no database {unknown[0]}", hint=f"It has {known}.")
    needed = set(wanted.databases) or held
    address = find_server(settings)
    with RedisConnection.open(settings, address) as connection:
        target = ask_target(connection, settings, max(needed, default=0) + 1)
        masters = []
        if target.is_cluster:
            for shard in shards(connection):
                with RedisConnection.open(settings, shard.address) as other:
                    masters.append(keyspace(info(other, "keyspace")).get(0, 0))
    recorded = manifest.snapshot(SOURCE)
    assert recorded is not None
    method, reason = _method(target, dumps, wanted, sentinels=bool(settings.sentinels), tls=settings.tls_cert is None)
    held_now = sum(masters) if target.is_cluster else target.keys
    return RedisPlan(stores, address, target, dumps, wanted, method, reason, held_now, recorded.facts)


def _method(target: Target, dumps: Sequence[Dump], wanted: Wanted, *, sentinels: bool, tls: bool) -> tuple[Method, str]:
    """How it is restored, and where that is not by replication, why. ``tls``: we have no certificate to show."""
    reasons = (
        (not wanted.everything, "a part is wanted"),
        (target.is_cluster, "a cluster refuses REPLICAOF"),
        (len(dumps) > 1, "the backup is of a cluster"),
        (not target.may_replicate, "REPLICAOF is not to be had there"),
        (sentinels, "Sentinels would take it for a failed master"),
        (target.parameters.get("tls-replication") == "yes" and tls, "it speaks TLS to a master, and we have no key"),
    )
    reason = next((why for holds, why in reasons if holds), "")
    return ("keys", reason) if reason else ("replication", "")


@dataclass
class RedisPlan:
    """A restore of Redis in place, computed and not yet carried out."""

    stores: Stores
    address: Address
    target: Target
    dumps: Sequence[Dump]
    wanted: Wanted
    method: Method
    reason: str
    held_now: int
    """Keys that the target holds."""
    captured: Mapping[str, Any]
    """What was recorded of the whole capture."""
    source: SourceName = "redis"

    @property
    def backup_id(self) -> str:
        return self.dumps[0].backup_id

    @property
    def when_cancelled(self) -> str:
        if self.method == "replication":
            return f"Redis at {self.address} holds either its old or its new data, whole"
        return f"Redis at {self.address} holds its old data, or in the last step a part of each: restore again then"

    @property
    def findings(self) -> Sequence[Finding]:
        """What is to be known before it is carried out."""
        return list(self._findings())

    def _findings(self) -> Iterator[Finding]:
        subject = str(self.address)
        if self.method == "replication":
            if self.target.parameters.get("masterauth"):
                message = "it has a masterauth: it sends us that password when it connects"
                yield Finding("redis-masterauth", "warning", subject, message, "Over TLS, or a network that you trust.")
            if not self.target.parameters:
                message = "it does not tell its parameters: whether it has a masterauth is not known"
                yield Finding("redis-parameters-unseen", "info", subject, message, "Grant the user +config|get.")
            replicas = int(self.target.seen.get("connected_slaves", 0) or 0)
            if replicas:
                message = f"its {replicas} replicas are filled anew from it"
                yield Finding("redis-replicas", "info", subject, message)
        if self.method == "keys" and self.wanted.everything:
            message = "for a while it holds the old and the new data side by side"
            yield Finding("redis-memory", "info", subject, message)

    def facts(self) -> Sequence[tuple[str, str]]:
        """What people are shown."""
        how = "over replication" if self.method == "replication" else f"key by key: {self.reason}"
        part = [f"database {number}" for number in self.wanted.databases] + list(self.wanted.patterns)
        return [
            ("to", f"{self.address}, Redis {self.target.version}"),
            ("holds now", f"{self.held_now:,} keys"),
            ("brings", f"{self._keys():,} keys" if self.wanted.everything else ""),
            ("part", ", ".join(part)),
            ("captured", str(self.captured.get("boundary", {}).get("last", ""))),
            ("how", how),
        ]

    def _keys(self) -> int:
        return sum(dump.keys for dump in self.dumps)

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "server": str(self.address),
            "server_version": self.target.version,
            "method": self.method,
            "reason": self.reason,
            "keys_now": self.held_now,
            "keys": self._keys(),
            "patterns": list(self.wanted.patterns),
            "databases": list(self.wanted.databases),
            "findings": [finding.to_json() for finding in self.findings],
        }

    # Before anything is changed.

    def check(self) -> None:
        """Raises ``RestoreError`` for a server that could not hold the data, ``Damaged`` for data that is not whole."""
        target, where = self.target, f"Redis at {self.address}"
        if target.is_replica:
            raise RestoreError(
                f"{where} is a replica", hint="Name its master: what is restored there comes to its replicas."
            )
        newest = max(dump.rdb_version for dump in self.dumps)
        if newest > target.rdb_version:
            raise RestoreError(
                f"{where} (Redis {target.version}) reads RDB files up to version {target.rdb_version}, and the backup "
                f"has version {newest}, of Redis {self.captured['server_version']}",
                hint="Upgrade the server: a newer file would leave it empty. Nothing was changed.",
            )
        self._check_databases(where)
        self._check_modules(where)
        self._check_memory(where)
        for dump in self.dumps:
            prove(dump, silent)

    def _check_databases(self, where: str) -> None:
        held = [number for dump in self.dumps for number in dump.databases]
        most = max(self.wanted.databases or held, default=0)
        if self.target.is_cluster and most:
            raise RestoreError(
                f"{where} is a cluster, which has database 0 only, and the backup has database {most} as well",
                hint="Restore what can be: --database 0.",
            )
        if most >= self.target.databases:
            raise RestoreError(
                f"{where} has no database {most}, which the backup has",
                hint=f"Set `databases {most + 1}` or more there and restart it (it would end when it is handed the "
                f"data), and grant the user {RESTORE_RIGHTS}.",
            )

    def _check_modules(self, where: str) -> None:
        if not any(dump.facts.get("has_module_data") for dump in self.dumps):
            return
        needed = set(self.captured.get("modules", ()))
        lacking = sorted(needed - self.target.modules) if needed else []
        if lacking or (not needed and not self.target.modules):
            named = ", ".join(lacking) or "the modules that its data needs"
            raise RestoreError(
                f"{where} lacks {named}", hint="Load them there first: without them it would end when it loads."
            )

    def _check_memory(self, where: str) -> None:
        most = self.target.maxmemory
        if not most or self.target.is_cluster:
            return
        needed = sum(int(dump.facts.get("used_memory", 0)) for dump in self.dumps)
        if self.method == "keys":
            if not self.wanted.everything:
                return
            needed += int(self.target.seen.get("used_memory", 0))
        if needed > most:
            raise RestoreError(
                f"{where} may use {most:,} bytes (maxmemory), and the restore takes about {needed:,}",
                hint="CONFIG SET maxmemory to more: it would evict keys, or refuse writes. Nothing was changed.",
            )

    # Carried out.

    def execute(self, listener: Listener) -> StoreReport:
        """Raises ``RestoreError``, ``SourceError``, ``Damaged``, ``StorageError``."""
        began = time.monotonic()
        settings, clock = self.stores.redis, self.stores.clock
        report = StoreReport("redis", bytes=sum(dump.size for dump in self.dumps))
        report.details = {"method": self.method, "server": str(self.address)}
        if self.method == "replication":
            tls = self.target.parameters.get("tls-replication") == "yes"
            report.findings += replicate(settings, self.address, self.dumps[0], listener, clock, tls=tls)
            report.items = self._keys()
            report.findings += self._compared()
            save = self.target.parameters.get("repl-diskless-load", "disabled") != "disabled"
            save = save and not self.target.keeps_aof
            report.findings += settled(settings, self.address, listener, clock, save=save)
        else:
            done = restore_keys(settings, self.address, self.dumps, self.wanted, listener)
            report.items = done.keys
            report.details |= {"removed": done.removed, "expired": done.expired, "libraries": done.libraries}
            if self.target.keeps_aof and not self.target.is_cluster:
                report.findings += settled(settings, self.address, listener, clock, save=False)
        for finding in report.findings:
            listener(finding)
        report.seconds = time.monotonic() - began
        return report

    def _compared(self) -> Iterator[Finding]:
        """Whether the server holds as many keys as the file; keys whose time has passed may be gone."""
        with RedisConnection.open(self.stores.redis, self.address) as connection:
            now = keyspace(info(connection, "keyspace"))
        for number, what in self.dumps[0].databases.items():
            count = now.get(number, 0)
            if not what["keys"] - what["expires"] <= count <= what["keys"]:
                message = f"database {number} has {count:,} keys, and {what['keys']:,} were restored"
                hint = "Is it used already, or does it evict keys (maxmemory)?"
                yield Finding("redis-count-differs", "warning", str(self.address), message, hint)
