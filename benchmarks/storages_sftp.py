"""The storage `sftp` against OpenSSH's own client, to the same server, in the same run::

    python -m benchmarks.storages_sftp                    # 16 objects of 16 MiB, 3 rounds, without and with 50 ms
    python -m benchmarks.storages_sftp --objects 4 --rounds 1 --latency 0.05

Each contender starts from nothing: connecting and logging in are part of its time, and its objects go to a folder of
their own, are read back, and are compared. Ours also makes every object durable (fsync of file and folder, a name
given once), which `put` of the client does not, and `put -f` does of the file alone. It is measured with one thread,
as the client has one, and with two, as a backup uploads. The distance is a relay's that delays, a process of its own:
it has the machine's bandwidth.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import getloadavg, urandom
from pathlib import Path
from tempfile import TemporaryDirectory

from chrono_backups.storage.sftp import SftpStorage
from chrono_backups_tests.servers.sshd import SshServer, ssh_server

OPENSSH = "sftp"


@dataclass(frozen=True)
class Work:
    """What is moved, and where the server is reached."""

    server: SshServer
    port: int
    files: list[Path]
    contents: list[bytes]
    folder: Path
    """For what comes back."""

    @property
    def megabytes(self) -> float:
        return sum(map(len, self.contents)) / 1e6


def ours(work: Work, place: str, threads: int) -> tuple[float, float]:
    """Seconds of putting and of getting."""
    settings = work.server.settings(port=work.port, path=place)
    SftpStorage.open(settings, create=True).close()
    keys = [f"packs/{file.name}" for file in work.files]

    def timed(move: Callable[[SftpStorage], None]) -> float:
        began = time.perf_counter()
        storage = SftpStorage.open(settings)
        move(storage)
        storage.close()
        return time.perf_counter() - began

    def put(storage: SftpStorage) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(storage.put, keys, work.contents))

    def get(storage: SftpStorage) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for found, content in zip(pool.map(storage.get, keys), work.contents, strict=True):
                assert found == content

    return timed(put), timed(get)


def openssh(work: Work, place: str, *options: str, put: str = "put") -> tuple[float, float]:
    """The same by the client."""
    (work.server.data / place).mkdir()
    (work.server.data / place).chmod(0o777)
    command = [
        OPENSSH, "-q", "-i", str(work.server.user_key), "-P", str(work.port), *options,
        "-o", f"UserKnownHostsFile={work.server.known_hosts}", "-o", "IdentitiesOnly=yes", "-b", "-",
        f"{work.server.username}@127.0.0.1",
    ]  # fmt: skip

    def timed(lines: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(command, input="\n".join(lines), text=True, check=True, capture_output=True)
        return time.perf_counter() - began

    puts = timed([f"{put} {file} {place}/{file.name}" for file in work.files])
    gets = timed([f"get {place}/{file.name} {work.folder}/{file.name}" for file in work.files])
    assert [(work.folder / file.name).read_bytes() for file in work.files] == work.contents
    return puts, gets


CONTENDERS: dict[str, Callable[[Work, str], tuple[float, float]]] = {
    "OpenSSH's sftp": openssh,
    "OpenSSH's sftp, our cipher": lambda work, place: openssh(work, place, "-c", "aes128-gcm@openssh.com"),
    "OpenSSH's sftp, put -f": lambda work, place: openssh(work, place, put="put -f"),
    "ours, 1 thread": lambda work, place: ours(work, place, 1),
    "ours, 2 threads": lambda work, place: ours(work, place, 2),
}


@contextmanager
def distance(port: int, latency: float) -> Iterator[int]:
    """The port of a relay that adds ``latency`` seconds to every round trip; the port itself for none."""
    if not latency:
        yield port
        return
    command = [sys.executable, "-m", "chrono_backups_tests.servers.fault_proxy", str(port), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None and relay.stdin is not None
        try:
            yield int(relay.stdout.readline())
        finally:
            relay.stdin.close()
            relay.wait(20)


def measure(work: Work, rounds: int, label: str) -> None:
    """Print the table of one distance: medians of the rounds; each round begins with another contender."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        names = list(CONTENDERS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            place = f"{label}-{number}-{names.index(name)}".replace(" ", "-")
            samples[name].append(CONTENDERS[name](work, place))
            subprocess.run(["rm", "-rf", str(work.server.data / place)], check=True)
    print(f"\n{label}: MB/s, medians of {rounds}, × OpenSSH's sftp\n\n| | put | | get | |\n|---|---|---|---|---|")
    base = [statistics.median(one[way] for one in samples[next(iter(CONTENDERS))]) for way in (0, 1)]
    for name, taken in samples.items():
        seconds = [statistics.median(one[way] for one in taken) for way in (0, 1)]
        cells = [
            f"{work.megabytes / took:.0f} | {first / took:.2f} ×" for took, first in zip(seconds, base, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--size", type=float, default=16.0, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, action="append", metavar="SECONDS", help="default: 0 and 0.05")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends with this, however it ends
    with ExitStack() as stack:
        server = stack.enter_context(ssh_server())
        source = Path(stack.enter_context(TemporaryDirectory(prefix="sftp-bench-")))
        contents = [urandom(int(options.size * 2**20)) for _ in range(options.objects)]
        files = [source / f"{number:04}" for number in range(options.objects)]
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        back = source / "back"
        back.mkdir()
        print(f"{options.objects} objects of {options.size:g} MiB; load before the run: {getloadavg()[0]:.1f}")
        for latency in options.latency or (0.0, 0.05):
            with distance(server.port, latency) as port:
                label = f"{latency * 1000:g} ms added" if latency else "no distance"
                measure(Work(server, port, files, contents, back), options.rounds, label)


if __name__ == "__main__":
    main()
