"""A real S3 server, where the program of one is found: ``versitygw`` or ``minio``, on the PATH or in ``.cache/bin``.

``scripts/bench_tools.sh`` builds the first of them there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY
from chrono_backups_tests.servers.ports import free_port

_HOST = "127.0.0.1"
_BUILT = Path(__file__).resolve().parents[2] / ".cache" / "bin"
_PATIENCE = 60.0


def program() -> str | None:
    """Where such a program is."""
    built = str(_BUILT)
    found = (shutil.which(name, path=path) for name in ("versitygw", "minio") for path in (None, built))
    return next((one for one in found if one is not None), None)


@contextmanager
def s3_server(path: str, root: Path | None = None) -> Iterator[int]:
    """The program, serving a directory of its own below ``root``; the port. Both are gone afterwards."""
    room = Path(tempfile.mkdtemp(prefix="s3-", dir=root))
    data = room / "data"
    data.mkdir()
    port = free_port()
    address = f"{_HOST}:{port}"
    environment = {
        "HOME": str(room),
        "PATH": os.environ.get("PATH", os.defpath),
        "ROOT_ACCESS_KEY": ACCESS_KEY,
        "ROOT_SECRET_KEY": SECRET_KEY,
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
    }
    if Path(path).name == "minio":
        command = [path, "server", "--quiet", "--address", address, str(data)]
    else:
        versions = room / "versions"
        versions.mkdir()
        store = ["posix", "--versioning-dir", str(versions), str(data)]
        command = [path, "--port", address, "--keep-alive", "--quiet", *store]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(room, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((_HOST, port), timeout=1).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < until, "the S3 server did not start"
            time.sleep(0.05)
        else:
            return
