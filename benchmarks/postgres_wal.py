"""PostgreSQL's log: how fast it is received, how far behind, in how much memory; and how fast it is replayed::

    python -m benchmarks.postgres_wal                        # 2 GB of log, 60 s under load, 3 replays of each kind
    python -m benchmarks.postgres_wal --log 300 --seconds 15 --rounds 1

On a cluster of PostgreSQL 18 with pgbench's tables, in segments of 16 MB as installed. The log is of updates of whole
tables with full pages, as pgbench makes it.

1. `wal-receive --until-idle` fetches a log that a slot has kept: as fast as it goes, sealed and stored, compressed.
2. `wal-receive` runs beside pgbench: how old the oldest byte is that the server has and no confirmation of, and what
   the process holds in memory in the second third of the time and in the last.
3. A restored cluster replays the log: by `wal-fetch`, and by `cp` from a folder of plain segments, taking turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import run
from benchmarks.ours import Ours
from benchmarks.postgres import _WORK, OursOnPostgres
from chrono_backups.identifiers import lsn_number
from chrono_backups.repository.wal_names import Segment
from chrono_backups_tests.recovery.postgres.operated import let_server_run_us
from chrono_backups_tests.servers.postgres import SUPERUSER, PostgresServer, programs

_SEGMENT = 16 << 20
_SLOT = "chrono_backups"
_SAMPLE = 0.2
BOUNDS = {"received": 100.0, "lag": 5.0, "replay": 1.3}
"""MB/s at least; seconds and a ratio at most."""


@dataclass
class Found:
    """What was measured."""

    log_mb: float = 0.0
    receive_seconds: float = 0.0
    receive_peak_mb: float = 0.0
    stored_mb: float = 0.0
    load_mb_per_second: float = 0.0
    lags: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    replays: dict[str, list[float]] = field(default_factory=lambda: {"wal-fetch": [], "cp": []})


def position(server: PostgresServer) -> int:
    return lsn_number(server.value("SELECT pg_current_wal_flush_lsn()::text"))


def confirmed(server: PostgresServer) -> int:
    text = server.value(f"SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = '{_SLOT}'")
    return lsn_number(text)


def write_log(server: PostgresServer, size: int) -> None:
    """About so many bytes of log: all accounts updated, again and again."""
    end = position(server) + size
    while position(server) < end:
        server.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 4 = 0")
        server.execute("VACUUM pgbench_accounts")
        server.execute("CHECKPOINT")


def size_of(place: Path) -> float:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6


def received(server: PostgresServer, ours: OursOnPostgres, log: Path, size: int, found: Found) -> None:
    """1: a log that was kept, fetched as fast as it goes."""
    run(ours.command("wal-receive", "--until-idle"), log)
    start = confirmed(server)
    write_log(server, size)
    before = size_of(ours.repository / "wal")
    cost = run(ours.command("wal-receive", "--until-idle"), log)
    found.log_mb = (confirmed(server) - start) / 1e6
    found.receive_seconds, found.receive_peak_mb = cost.seconds, cost.peak_bytes / 1e6
    found.stored_mb = size_of(ours.repository / "wal") - before


@contextmanager
def pgbench(server: PostgresServer, seconds: float) -> Iterator[None]:
    process = subprocess.Popen(
        [str(server.programs / "pgbench"), "-h", str(server.sockets), "-p", str(server.port), "-U", SUPERUSER, "-n",
         "-c", "4", "-T", str(int(seconds) + 60), "postgres"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **server._as_user(),
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def followed(server: PostgresServer, ours: OursOnPostgres, seconds: float, found: Found) -> None:
    """2: beside a server that writes."""
    command = ours.command("wal-receive")
    with (ours.room / "receiver.log").open("wb") as said:
        receiver = subprocess.Popen(
            command.stages[0], cwd=command.directory, env=dict(command.environment), stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        time.sleep(3)
        waiting: list[tuple[float, int]] = []
        with pgbench(server, seconds):
            began, start = time.monotonic(), position(server)
            while (now := time.monotonic()) < began + seconds:
                waiting.append((now, position(server)))
                there = confirmed(server)
                waiting = [one for one in waiting if one[1] > there]
                found.lags.append(now - waiting[0][0] if waiting else 0.0)
                found.memory_mb.append(resident_mb(receiver.pid))
                time.sleep(_SAMPLE)
            found.load_mb_per_second = (position(server) - start) / 1e6 / seconds
    finally:
        receiver.send_signal(signal.SIGTERM)
        receiver.wait(60)


def plain_archive(server: PostgresServer, ours: OursOnPostgres, folder: Path, log: Path, start: int) -> None:
    """The same log as plain files, for `cp`."""
    folder.mkdir()
    end = confirmed(server)
    for number in range(start // _SEGMENT, (end - 1) // _SEGMENT + 1):
        name = Segment(1, number).name(_SEGMENT)
        run(ours.command("wal-fetch", name, str(folder / name)), log)
    server.give(folder)


def replayed(data: Path, home: Path, command: str | None) -> float:
    """Seconds from the start of a restored server to the end of its recovery."""
    if command is not None:
        with (data / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"restore_command = '{command}'\n")
    else:
        let_server_run_us(data)
    server = PostgresServer(18, home, data)
    began = time.perf_counter()
    server.start(ready=False)
    try:
        server.wait_ready(1200)
        server.wait_promoted(1200)
        return time.perf_counter() - began
    finally:
        server.stop()


def replays(server: PostgresServer, ours: OursOnPostgres, options: argparse.Namespace, log: Path, found: Found) -> None:
    """3: the same log into the same base backup, by turns."""
    asked = ours.command("recovery-points", "--json")
    told = subprocess.run(
        asked.stages[0], env=dict(asked.environment), cwd=ours.room, check=True, capture_output=True
    ).stdout
    start = lsn_number(json.loads(told)["ranges"][0]["start_lsn"])
    folder = ours.room / "plain"
    plain_archive(server, ours, folder, log, start)
    for number in range(options.rounds):
        turns = ["wal-fetch", "cp"]
        for kind in turns[number % 2 :] + turns[: number % 2]:
            out = ours.room / f"restored-{kind}-{number}"
            run(ours.command("restore", "latest", "--target-time", "latest", "--to", str(out)), log)
            data = out / "postgres"
            command = f"cp {folder}/%f %p" if kind == "cp" else None
            found.replays[kind].append(replayed(data, out / "server", command))
            print(f"replay by {kind}: {found.replays[kind][-1]:.2f} s", file=sys.stderr)
            shutil.rmtree(out, ignore_errors=True)


def measure(server: PostgresServer, ours: OursOnPostgres, options: argparse.Namespace) -> Found:
    """All of it, on one server."""
    found, log = Found(), ours.room / "said.log"
    environment = ours.command().environment
    (ours.room / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in environment.items()))
    run(ours.command("init"), log)
    run(ours.command("wal-receive", "--until-idle"), log)
    run(ours.command("backup", "--type", "full"), log)
    received(server, ours, log, options.log * 1_000_000, found)
    print(f"received {found.log_mb:.0f} MB in {found.receive_seconds:.1f} s", file=sys.stderr)
    followed(server, ours, options.seconds, found)
    server.give(ours.room)
    replays(server, ours, options, log, found)
    return found


def report(found: Found, options: argparse.Namespace, load: float) -> str:
    """Markdown."""
    rate = found.log_mb / found.receive_seconds
    third = len(found.memory_mb) // 3
    early, late = max(found.memory_mb[third : -third or None]), max(found.memory_mb[-third:])
    ours, cp = (statistics.median(found.replays[kind]) for kind in ("wal-fetch", "cp"))
    lag, ratio = max(found.lags, default=0.0), ours / cp
    rows = [
        ("received, sealed, stored, MB/s", f"≥ {BOUNDS['received']:g}", f"{rate:.0f}", rate >= BOUNDS["received"]),
        ("lag under load, s, at most", f"≤ {BOUNDS['lag']:g}", f"{lag:.1f}", lag <= BOUNDS["lag"]),
        ("memory, second third and last, MB", "flat", f"{early:.0f}, {late:.0f}", late <= early * 1.1),
        (
            "replay by `wal-fetch` ÷ by `cp`",
            f"≤ {BOUNDS['replay']:g}",
            f"{ratio:.2f}",
            ratio <= BOUNDS["replay"],
        ),
    ]
    return "\n".join(
        [
            f"# PostgreSQL's log: {len(os.sched_getaffinity(0))} cores, load before {load:.2f}",
            "",
            f"{found.log_mb:.0f} MB of log in {found.receive_seconds:.1f} s, peak {found.receive_peak_mb:.0f} MB of "
            f"memory; {found.stored_mb:.0f} MB stored.",
            f"Under load: {found.load_mb_per_second:.1f} MB/s for {options.seconds:g} s; lag in the middle "
            f"{statistics.median(found.lags):.1f} s.",
            f"Replay, s: wal-fetch {_listed(found.replays['wal-fetch'])}; cp {_listed(found.replays['cp'])}.",
            "",
            "| what | bound | found | |",
            "|---|---|---|---|",
            *(f"| {what} | {bound} | {seen} | {'met' if met else '**missed**'} |" for what, bound, seen, met in rows),
            "",
        ]
    )


def _listed(figures: Sequence[float]) -> str:
    return ", ".join(f"{figure:.2f}" for figure in figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done; 2 there is nothing to measure with."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres_wal", description=__doc__)
    parser.add_argument("--scale", type=int, default=20, help="pgbench's (default 20)")
    parser.add_argument("--log", type=int, default=2000, help="MB of log (default 2000)")
    parser.add_argument("--seconds", type=float, default=60, help="under load (default 60)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=_WORK)
    parser.add_argument("--ours", metavar="PROGRAM")
    options = parser.parse_args(arguments)
    Ours.locate(options.ours)
    if programs(18) is None:
        print("PostgreSQL 18 is not installed", file=sys.stderr)
        return 2
    options.work.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    home = Path(tempfile.mkdtemp(prefix="wal-", dir=tempfile.gettempdir()))
    home.chmod(0o755)
    server = PostgresServer(18, home / "a")
    server.initialise(settings={"fsync": "on", "max_wal_size": "8GB", "shared_buffers": "256MB", "autovacuum": "off"})
    server.start()
    try:
        server.add_role("backup")
        server.load(scale=options.scale)
        server.execute("VACUUM (FREEZE, ANALYZE)")
        found = measure(server, OursOnPostgres(server, home / "ours"), options)
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(home, ignore_errors=True)
    text = report(found, options, load)
    print(text)
    (options.work / "results-postgres-wal.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
