"""Servers that take long to start, one a process of the tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from chrono_backups_tests.servers.azurite import Azurite, azurite, azurite_command


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Azurite]:
    if azurite_command() is None:
        pytest.skip("needs azurite: scripts/test_servers.sh installs it")
    with azurite() as server:
        yield server


@pytest.fixture
def azurite_container(azurite_server: Azurite) -> str:
    """A new, empty container of it."""
    name = f"c{uuid.uuid4().hex}"
    azurite_server.make_container(name)
    return name
