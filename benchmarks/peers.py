"""The programs we measure ourselves against. What each does to make its data durable is its own and is timed;
a pipe's archive is brought to disk by `sync -f`.
"""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from benchmarks.contender import Contender, version_of
from benchmarks.measure import Command

_PASSWORD = "benchmark"


class Restic(Contender):
    """Repository version 2, compression `auto`."""

    name = "restic"
    programs = ("restic",)

    @classmethod
    def version(cls) -> str | None:
        return version_of("restic", "version")

    def prepare(self) -> Command:
        return self._restic("init", "--repository-version", "2")

    def backup(self, tree: Path, first: bool) -> Command:
        return self._restic("backup", "--compression", "auto", str(tree))

    def restore(self, target: Path) -> Command:
        return self._restic("restore", "latest", "--target", str(target))

    def verify(self) -> Command:
        return self._restic("check", "--read-data")

    def _restic(self, *arguments: str) -> Command:
        cache = str(self.room / "cache")
        return self.command(("restic", "--repo", str(self.repository), "--cache-dir", cache, *arguments))

    def environment(self) -> dict[str, str]:
        return super().environment() | {"RESTIC_PASSWORD": _PASSWORD}


class Borg(Contender):
    """`repokey-blake2`, `--compression zstd,1`."""

    name = "borg"
    programs = ("borg",)

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self._archives = 0

    def prepare(self) -> Command:
        return self.command(("borg", "init", "--encryption", "repokey-blake2", str(self.repository)))

    def backup(self, tree: Path, first: bool) -> Command:
        self._archives += 1
        return self.command(("borg", "create", "--compression", "zstd,1", self._newest(), str(tree)))

    def restore(self, target: Path) -> Command:
        return self.command(("borg", "extract", self._newest()), directory=target)

    def verify(self) -> Command:
        return self.command(("borg", "check", "--verify-data", str(self.repository)))

    def _newest(self) -> str:
        return f"{self.repository}::backup-{self._archives}"

    def environment(self) -> dict[str, str]:
        return super().environment() | {"BORG_PASSPHRASE": _PASSWORD, "BORG_BASE_DIR": str(self.room)}


class TarZstd(Contender):
    """`tar | zstd -1 -T2`, not encrypted: the throughput that the first full backup is held to."""

    name = "tar-zstd"
    programs: ClassVar[tuple[str, ...]] = ("tar", "zstd")
    adds = False

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self.repository.mkdir()
        self._archive = self.repository / "archive"

    def prepare(self) -> None:
        return None

    def backup(self, tree: Path, first: bool) -> Command:
        stages = (
            ("tar", "cf", "-", "-C", "/", str(tree.relative_to("/"))),
            ("zstd", "-1", "-T2", "-q"),
            *self._seal(),
        )
        written = self.command(*stages, output=self._archive)
        return replace(written, then=("sync", "-f", str(self._archive)))

    def restore(self, target: Path) -> Command:
        return self.command(*self._open(), ("tar", "xf", "-", "-C", str(target)))

    def verify(self) -> Command:
        return self.command(("zstd", "-t", "-q", str(self._archive)))

    def _seal(self) -> tuple[tuple[str, ...], ...]:
        return ()

    def _open(self) -> tuple[tuple[str, ...], ...]:
        return (("zstd", "-d", "-c", "-q", str(self._archive)),)


class ReferencePipe(TarZstd):
    """`tar | zstd -1 -T2 | openssl enc -aes-256-ctr -pbkdf2`: encrypted, but nothing proves what it stored."""

    name = "pipe"
    programs = ("tar", "zstd", "openssl")

    @classmethod
    def version(cls) -> str | None:
        pipe, openssl = TarZstd.version(), version_of("openssl", "version")
        return f"{pipe}, {openssl}" if pipe and openssl else None

    def verify(self) -> Command:
        return self.command(self._openssl("-d", "-in", str(self._archive)), ("zstd", "-t", "-q"))

    def _seal(self) -> tuple[tuple[str, ...], ...]:
        return (self._openssl(),)

    def _open(self) -> tuple[tuple[str, ...], ...]:
        return (self._openssl("-d", "-in", str(self._archive)), ("zstd", "-d", "-c", "-q"))

    def _openssl(self, *arguments: str) -> tuple[str, ...]:
        return ("openssl", "enc", "-aes-256-ctr", "-pbkdf2", "-pass", "env:BENCHMARK_PASSWORD", *arguments)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"BENCHMARK_PASSWORD": _PASSWORD}
