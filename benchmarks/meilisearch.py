"""Meilisearch: captures and restores of ours, beside a loop that only fetches, in the same run::

    python -m benchmarks.meilisearch                                  # a million documents of 1 kB, 3 rounds
    python -m benchmarks.meilisearch --documents 100000 --rounds 1

The server is the tests' own, in a process of its own, with documents that are ready to be sent: what is measured is our
side, over the loopback interface. Restored is into one that counts documents and does not keep them (a real server's
indexing takes far longer than all of this), and once, by a drill, into one that does, where each is compared. Every
figure is of whole commands; the contenders take turns.

| contender | what it does |
|---|---|
| ours | `chrono-backups backup`, `restore --in-place`, `drill` |
| fetch | gets the same pages with `requests`, and drops them: the least that any client does |
| rewrite | fetches, and parses and writes each document anew by Python's `json`: what we do without |
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Command, CommandFailed, Cost, run
from benchmarks.ours import Ours
from chrono_backups_tests.servers import meilisearch as tests_server

_WORK = Path(__file__).resolve().parent.parent / ".bench"
_ROOT = Path(__file__).resolve().parent.parent
_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
_MASTER = "the master key of the benchmark"
_EVERY = 100
_LOOP = """
import json, requests, sys
url, key, rewrite = sys.argv[1:]
offset = 0
with requests.Session() as session:
    session.headers.update({"Authorization": "Bearer " + key, "Accept-Encoding": "identity"})
    while True:
        asked = {"offset": offset, "limit": 4000, "retrieveVectors": True}
        got = session.post(url + "/indexes/movies/documents/fetch", json=asked).content
        if rewrite == "rewrite":
            found = json.loads(got)["results"]
            for one in found:
                json.dumps(one, sort_keys=True, separators=(",", ":")).encode()
            count = len(found)
        else:
            count = 4000 if len(got) > 1000 else 0
        if not count:
            break
        offset += count
"""


@dataclass
class Figures:
    """What was measured: contender and phase → costs; and bytes that backups added."""

    costs: dict[tuple[str, str], list[Cost]] = field(default_factory=dict)
    added: dict[str, list[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def seconds(self, phase: str, contender: str) -> float:
        return statistics.median(one.seconds for one in self.costs[phase, contender])

    def peak(self, phase: str, contender: str) -> float:
        return max(one.peak_bytes for one in self.costs[phase, contender]) / 1e6


@contextmanager
def server(*words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The tests' server as a process; its address."""
    command = [sys.executable, "-m", "chrono_backups_tests.servers.meilisearch", "--master-key", _MASTER, *words]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.stdin.close()
            process.wait()


