"""PostgreSQL: ours against pg_basebackup and pgBackRest, on the same clusters, in the same run::

    python -m benchmarks.postgres                             # scale 50 and 320 MB of text, 3 rounds
    python -m benchmarks.postgres --scale 5 --text 30 --rounds 1

Two clusters of the same content, one of PostgreSQL 18 and one of 15: Debian's pgBackRest 2.45 knows nothing later than
15, and incrementals by blocks begin with 17. Ours is measured on both, each peer beside it on the cluster it can read.
The servers are the tests' own. pgBackRest reads the data directory itself, with two processes; ours goes through the
server, with the start of a whole process. Every figure is of whole commands; the contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.contender import version_of
from benchmarks.measure import Command, CommandFailed, Cost, run
from benchmarks.ours import Ours
from benchmarks.trees import text_page
from chrono_backups_tests.servers.postgres import PASSWORD, SUPERUSER, PostgresServer, programs

_WORK = Path(__file__).resolve().parent.parent / ".bench"
_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
FEW, MANY = 500, 30_000
"""Transactions between two backups."""

TARGETS = (
    ("full, against the pipe (18)", "full 18", "ours", "pipe", 0.85),
    ("full, against pgBackRest (15)", "full 15", "ours", "pgbackrest", 0.9),
    ("incremental, against pg_basebackup (18)", "incremental 18", "ours", "pg_basebackup", 1.3),
    ("restore, against pgBackRest (15)", "restore 15", "ours", "pgbackrest", 1.0),
)


@dataclass
class Sample:
    phase: str
    contender: str
    cost: Cost
    added: int


@dataclass
class Run:
    """What was measured, and where."""

    room: Path
    log: Path
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def measure(self, phase: str, contender: str, command: Command, grows: Path | None = None) -> bool:
        """Time one command; whether it succeeded."""
        before = size_of(grows) if grows is not None else 0
        try:
            cost = run(command, self.log)
        except (CommandFailed, OSError) as error:
            self.failures.append(f"{phase}, {contender}: {error}")
            print(f"{phase} {contender}: FAILED, {error}", file=sys.stderr)
            return False
        added = (size_of(grows) if grows is not None else 0) - before
        self.samples.append(Sample(phase, contender, cost, added))
        print(
            f"{phase} {contender}: {cost.seconds:.2f} s, {cost.cpu_seconds:.1f} s CPU, "
            f"{cost.peak_bytes / 1e6:.0f} MB memory, {added / 1e6:+.1f} MB",
            file=sys.stderr,
        )
        return True

    def of(self, phase: str, contender: str) -> list[Sample]:
        return [one for one in self.samples if (one.phase, one.contender) == (phase, contender)]

    def median(self, phase: str, contender: str, figure: Callable[[Sample], float]) -> float | None:
        found = [figure(one) for one in self.of(phase, contender)]
        return statistics.median(found) if found else None


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    if place.is_file():
        return place.stat().st_size
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(place) for name in names)


def cluster(version: int, options: argparse.Namespace) -> PostgresServer:
    """The cluster of that version, made once and kept in the work directory."""
    home = options.work / f"postgres-{version}-{options.scale:g}-{options.text}"
    whole = home / "whole"
    server = PostgresServer(version, home, home / "data")
    if whole.exists():
        server.start()
        return server
    if server.data.exists():
        shutil.rmtree(server.data)
    server.initialise(settings={"fsync": "on", "max_wal_size": "4GB", "shared_buffers": "256MB", "autovacuum": "off"})
    server.start()
    server.add_role("backup")
    server.load(scale=int(options.scale))
    server.execute("CREATE TABLE pages (id bigserial PRIMARY KEY, url text, body text)")
    with server.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY pages (url, body) FROM STDIN") as copy:
            written = number = 0
            while written < options.text * 1_000_000:
                text = text_page(number)
                copy.write_row((f"https://example.org/{number}", text))
                written, number = written + len(text), number + 1
        cursor.execute("VACUUM (FREEZE, ANALYZE)")
        cursor.execute("CHECKPOINT")
    whole.touch()
    return server


class OursOnPostgres:
    """chrono-backups, a process per verb."""

    name = "ours"

    def __init__(self, server: PostgresServer, room: Path) -> None:
        self.server, self.room = server, room
        self.repository = room / "repository"
        room.mkdir(parents=True)

    def command(self, *arguments: str) -> Command:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.room),
            "BACKUP_LOCAL_PATH": str(self.repository),
            "BACKUP_ENCRYPTION_KEY": _KEY,
            "BACKUP_COMPRESSION_LEVEL": "1",
            "BACKUP_POSTGRES_HOST": "127.0.0.1",
            "BACKUP_POSTGRES_PORT": str(self.server.port),
            "BACKUP_POSTGRES_USER": "backup",
            "BACKUP_POSTGRES_PASSWORD": PASSWORD,
            "BACKUP_POSTGRES_DB": "postgres",
        }
        return Command(((Ours.program, *arguments),), self.room, environment)


class Peers:
    """What the server's own tools and pgBackRest run."""

    def __init__(self, server: PostgresServer, room: Path) -> None:
        self.server, self.room = server, room
        room.mkdir(parents=True)
        self.environment = {"PATH": os.environ.get("PATH", os.defpath), "PGPASSWORD": PASSWORD, "HOME": str(room)}

    def base_backup(self, *arguments: str) -> tuple[str, ...]:
        program = str(self.server.programs / "pg_basebackup")
        return (program, "-h", "127.0.0.1", "-p", str(self.server.port), "-U", "backup", "-c", "fast", *arguments)

    def pipe(self, output: Path) -> Command:
        stages = (
            self.base_backup("-Ft", "-X", "none", "-D", "-"),
            ("zstd", "-1", "-T2", "-q"),
            ("openssl", "enc", "-aes-256-ctr", "-pbkdf2", "-pass", "pass:benchmark"),
        )
        return Command(stages, self.room, self.environment, output, ("sync", "-f", str(output)))

    def plain(self, directory: Path, *arguments: str) -> Command:
        return Command((self.base_backup("-D", str(directory), *arguments),), self.room, self.environment)

    def pgbackrest(self, *arguments: str) -> Command:
        conf = self.room / "pgbackrest.conf"
        if not conf.exists():
            conf.write_text(
                f"[global]\nrepo1-path={self.room}/repo\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=benchmark\n"
                f"process-max=2\ncompress-type=zst\ncompress-level=1\nstart-fast=y\nlog-path={self.room}\n"
                f"lock-path={self.room}/lock\nspool-path={self.room}/spool\narchive-check=n\nlog-level-console=error\n"
                f"[main]\npg1-path={self.server.data}\npg1-port={self.server.port}\n"
                f"pg1-socket-path={self.server.sockets}\npg1-user={SUPERUSER}\n"
            )
        command = ("pgbackrest", f"--config={conf}", "--stanza=main", *arguments)
        return Command((command,), self.room, self.environment)


