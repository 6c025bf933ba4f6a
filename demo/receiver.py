"""``chrono-backups wal-receive``, the service that stores the database's log within seconds, as an operator runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_SECONDS_TO_END = 30


class ReceiverFailed(Exception):
    """It ended by itself; carries what it said."""


class Receiver:
    """A context: inside it the log is received. ``working`` is where its ``.env`` lies."""

    def __init__(self, working: Path, environment: Mapping[str, str]) -> None:
        self._working = working
        self._environment = environment
        self._log = working / "wal-receive.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Receiver":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("chrono-backups")), "wal-receive"],
                cwd=self._working, env=dict(self._environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def check(self) -> None:
        """Raises ``ReceiverFailed`` where it runs no more."""
        if self._process is None or self._process.poll() is not None:
            said = self._log.read_text(errors="replace")[-2000:]
            raise ReceiverFailed(f"wal-receive ended by itself:\n{said}")
