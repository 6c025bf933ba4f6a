"""The bandwidth of whole runs: three backups at once, as processes, and what of it a proxy sees on the line."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from chrono_backups_tests.cli.conftest import COMMAND, KEY, environment
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY, MotoServer

LIMIT = 40
"""Megabits per second."""
PROCESSES = 3
_SECONDS = 30
_BITS = 8 / 1e6


@pytest.mark.soak
def test_three_backups_together_keep_to_it_over_thirty_seconds(tmp_path: Path) -> None:
    size = int(LIMIT / _BITS * (_SECONDS + 15) / PROCESSES)
    with MotoServer() as moto, FaultProxy(moto.port, http=False) as proxy:
        settings = {
            "BACKUP_AWS_ENABLED": "true",
            "BACKUP_AWS_BUCKET_NAME": moto.make_bucket("bucket"),
            "BACKUP_AWS_REGION": "us-east-1",
            "BACKUP_AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "BACKUP_AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "BACKUP_AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "BACKUP_ENCRYPTION_KEY": KEY,
            "BACKUP_BANDWIDTH_LIMIT_MBPS": str(LIMIT),
            "BACKUP_CACHE_DIR": str(tmp_path / "cache"),
            "BACKUP_FILES_PATHS": "/nowhere",
        }
        subprocess.run([*COMMAND, "init"], env=environment(settings), check=True, capture_output=True)
        began_with = proxy.moved
        runs = []
        for number in range(PROCESSES):
            tree = tmp_path / f"tree-{number}"
            tree.mkdir()
            (tree / "file").write_bytes(os.urandom(size))
            of_its_own = environment({**settings, "BACKUP_FILES_PATHS": str(tree)})
            runs.append(
                subprocess.Popen(
                    [*COMMAND, "backup", "--type", "full"],
                    env=of_its_own,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
        while proxy.moved < began_with + 2_000_000:
            assert all(run.poll() is None for run in runs)
            time.sleep(0.05)
        samples = [(time.monotonic(), proxy.moved)]
        while samples[-1][0] < samples[0][0] + _SECONDS + 5:
            time.sleep(0.05)
            samples.append((time.monotonic(), proxy.moved))
        for run in runs:
            _, told = run.communicate(timeout=120)
            assert run.returncode == 0, told.decode()
    rates = []
    for at, moved in samples:
        later = next(((when, then) for when, then in samples if when >= at + _SECONDS), None)
        if later is not None:
            rates.append((later[1] - moved) * _BITS / (later[0] - at))
    print(f"over {_SECONDS} s, {len(rates)} windows: {min(rates):.2f} to {max(rates):.2f} Mbit/s of {LIMIT}")  # noqa: T201
    assert min(rates) > 0.95 * LIMIT
    assert max(rates) < 1.05 * LIMIT