def round_18(measured: Run, server: PostgresServer, number: int) -> None:
    """Full and incremental on 18: ours, the pipe, ``pg_basebackup --incremental``."""
    ours = OursOnPostgres(server, measured.room / f"18-{number}" / "ours")
    peers = Peers(server, measured.room / f"18-{number}" / "peers")
    run(ours.command("init"), measured.log)
    turns: list[Callable[[], object]] = [
        lambda: measured.measure("full 18", "ours", ours.command("backup", "--type", "full"), ours.repository),
        lambda: measured.measure("full 18", "pipe", peers.pipe(peers.room / "pipe.out"), peers.room / "pipe.out"),
    ]
    for turn in turns[number % 2 :] + turns[: number % 2]:
        turn()
    server.transact(FEW)
    measured.measure("second full 18", "ours", ours.command("backup", "--type", "full"), ours.repository)
    base = peers.room / "base"
    run(peers.plain(base, "-X", "none"), measured.log)
    run(ours.command("backup", "--type", "incremental"), measured.log)  # both build on a backup of this moment
    server.transact(MANY)
    server.execute("CHECKPOINT")  # or who comes first waits for it, and who comes second does not
    turns = [
        lambda: measured.measure(
            "incremental 18", "ours", ours.command("backup", "--type", "incremental"), ours.repository
        ),
        lambda: measured.measure(
            "incremental 18",
            "pg_basebackup",
            peers.plain(peers.room / "increment", "-X", "none", "--incremental", str(base / "backup_manifest")),
            peers.room / "increment",
        ),
    ]
    for turn in turns[number % 2 :] + turns[: number % 2]:
        turn()
    measured.measure("restore 18", "ours", restore(ours))


def round_15(measured: Run, server: PostgresServer, number: int) -> None:
    """Full, incremental and restore on 15: ours and pgBackRest."""
    ours = OursOnPostgres(server, measured.room / f"15-{number}" / "ours")
    peers = Peers(server, measured.room / f"15-{number}" / "peers")
    run(ours.command("init"), measured.log)
    repository = peers.room / "repo"
    run(peers.pgbackrest("stanza-create"), measured.log)
    turns: list[Callable[[], object]] = [
        lambda: measured.measure("full 15", "ours", ours.command("backup", "--type", "full"), ours.repository),
        lambda: measured.measure("full 15", "pgbackrest", peers.pgbackrest("backup", "--type=full"), repository),
        lambda: measured.measure("full 15", "pipe", peers.pipe(peers.room / "pipe.out"), peers.room / "pipe.out"),
    ]
    for turn in turns[number % 3 :] + turns[: number % 3]:
        turn()
    server.transact(MANY)
    measured.measure("incremental 15", "pgbackrest", peers.pgbackrest("backup", "--type=incr"), repository)
    target = measured.room / f"15-{number}" / "restored-by-pgbackrest"
    target.mkdir()
    turns = [
        lambda: measured.measure("restore 15", "ours", restore(ours)),
        lambda: measured.measure(
            "restore 15", "pgbackrest", peers.pgbackrest("restore", f"--pg1-path={target}", "--type=immediate")
        ),
    ]
    for turn in turns[number % 2 :] + turns[: number % 2]:
        turn()


