"""chrono-backups as an operator runs it: the installed command, one whole process per verb, start-up included."""

import base64
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from benchmarks.contender import Contender, version_of
from benchmarks.measure import Command

_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
_CHECKOUT = Path(__file__).resolve().parent.parent


class Ours(Contender):
    """AES-256-GCM, zstd level 1, the local storage. Settings come from the environment alone."""

    name = "ours"
    programs = ("chrono-backups",)
    program: ClassVar[str] = "chrono-backups"
    """The command; `locate` sets it."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self._tree = room

    @classmethod
    def locate(cls, program: str | None) -> None:
        """Measure `program`, or else the command beside this Python, or else the one on the PATH."""
        beside = Path(sys.executable).parent / "chrono-backups"
        found = program or (str(beside) if beside.exists() else shutil.which("chrono-backups"))
        cls.program = str(Path(found).absolute()) if found else "chrono-backups"

    @classmethod
    def version(cls) -> str | None:
        if version_of(cls.program, "--help") is None:
            return None
        return version_of(cls.program, "--version") or "chrono-backups"

    def protect(self, tree: Path) -> None:
        """Name the tree that the following commands are about."""
        self._tree = tree

    def prepare(self) -> Command:
        return self._ours("init")

    def backup(self, tree: Path, first: bool) -> Command:
        self.protect(tree)
        return self._ours("backup", "--type", "full" if first else "incremental", "--json")

    def restore(self, target: Path) -> Command:
        return self._ours("restore", "latest", "--to", str(target))

    def restored(self, target: Path, tree: Path) -> Path:
        return target / "files" / tree.relative_to("/")

    def verify(self) -> Command:
        return self._ours("verify", "--full")

    def list(self) -> Command:
        return replace(self._ours("list", "--json"), output=self.room / "list.json")

    def listed(self) -> int:
        """How many backups the last `list` named."""
        written = self.room / "list.json"
        return len(json.loads(written.read_bytes())) if written.exists() else 0

    def help(self) -> Command:
        return self._ours("--help")

    def many(self, count: int) -> Command:
        """Take `count` backups in one process (a thousand starts would take minutes); not timed."""
        python = Path(self.program).parent / "python"
        program = str(python) if python.exists() else sys.executable
        command = self.command((program, "-m", "benchmarks.many", str(count)))
        return replace(command, environment={**command.environment, "PYTHONPATH": str(_CHECKOUT)})

    def _ours(self, *arguments: str) -> Command:
        return self.command((self.program, *arguments))

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "BACKUP_LOCAL_ENABLED": "true",
            "BACKUP_LOCAL_PATH": str(self.repository),
            "BACKUP_FILES_PATHS": str(self._tree),
            "BACKUP_SOURCES": "files",
            "BACKUP_ENCRYPTION_KEY": _KEY,
            "BACKUP_COMPRESSION_TYPE": "zstd",
            "BACKUP_COMPRESSION_LEVEL": "1",
        }
