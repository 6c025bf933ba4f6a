"""Azurite, the emulator of Azure Blob Storage, on a free port of the loopback address.

``scripts/test_servers.sh`` brings it. It keeps everything in memory, and is gone with its process. It has neither
versions nor immutability policies (it answers 501): see ``azure_versions`` for those.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chrono_backups.storage.settings import AzureBlobSettings
from chrono_backups_tests.servers.ports import free_port

_CHECKOUT = Path(__file__).resolve().parents[2]
_INSTALLED = _CHECKOUT / ".cache/azurite/node_modules/azurite/dist/src/blob/main.js"
_PATIENCE = 120.0
ACCOUNT = "testaccount"


def azurite_command() -> list[str] | None:
    """How it is started, or None where the machine lacks it."""
    node, found = shutil.which("node"), shutil.which("azurite-blob")
    if node is not None and _INSTALLED.exists():
        return [node, str(_INSTALLED)]
    return None if found is None else [found]


@dataclass(frozen=True)
class Azurite:
    """A running one. ``port`` may be a proxy's in front of it: ``settings`` takes another."""

    port: int
    key: str = field(repr=False)

    def url(self, port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.port}/{ACCOUNT}"

    def settings(self, container: str, *, port: int | None = None, **more: Any) -> AzureBlobSettings:
        """The storage's settings for a container of it."""
        given = {"enabled": True, "account_name": ACCOUNT, "account_key": self.key, "endpoint_url": self.url(port)}
        return AzureBlobSettings.model_validate({**given, "container_name": container, **more})

    def make_container(self, name: str) -> None:
        """A new, empty container."""
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient(self.url(), credential=self.credential()) as client:
            client.create_container(name)

    def credential(self) -> Any:
        """For a client of Azure's own."""
        from azure.core.credentials import AzureNamedKeyCredential

        return AzureNamedKeyCredential(ACCOUNT, self.key)


@contextmanager
def azurite() -> Iterator[Azurite]:
    """A server of one account."""
    command = azurite_command()
    assert command is not None, "needs azurite"
    key = base64.b64encode(os.urandom(64)).decode()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="azurite-") as home:
        log = Path(home, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--skipApiVersionCheck",
                 "--disableTelemetry"],
                env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"},
                cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_until_it_answers(process, port, log)
            yield Azurite(port, key)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        assert process.poll() is None, f"azurite ended:\n{log.read_text()[-2000:]}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until, f"azurite does not answer:\n{log.read_text()[-2000:]}"
            time.sleep(0.05)
