"""A site with a PostgreSQL cluster: a server of the tests' own, its WAL received, Dagster's jobs on it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from chrono_backups.assembly import Application
from chrono_backups.backup.wal_receiver import WalReceiver
from chrono_backups.orchestration.location import build_definitions
from chrono_backups.settings import load
from chrono_backups_tests.orchestration.site import Site
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_home, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed

ROLE = "backup"


@dataclass
class DatabaseSite(Site):
    """``Site`` with a cluster."""

    server: PostgresServer

    def receive(self) -> None:
        """Everything that the server's log holds now."""
        application = Application(load())
        with application.open_repository() as repository:
            settings = application.settings.postgres
            WalReceiver(settings, repository, slot=settings.slot, stopping=lambda: False, until_idle=True).run()

    def drill(self, day: str, storage: str = "local", **config: Any) -> dg.ExecuteInProcessResult:
        job = build_definitions(load()).resolve_job_def("drill_job")
        run_config: Mapping[str, Any] = {"ops": {"drill": {"config": config}}} if config else {}
        return job.execute_in_process(
            instance=self.instance,
            partition_key=dg.MultiPartitionKey({"day": day, "storage": storage}),
            run_config=run_config,
            raise_on_error=False,
        )


@contextmanager
def database_site() -> Iterator[DatabaseSite]:
    """Gone afterwards, the server too."""
    version = needed(18)
    with (
        pytest.MonkeyPatch.context() as patch,
        postgres_server(version) as server,
        postgres_home() as home,
        dg.instance_for_test() as instance,
    ):
        server.add_role(ROLE, grants=["pg_read_all_data", "pg_read_all_settings"])
        server.load()
        data, configuration = home / "site", home / "app.env"
        data.mkdir()
        (data / "readme.txt").write_text("hello\n" * 100)
        configuration.write_text("MODE=production\n")
        drills = home / "drills"
        drills.mkdir()
        server.give(drills)
        for name, value in environment(server, home, data, configuration, drills).items():
            patch.setenv(name, value)
        patch.chdir(home)
        site = DatabaseSite(home, data, configuration, "", instance, server)
        site.application().create_repository().close()
        yield site


def environment(server: PostgresServer, home: Path, data: Path, configuration: Path, drills: Path) -> dict[str, str]:
    return {
        "BACKUP_LOCAL_PATH": str(home / "repository"),
        "BACKUP_LOCAL_MIRROR_PATH": str(home / "mirror"),
        "BACKUP_FILES_PATHS": str(data),
        "BACKUP_CONFIGURATION_PATHS": str(configuration),
        "BACKUP_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "BACKUP_FIRST_DAY": "2026-01-01",
        "BACKUP_POSTGRES_HOST": "127.0.0.1",
        "BACKUP_POSTGRES_PORT": str(server.port),
        "BACKUP_POSTGRES_USER": ROLE,
        "BACKUP_POSTGRES_PASSWORD": PASSWORD,
        "BACKUP_POSTGRES_DB": "postgres",
        "BACKUP_POSTGRES_BIN_DIR": str(server.programs),
        "BACKUP_DRILL_DIR": str(drills),
    }
