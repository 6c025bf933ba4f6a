"""A Dagster as ``make`` serves it, UI, daemon and code server, with a home of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

CHECKOUT = Path(__file__).parents[2]
LOCATION = {"repositoryLocationName": "chrono_backups", "repositoryName": "__repository__"}
T = TypeVar("T")


class Served:
    """A context: inside it the UI answers at ``url``. ``working`` is where ``.env`` is looked for."""

    def __init__(self, working: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = working / "dagster_home"
        self.home.mkdir()
        shutil.copy(CHECKOUT / "dagster.yaml", self.home)
        self.log = working / "dagster.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(Path(sys.executable).with_name("dagster")),
            "dev",
            "--workspace",
            str(CHECKOUT / "workspace.yaml"),
        ]
        command += [
            "--workspace",
            str(CHECKOUT / "workspace.yaml"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--log-level",
            "warning",
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=working,
                env={**os.environ, "DAGSTER_HOME": str(self.home), "PYTHONWARNINGS": "ignore", **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Served":
        try:
            self.until(self._loaded, "the code location to load", 90)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: ours alone
            self._process.wait()

    def _loaded(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            found = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except (urllib.error.URLError, OSError):
            return False
        entries = found["workspaceOrError"]["locationEntries"]
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def until(self, answer: Callable[[], T], what: str, seconds: float = 60) -> T:
        """The first true answer."""
        deadline = time.monotonic() + seconds
        while not (found := answer()):
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}\n{self.log.read_text()}"
            time.sleep(0.3)
        return found

    def ask(self, query: str, **variables: Any) -> Any:
        """GraphQL, as the UI does it."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]

    def launch(self, job: str, day: str | None = None, config: Mapping[str, Any] | None = None) -> str:
        """Launch a job as the launchpad does; the run's id."""
        launched = self.ask(
            """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
                __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={
                "selector": {**LOCATION, "jobName": job},
                "runConfigData": dict(config or {}),
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}] if day else []},
            },
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def status(self, run: str) -> str:
        found = self.ask("query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }", run=run)
        return str(found["runOrError"]["status"])

    def ended(self, run: str, seconds: float = 90) -> str:
        """How a run ended."""
        final = {"SUCCESS", "FAILURE", "CANCELED"}
        return self.until(lambda: (now := self.status(run)) in final and now, f"run {run} to end", seconds) or ""

    def terminate(self, run: str) -> None:
        """Cancel, as the UI's button does."""
        done = self.ask("mutation($run: String!) { terminateRun(runId: $run) { __typename } }", run=run)["terminateRun"]
        assert done["__typename"] == "TerminateRunSuccess", done