def change(process: subprocess.Popen[str], edition: int) -> None:
    """Have every hundredth document changed."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"change {_EVERY} {edition}\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == "changed"


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, room: Path, figures: Figures) -> None:
        self._options = options
        self._room = room
        self._figures = figures

    def environment(self, url: str, repository: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "BACKUP_SOURCES": "meilisearch",
            "BACKUP_MEILISEARCH_HOST": url,
            "BACKUP_MEILISEARCH_MASTER_KEY": _MASTER,
            "BACKUP_LOCAL_PATH": str(repository),
            "BACKUP_ENCRYPTION_KEY": _KEY,
            "BACKUP_COMPRESSION_LEVEL": "1",
            "BACKUP_MEILISEARCH_BIN": str(tests_server.program(self._room)),
        }

    def ours(self, phase: str, url: str, repository: Path, *words: str) -> None:
        command = Command(((Ours.program, *words),), self._room, self.environment(url, repository))
        before = size_of(repository)
        self._measure(phase, "ours", command)
        self._figures.added.setdefault(phase, []).append(size_of(repository) - before)

    def loop(self, url: str, contender: str) -> None:
        words = (sys.executable, "-c", _LOOP, url, _MASTER, contender)
        self._measure("capture", contender, Command((words,), self._room, dict(os.environ)))

    def _measure(self, phase: str, contender: str, command: Command) -> None:
        try:
            cost = run(command, self._room / "log")
        except (CommandFailed, OSError) as error:
            self._figures.failures.append(f"{phase}, {contender}: {error}")
            print(f"{phase} {contender}: FAILED, {error}", file=sys.stderr)
            return
        self._figures.costs.setdefault((phase, contender), []).append(cost)
        rate = self._options.documents / cost.seconds
        print(
            f"{phase} {contender}: {cost.seconds:.2f} s, {rate:,.0f} documents/s, {cost.cpu_seconds:.1f} s CPU, "
            f"{cost.peak_bytes / 1e6:.0f} MB memory",
            file=sys.stderr,
        )

    def round(self, number: int, url: str, process: subprocess.Popen[str]) -> None:
        repository = self._room / f"repository-{number}"
        self.ours("init", url, repository, "init", "--quiet")
        self.ours("capture", url, repository, "backup", "--quiet")
        self.loop(url, "fetch")
        self.loop(url, "rewrite")
        change(process, number + 1)
        self.ours("capture, 1 % changed", url, repository, "backup", "--quiet")
        self.ours("capture, nothing changed", url, repository, "backup", "--quiet")
        words = ("restore", "latest", "--in-place", "--source", "meilisearch", "--no-safety-backup", "--quiet")
        with server("--swallow") as (empty, _):
            self.ours("restore", empty, repository, *words)
        if not number:
            self.ours("drill", url, repository, "drill", "latest", "--quiet")


def size_of(place: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(place) for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done and every target reached; 1 something failed or falls short."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meilisearch")
    parser.add_argument("--documents", type=int, default=1_000_000, help="of about 1 kB (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take medians of (default 3)")
    parser.add_argument("--work", type=Path, default=_WORK, help="where all is made (default .bench)")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    figures = Figures()
    Ours.locate(None)
    with (
        tempfile.TemporaryDirectory(prefix="meilisearch-", dir=options.work) as room,
        server("--generate", f"movies:{options.documents}") as (url, process),
    ):
        bench = Bench(options, Path(room), figures)
        for number in range(options.rounds):
            bench.round(number, url, process)
    if figures.failures:
        return 1
    return 0 if _report(figures, options.documents) else 1


def _report(figures: Figures, documents: int) -> bool:
    """Print all, and whether every target is reached."""
    print(f"\n{documents:,} documents of about 1 kB, medians, whole processes\n")
    print("| phase | contender | seconds | documents/s | memory, MB |\n|---|---|---|---|---|")
    for phase, contender in figures.costs:
        seconds = figures.seconds(phase, contender)
        rate = f"{documents / seconds:,.0f}" if phase != "init" else ""
        print(f"| {phase} | {contender} | {seconds:.2f} | {rate} | {figures.peak(phase, contender):.0f} |")
    first, second = (statistics.median(figures.added[one]) for one in ("capture", "capture, 1 % changed"))
    reached = [
        ("documents/s captured", documents / figures.seconds("capture", "ours"), ">=", 50_000.0),
        ("documents/s restored", documents / figures.seconds("restore", "ours"), ">=", 50_000.0),
        ("memory of a capture, MB", figures.peak("capture", "ours"), "<=", 250.0),
        ("memory of a second capture, MB", figures.peak("capture, 1 % changed", "ours"), "<=", 250.0),
        ("memory of a restore, MB", figures.peak("restore", "ours"), "<=", 250.0),
        ("bytes of the second backup, 1 % changed, of the first's, %", second / first * 100, "<=", 5.0),
    ]
    print("\n| target | found | wanted | |\n|---|---|---|---|")
    good = True
    for name, found, way, wanted in reached:
        met = found >= wanted if way == ">=" else found <= wanted
        good = good and met
        print(f"| {name} | {found:,.1f} | {way} {wanted:,.0f} | {'met' if met else 'MISSED'} |")
    print(f"\nfirst backup {first / 1e6:.1f} MB, second {second / 1e6:.1f} MB stored")
    return good


if __name__ == "__main__":
    sys.exit(main())
