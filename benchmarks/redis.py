"""Redis: ours against redis-cli and against the server's own loading, in the same run, taking turns::

    python -m benchmarks.redis                         # a million keys, 5 rounds
    python -m benchmarks.redis --keys 100000 --rounds 1

A capture of ours is compressed, sealed and stored in a repository, and every key of it counted; `redis-cli --rdb`
writes the same bytes to a file. A restore of ours reads them from the repository, proves them, and has a running
server take them over replication; the other contender is a server that is started with the file. Both are timed within
one process, and as whole commands where that is said. All servers have `repl-diskless-sync-delay 0`: with the default,
every capture of either contender begins with five seconds of waiting. A server that is restored is emptied before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ours import Ours
from chrono_backups.clock import SystemClock
from chrono_backups.recovery.in_place import Wanted
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import PipelineOptions
from chrono_backups.sources.redis.source import RedisSource
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.backup.taking import KEY, take
from chrono_backups_tests.recovery.redis.taking import planned
from chrono_backups_tests.servers.redis import RedisServer

_WORK = Path(__file__).resolve().parent.parent / ".bench"
_OPERATOR_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
_OPTIONS = PipelineOptions(workers=2, slots=5)
_FILL = """
math.randomseed(ARGV[1])
for n = ARGV[1], ARGV[2] do
  local kind, text = n % 10, string.format('%d:%x:%x', n, math.random(2^30), math.random(2^30))
  if kind < 6 then redis.call('SET', 'page:' .. n, text .. string.rep(text, math.random(3)))
  elseif kind < 8 then redis.call('HSET', 'session:' .. n, 'user', n, 'seen', text, 'agent', 'Mozilla', 'hits', n % 99)
  elseif kind == 8 then redis.call('RPUSH', 'queue:' .. n, text, n, n + 1)
  else redis.call('ZADD', 'rank:' .. n, n, 'a', n + 1, text) end
  if n % 4 == 0 and kind < 8 then redis.call('EXPIRE', (kind < 6 and 'page:' or 'session:') .. n, 1000000) end
end
"""
TARGETS = (
    ("capture", "ours", "redis-cli --rdb", 1.2),
    ("restore", "ours", "load at start", 1.5),
)


class Rounds:
    """Seconds by phase and contender."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, list[float]]] = {}

    def time(self, phase: str, contender: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
        self.seconds.setdefault(phase, {}).setdefault(contender, []).append(took)
        print(f"{phase} {contender}: {took:.2f} s", file=sys.stderr)

    def median(self, phase: str, contender: str) -> float:
        return statistics.median(self.seconds[phase][contender])


class Bench:
    """The servers and the repository of one run."""

    def __init__(self, room: Path, keys: int) -> None:
        self.room = room
        self.keys = keys
        self.origin = RedisServer(room / "origin")
        self.target = RedisServer(room / "target")
        storage = LocalStorage(room / "repository", create=True)
        self.repository: Repository = Repository.create(
            storage, algorithm="AES-256-GCM", operator_key=KEY, clock=SystemClock()
        )
        self.manifest: Manifest | None = None
        self.file = room / "cli.rdb"

    def fill(self) -> None:
        client = self.origin.client()
        for first in range(0, self.keys, 20_000):
            client.eval(_FILL, 0, first, min(first + 20_000, self.keys) - 1)
        assert client.dbsize() == self.keys

    def capture(self) -> None:
        source = RedisSource(self.origin.settings())
        self.manifest = take(self.repository, "full", source, options=_OPTIONS)

    def redis_cli(self) -> None:
        command = ["redis-cli", "-p", str(self.origin.port), "--rdb", str(self.file)]
        subprocess.run(command, check=True, capture_output=True)

    def command(self, *words: str, port: int) -> None:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.room), "LANG": "C.UTF-8",
            "BACKUP_LOCAL_PATH": str(self.room / "commands"), "BACKUP_ENCRYPTION_KEY": _OPERATOR_KEY,
            "BACKUP_REDIS_HOST": "127.0.0.1", "BACKUP_REDIS_PORT": str(port), "BACKUP_SOURCES": "redis",
        }  # fmt: skip
        subprocess.run([Ours.program, *words], check=True, capture_output=True, env=environment, cwd=self.room)

    def capture_command(self) -> None:
        self.command("backup", "--type", "database_only", port=self.origin.port)

    def restore_command(self) -> None:
        words = ("restore", "latest", "--in-place", "--source", "redis", "--no-safety-backup")
        self.command(*words, port=self.target.port)

    def restore(self) -> None:
        assert self.manifest is not None
        plan = planned(self.repository, self.manifest, self.target.settings())
        plan.check()
        plan.execute(lambda _event: None)

    def load(self) -> None:
        """A server that is started with the file, until it answers."""
        home = self.room / "loading"
        home.mkdir(exist_ok=True)
        shutil.copyfile(self.file, home / "dump.rdb")
        server = RedisServer(home)
        try:
            server.start()
        finally:
            server.stop()

    def by_key(self) -> None:
        """Key by key, as clusters and managed servers are restored."""
        assert self.manifest is not None
        plan = planned(self.repository, self.manifest, self.target.settings(), Wanted(databases=[0]))
        plan.check()
        plan.execute(lambda _event: None)


