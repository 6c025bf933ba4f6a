"""What the tests do: a repository in memory, a small tree to protect, and what must come back."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chrono_backups.backup.plan import plan_backup
from chrono_backups.backup.service import capture, commit
from chrono_backups.clock import FrozenClock
from chrono_backups.identifiers import BackupType
from chrono_backups.maintenance.verify import verify
from chrono_backups.pipeline.encryption import Algorithm
from chrono_backups.recovery.browse import entries, read_file
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import PipelineOptions
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.base import Storage
from chrono_backups.storage.memory import MemoryStorage

KEY = bytes(range(32))
OPTIONS = PipelineOptions(workers=1, uploads=1, slots=3)
Content = Mapping[str, bytes]


@dataclass
class Site:
    """A tree, a repository and a clock that stands still."""

    root: Path
    storage: MemoryStorage
    clock: FrozenClock
    algorithm: Algorithm = "AES-256-GCM"

    def create(self) -> Repository:
        return Repository.create(
            self.storage,
            algorithm=self.algorithm,
            operator_key=None if self.algorithm == "none" else KEY,
            clock=self.clock,
        )

    def open(self, storage: Storage | None = None) -> Repository:
        key = None if self.algorithm == "none" else KEY
        return Repository.open(storage or self.storage, operator_key=key, clock=self.clock)

    def write(self, files: Content) -> None:
        """Make the tree hold exactly these files."""
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def backup(self, repository: Repository, backup_type: BackupType = "full") -> Manifest:
        """A backup a second after the last."""
        self.clock.advance(timedelta(seconds=1))
        plan = plan_backup(repository, backup_type, ["files"])
        outcome = capture(repository, plan, FilesSource("files", [self.root]), options=OPTIONS)
        return commit(repository, plan, [outcome], trigger="test")


def random_files(count: int = 6, size: int = 20_000) -> dict[str, bytes]:
    return {f"folder{number % 2}/{number}.bin": secrets.token_bytes(size) for number in range(count)}


def contents(repository: Repository, backup_id: str, root: Path) -> dict[str, bytes]:
    """What the backup says the tree held."""
    found = {}
    start = str(root).encode()
    for entry in entries(repository, backup_id, "/", recursive=True):
        if entry.kind == "file" and entry.path.startswith(start):
            name = entry.path.removeprefix(start + b"/").decode()
            found[name] = b"".join(bytes(piece) for piece in read_file(repository, backup_id, entry.path))
    return found


def assert_whole(site: Site, storage: Storage, expected: Mapping[str, Content]) -> list[str]:
    """Every backup in sight is whole and reads back byte for byte; the ids in sight."""
    with site.open(storage) as repository:
        report = verify(repository, full=True)
        assert report.ok, report.findings
        visible = [one.backup_id for one in repository.backups()]
        for backup_id in visible:
            assert contents(repository, backup_id, site.root) == dict(expected[backup_id])
    return visible