def restore(ours: OursOnPostgres) -> Command:
    """Ready to start: no target, so as consistent as the backup itself makes it."""
    return ours.command("restore", "latest", "--source", "postgres", "--to", str(ours.room / "restored"))


def report(measured: Run, options: argparse.Namespace, load: float) -> str:
    """Markdown."""
    lines = [
        f"# PostgreSQL: scale {options.scale:g}, {options.text} MB of text, {options.rounds} rounds, "
        f"{len(os.sched_getaffinity(0))} cores, load before {load:.2f}",
        "",
        f"pgBackRest: {version_of('pgbackrest', 'version') or '**not installed, not measured**'}",
        "",
        "| phase | contender | s, median (minimum) | CPU s | peak MB | MB added |",
        "|---|---|---|---|---|---|",
    ]
    for phase, contender in dict.fromkeys((one.phase, one.contender) for one in measured.samples):
        found = measured.of(phase, contender)
        seconds = sorted(one.cost.seconds for one in found)
        lines.append(
            f"| {phase} | {contender} | {statistics.median(seconds):.2f} ({seconds[0]:.2f}) "
            f"| {statistics.median(one.cost.cpu_seconds for one in found):.1f} "
            f"| {max(one.cost.peak_bytes for one in found) / 1e6:.0f} "
            f"| {statistics.median(one.added for one in found) / 1e6:.1f} |"
        )
    lines += ["", "| what | bound | ours, by medians | by minima | |", "|---|---|---|---|---|"]
    for what, phase, ours, peer, bound in TARGETS:
        lines.append(_row(what, bound, *_ratios(measured, (phase, ours), (phase, peer), lambda one: one.cost.seconds)))
    pairs = (("incremental 18", "ours"), ("incremental 15", "pgbackrest"))
    by_time = _ratios(measured, *pairs, lambda one: one.cost.seconds)
    lines.append(_row("incremental (18) against pgBackRest's (15), time", 0.5, *by_time))
    lines.append(_row("the same, bytes", 1.0, *_ratios(measured, *pairs, lambda one: one.added)))
    again = _ratios(measured, ("second full 18", "ours"), ("full 18", "ours"), lambda one: one.added)
    lines.append(_row("second full, few changes: bytes added against the first", 0.1, *again))
    captures = [one for one in measured.samples if one.contender == "ours" and "restore" not in one.phase]
    peak = max((one.cost.peak_bytes for one in captures), default=0) / 1e6
    lines.append(_row("capture's peak memory, MB", 200, peak, peak))
    lines += ["", *(f"- failed: {failure}" for failure in measured.failures)]
    return "\n".join(lines) + "\n"


def _ratios(
    measured: Run, one: tuple[str, str], other: tuple[str, str], figure: Callable[[Sample], float]
) -> tuple[float | None, float | None]:
    """``one`` ÷ ``other``, by medians and by minima."""
    left, right = ([figure(sample) for sample in measured.of(*key)] for key in (one, other))
    if not left or not right:
        return None, None
    return statistics.median(left) / statistics.median(right), min(left) / min(right)


def _row(what: str, bound: float, found: float | None, least: float | None) -> str:
    if found is None or least is None:
        return f"| {what} | ≤ {bound:g} | | | not measured |"
    verdict = "met" if found <= bound else "**missed**"
    return f"| {what} | ≤ {bound:g} | {found:.2f} | {least:.2f} | {verdict} |"


def measure(room: Path, options: argparse.Namespace) -> Run:
    """All rounds on both clusters."""
    measured = Run(room, room / "said.log")
    for version, take in ((18, round_18), (15, round_15)):
        if version in options.versions:
            server = cluster(version, options)
            try:
                for number in range(options.rounds):
                    take(measured, server, number)
            finally:
                server.stop()
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done; 1 something failed; 2 there is nothing to measure with."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("--scale", type=float, default=50, help="pgbench's (default 50)")
    parser.add_argument("--text", type=int, default=320, help="MB of scraped text (default 320)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=_WORK)
    parser.add_argument("--versions", type=lambda text: [int(one) for one in text.split(",")], default=[18, 15])
    parser.add_argument("--ours", metavar="PROGRAM")
    options = parser.parse_args(arguments)
    Ours.locate(options.ours)
    for version in [one for one in options.versions if programs(one) is None]:
        print(f"PostgreSQL {version} is not installed and will not be measured", file=sys.stderr)
        options.versions.remove(version)
    if not options.versions:
        return 2
    options.work = options.work.absolute()
    options.work.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    room = Path(tempfile.mkdtemp(prefix="run-postgres-", dir=options.work))
    try:
        measured = measure(room, options)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    text = report(measured, options, load)
    print(text)
    (options.work / "results-postgres.md").write_text(text)
    samples = [asdict(one) for one in measured.samples]
    (options.work / "results-postgres.json").write_text(json.dumps(samples, indent=1) + "\n")
    return 1 if measured.failures else 0


if __name__ == "__main__":
    sys.exit(main())