def measure(bench: Bench, rounds: Rounds, count: int, *, commands: bool) -> None:
    """All phases, whose contenders take turns, another one first in every round."""
    bench.command("init", port=bench.origin.port)
    for number in range(count):
        turns: list[tuple[str, str, Callable[[], object]]] = [
            ("capture", "ours", bench.capture),
            ("capture", "redis-cli --rdb", bench.redis_cli),
        ]
        if commands:
            turns.append(("capture", "ours, whole command", bench.capture_command))
        _turn(bench, rounds, turns, number)
        turns = [("restore", "ours", bench.restore), ("restore", "load at start", bench.load)]
        if commands:
            turns.append(("restore", "ours, whole command", bench.restore_command))
        _turn(bench, rounds, turns, number)
        assert bench.target.digest() == bench.origin.digest(), "DEBUG DIGEST differs"
    rounds.time("restore", "ours, key by key", bench.by_key)
    assert bench.target.digest() == bench.origin.digest(), "DEBUG DIGEST differs"


def _turn(bench: Bench, rounds: Rounds, turns: list[tuple[str, str, Callable[[], object]]], number: int) -> None:
    shift = number % len(turns)
    for phase, contender, work in turns[shift:] + turns[:shift]:
        if phase == "restore" and contender.startswith("ours"):
            bench.target.client().flushall()
        rounds.time(phase, contender, work)


def markdown(bench: Bench, rounds: Rounds, version: str) -> str:
    """The figures as ratios."""
    size = bench.file.stat().st_size / 1e6
    lines = [
        f"Redis {version}, {bench.keys:,} keys, an RDB file of {size:.0f} MB; medians; DEBUG DIGEST equal.",
        "",
        "| phase | contender | seconds | ratio | target |",
        "|---|---|---|---|---|",
    ]
    for phase, ours, peer, target in TARGETS:
        base = rounds.median(phase, peer)
        for contender in rounds.seconds[phase]:
            ratio = rounds.median(phase, contender) / base
            wanted = f"≤ {target}" if contender == ours else ""
            lines.append(f"| {phase} | {contender} | {rounds.median(phase, contender):.2f} | {ratio:.2f} | {wanted} |")
    return "\n".join(lines)


def main() -> int:
    """0: the targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="to take medians of (default 5)")
    parser.add_argument("--no-commands", action="store_true", help="leave out whole commands")
    parser.add_argument("--work", type=Path, default=_WORK, metavar="DIR", help="where all is made (default .bench)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix="redis-", dir=options.work.absolute()))
    Ours.locate(None)
    bench, rounds = Bench(room, options.keys), Rounds()
    try:
        bench.origin.start()
        bench.target.start()
        bench.fill()
        measure(bench, rounds, options.rounds, commands=not options.no_commands)
        version = str(bench.origin.client().info("server")["redis_version"])
        print(markdown(bench, rounds, version))
        (options.work / "redis.json").write_text(json.dumps(rounds.seconds, indent=1))
    finally:
        bench.repository.close()
        bench.origin.stop()
        bench.target.stop()
        shutil.rmtree(room, ignore_errors=True)
    met = [rounds.median(phase, ours) <= target * rounds.median(phase, peer) for phase, ours, peer, target in TARGETS]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
