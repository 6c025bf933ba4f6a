"""How the product is told to reach a server of the tests."""

from __future__ import annotations

from typing import Any

import pytest

from chrono_backups.sources.settings import PostgresSettings
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, programs


def reach(server: PostgresServer, user: str = "backup", **changes: Any) -> PostgresSettings:
    """The settings of the source, over TCP with a password; its programs are the server's own."""
    known = {"host": "127.0.0.1", "port": server.port, "user": user, "password": PASSWORD, "db": "postgres"}
    return PostgresSettings.model_validate({**known, "bin_dir": (server.programs,), **changes})


def needed(version: int) -> int:
    """The version, where the machine has it; else the test is skipped."""
    if programs(version) is None:
        pytest.skip(f"needs PostgreSQL {version}")
    return version
