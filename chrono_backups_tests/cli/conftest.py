"""A small site to protect, and the program run on it as operators run it: as a process."""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

KEY = urlsafe_b64encode(bytes(range(32))).decode()
OTHER_KEY = urlsafe_b64encode(bytes(range(1, 33))).decode()
NEWLINE_NAME = b"two\nlines \x1b[31m.txt"
BYTES_NAME = b"caf\xe9.txt"


@dataclass(frozen=True)
class Ran:
    """What a run of the program gave."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        """The one document on standard output: strict JSON, nothing before or after it."""
        return json.loads(self.out.decode("utf-8", "strict"))


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with those ``BACKUP_`` variables and no others."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BACKUP_", "POSTGRES_", "REDIS_"))
    }
    return {**kept, **settings}


COMMAND = (sys.executable, "-m", "chrono_backups")


@dataclass
class Site:
    """A directory tree, a repository's place and the settings that name both."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    def run(self, *words: str | bytes, code: int | None = 0, **settings: str) -> Ran:
        """Run the program; it must end with ``code``."""
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.root,
            env=environment({**self.settings, **settings}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr.decode())
        if code is not None:
            assert ran.code == code, f"{words}: exit code {ran.code}\n{ran.text}\n{ran.err}"
        assert "Traceback" not in ran.err or "--debug" in words, ran.err
        for secret in (KEY, OTHER_KEY):
            assert secret not in ran.err
        return ran

    def json(self, *words: str | bytes, code: int | None = 0, **settings: str) -> Any:
        """The document that the program prints with ``--json``."""
        return self.run(*words, "--json", code=code, **settings).json

    def backup(self, backup_type: str = "full") -> str:
        """Take a backup; its id."""
        identifier: str = self.json("backup", "--type", backup_type)["id"]
        return identifier


def write_tree(data: Path) -> None:
    """A few files of every awkward kind."""
    (data / "media").mkdir(parents=True)
    (data / "empty").mkdir()
    (data / "media" / "large.bin").write_bytes(os.urandom(3_000_000))
    (data / "notes.txt").write_text("first line\nsecond line\n")
    (data / "link").symlink_to("notes.txt")
    for name in (NEWLINE_NAME, BYTES_NAME):
        Path(os.fsdecode(os.fsencode(data) + b"/" + name)).write_bytes(b"content of " + name)
    (data / "notes.txt").chmod(0o640)
    os.utime(data / "notes.txt", ns=(1, 1_700_000_000_123_456_789))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose repository is not made yet."""
    made = Site(tmp_path)
    write_tree(made.data)
    made.settings = {
        "BACKUP_LOCAL_PATH": str(made.repository),
        "BACKUP_ENCRYPTION_KEY": KEY,
        "BACKUP_FILES_PATHS": str(made.data),
    }
    return made


@pytest.fixture
def ready(site: Site) -> Site:
    """A site with an empty repository."""
    site.run("init")
    return site


def same_tree(one: Path, other: Path) -> bool:
    """Same names, kinds, contents, modes and times, all the way down."""
    for name in sorted(set(os.listdir(os.fsencode(one))) | set(os.listdir(os.fsencode(other)))):
        first, second = (
            Path(os.fsdecode(os.fsencode(one) + b"/" + name)),
            Path(os.fsdecode(os.fsencode(other) + b"/" + name)),
        )
        facts = [path.lstat() for path in (first, second)]
        if (facts[0].st_mode, facts[0].st_mtime_ns) != (facts[1].st_mode, facts[1].st_mtime_ns):
            return False
        if first.is_symlink():
            if first.readlink() != second.readlink():
                return False
        elif first.is_dir():
            if not same_tree(first, second):
                return False
        elif not filecmp.cmp(first, second, shallow=False):
            return False
    return True


def restored(directory: Path, data: Path) -> Path:
    """Where ``restore --to`` puts ``data``."""
    return directory / "files" / str(data).lstrip("/")
