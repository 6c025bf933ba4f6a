"""Clusters that were backed up, for tests that restore them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from chrono_backups.clock import SystemClock
from chrono_backups.identifiers import BackupType
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.files import FilesSource
from chrono_backups.sources.postgres.source import PostgresSource
from chrono_backups.sources.settings import PostgresSettings
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.backup.taking import KEY, mixed_site, take
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_home, postgres_server, programs

ROLE = "backup"


def need(version: int) -> Path:
    """The folder of the version's programs; a skip where the machine lacks it."""
    found = programs(version)
    if found is None:
        pytest.skip(f"needs PostgreSQL {version}")
    return found


@dataclass(frozen=True)
class Protected:
    """A cluster with a repository of its backups."""

    server: PostgresServer
    home: Path
    """A folder that the server's user may enter, for restores too."""

    @property
    def place(self) -> Path:
        return self.home / "repository"

    @property
    def site(self) -> Path:
        return self.home / "site"

    def open(self) -> Repository:
        """The repository, as a new process would open it."""
        return Repository.open(LocalStorage(self.place, name="local"), operator_key=KEY, clock=SystemClock())

    def source(self) -> PostgresSource:
        settings = PostgresSettings(
            host="127.0.0.1",
            port=self.server.port,
            user=ROLE,
            password=SecretStr(PASSWORD),
            db="postgres",
        )
        return PostgresSource(settings)

    def back_up(self, backup_type: BackupType = "full") -> Manifest:
        """The cluster and the site's files."""
        with self.open() as repository:
            return take(repository, backup_type, self.source(), FilesSource("files", [self.site]))


@contextmanager
def protected(
    version: int = 18, *, settings: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Iterator[Protected]:
    """A running cluster with pgbench's tables, a tablespace and a site of files, and an empty repository."""
    need(version)
    with postgres_server(version, settings=settings, options=options) as server, postgres_home() as home:
        made = Protected(server, home)
        mixed_site(made.site)
        storage = LocalStorage(made.place, name="local", create=True)
        Repository.create(storage, algorithm="AES-256-GCM", operator_key=KEY, clock=SystemClock()).close()
        server.add_role(ROLE, grants=["pg_read_all_data", "pg_read_all_settings"])
        server.load()
        place = server.home / "a tablespace"
        place.mkdir()
        server.give(place)
        server.execute(f"CREATE TABLESPACE apart LOCATION '{place}'")
        server.execute("CREATE TABLE elsewhere TABLESPACE apart AS SELECT generate_series(1, 1000) AS n")
        server.execute("VACUUM (FREEZE, ANALYZE)")
        yield made


def owner_of(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid
