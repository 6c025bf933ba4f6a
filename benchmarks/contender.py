"""The seam between the runner and the programs it measures: what each runs for a backup, a restore, a check."""

import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from benchmarks.measure import Command


class Contender(ABC):
    """One program with a fresh repository in `room`, which holds its caches, settings and logs too.

    The commands it hands out are timed by the runner; `prepare` is not. All of them encrypt unless the class says
    otherwise, and compress with zstd at level 1 or what comes nearest.
    """

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    adds: ClassVar[bool] = True
    """Whether a second backup adds to the first, so that "unchanged" and "1 % changed" mean something."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.repository = room / "repository"
        room.mkdir(parents=True)

    @classmethod
    def version(cls) -> str | None:
        """Its version, or None when a program it needs is not installed."""
        found = [version_of(program) for program in cls.programs]
        return ", ".join(filter(None, found)) if all(found) else None

    @abstractmethod
    def prepare(self) -> Command | None:
        """What creates the repository; not timed."""

    @abstractmethod
    def backup(self, tree: Path, first: bool) -> Command:
        """Back up `tree`; `first` says that the repository is empty."""

    @abstractmethod
    def restore(self, target: Path) -> Command:
        """Restore the newest backup into the empty directory `target`."""

    @abstractmethod
    def verify(self) -> Command:
        """Read and prove every stored byte."""

    def restored(self, target: Path, tree: Path) -> Path:
        """Where in `target` the restored `tree` lies."""
        return target / tree.relative_to("/")

    def stored(self) -> int:
        """The repository's size in bytes: the sum of its files' sizes."""
        total = 0
        for directory, _, names in os.walk(self.repository):
            total += sum(Path(directory, name).lstat().st_size for name in names)
        return total

    def command(self, *stages: tuple[str, ...], directory: Path | None = None, output: Path | None = None) -> Command:
        """A command in this contender's environment."""
        return Command(stages, directory or self.room, self.environment(), output)

    def environment(self) -> dict[str, str]:
        """Only what it needs: no setting of the caller's reaches it, and its home and caches are in its room."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.room),
            "XDG_CACHE_HOME": str(self.room / "cache"),
            "XDG_CONFIG_HOME": str(self.room / "config"),
        }


def version_of(program: str, *arguments: str) -> str | None:
    """The first line that `program --version` (or with `arguments`) says; None when it can't be run."""
    try:
        done = subprocess.run([program, *(arguments or ("--version",))], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ((done.stdout or done.stderr).splitlines() or [program])[0].strip()
