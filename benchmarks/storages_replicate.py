"""Replication against the slower storage's raw speed, and a second run that finds nothing to do::

    python -m benchmarks.storages_replicate                       # 32 packs of 16 MiB, 3 rounds; 10,000 objects
    python -m benchmarks.storages_replicate --packs 8 --rounds 1 --objects 1000 --to local sftp

From a directory to another one, to an unprivileged sshd and to an S3 server (a real one where its program is found,
else moto, which is the slower side by far). Raw is the same objects, by as many threads as replication has: read from
the source, and put into the destination; the slower of the two is what replication is measured by. Rounds alternate.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from os import getloadavg, urandom
from pathlib import Path
from tempfile import TemporaryDirectory

from chrono_backups.clock import SystemClock
from chrono_backups.maintenance.replicate import THREADS, replicate
from chrono_backups.pipeline.packing import pack_digest
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.s3 import S3Storage
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups_tests.servers.moto_server import MotoServer, s3_client, s3_settings
from chrono_backups_tests.servers.s3_binary import program, s3_server
from chrono_backups_tests.servers.sshd import ssh_server

Opener = Callable[[str], Storage]
"""Makes an empty storage of that name."""


@contextmanager
def local(work: Path) -> Iterator[Opener]:
    """Directories."""
    yield lambda name: LocalStorage(work / name)


@contextmanager
def sftp(_work: Path) -> Iterator[Opener]:
    """Folders of an sshd."""
    with ssh_server() as server:
        yield lambda name: SftpStorage.open(server.settings(path=f"data/{name}"), create=True)


@contextmanager
def s3(work: Path) -> Iterator[Opener]:
    """Prefixes of a bucket."""
    with ExitStack() as stack:
        found = program()
        port = stack.enter_context(s3_server(found, work)) if found else stack.enter_context(MotoServer()).port
        s3_client(port).create_bucket(Bucket="bucket")
        yield lambda name: S3Storage.open(s3_settings(port, "bucket", prefix=name))


PLACES = {"local": local, "sftp": sftp, "s3": s3}


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def raw(source: Storage, destination: Storage, keys: Sequence[str]) -> tuple[float, float]:
    """Seconds of reading all and of putting all."""
    with ThreadPoolExecutor(THREADS) as pool:
        down = timed(lambda: list(pool.map(lambda key: len(source.get(key)), keys)))
        contents = [source.get(key) for key in keys]
        up = timed(lambda: list(pool.map(destination.put, keys, contents)))
    return down, up


def filled(storage: Storage, count: int, size: int) -> tuple[Repository, list[str]]:
    """A repository with that many packs of random bytes."""
    repository = Repository.create(storage, algorithm="none", operator_key=None, clock=SystemClock())
    keys = []
    for _ in range(count):
        content = urandom(size)
        keys.append(f"packs/{pack_digest(content).hex()}")
        storage.put(keys[-1], content)
    return repository, sorted(keys)


def speed(name: str, work: Path, packs: int, rounds: int) -> None:
    """Print one line: medians of the rounds."""
    size = 16 * 2**20
    repository, keys = filled(LocalStorage(work / f"source-{name}"), packs, size)
    samples: list[tuple[float, float]] = []
    with PLACES[name](work) as make:
        for number in range(rounds):

            def copied(number: int = number) -> float:
                destination = make(f"replica-{number}")
                return timed(lambda: replicate(repository, destination))

            def moved(number: int = number) -> float:
                return max(raw(repository.storage, make(f"raw-{number}"), keys))

            if number % 2:
                replica, slower = copied(), moved()
            else:
                slower, replica = moved(), copied()
            samples.append((slower, replica))
    slower, replica = (statistics.median(one[which] for one in samples) for which in (0, 1))
    megabytes = packs * size / 1e6
    label = f"{name} ({Path(program() or 'moto').name})" if name == "s3" else name
    ratio = statistics.median(one / other for one, other in samples)
    print(f"| local to {label} | {megabytes / slower:.0f} | {megabytes / replica:.0f} | {ratio:.2f} × |", flush=True)


def nothing_to_do(name: str, work: Path, objects: int) -> None:
    """Print the seconds of a second run."""
    repository, _ = filled(LocalStorage(work / f"many-{name}"), objects, 1024)
    with PLACES[name](work) as make:
        destination = make("replica-of-many")
        first = timed(lambda: replicate(repository, destination))
        second = min(timed(lambda: replicate(repository, destination)) for _ in range(3))
        listing = min(timed(lambda: list(destination.list())) for _ in range(3))
    print(f"| local to {name} | {objects:,} | {first:.1f} | {second:.2f} | {listing:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--to", nargs="+", choices=PLACES, default=list(PLACES))
    options = parser.parse_args()
    print(f"load {getloadavg()[0]:.1f}", file=sys.stderr)
    with TemporaryDirectory(prefix="replicate-bench-") as folder:
        print("| replication | raw, the slower side: MB/s | replicated: MB/s | of raw |\n|---|---|---|---|", flush=True)
        for name in options.to:
            speed(name, Path(folder), options.packs, options.rounds)
        print("\n| a second run | objects | first: s | second: s | one listing: s |\n|---|---|---|---|---|", flush=True)
        for name in options.to:
            nothing_to_do(name, Path(folder), options.objects)


if __name__ == "__main__":
    main()
