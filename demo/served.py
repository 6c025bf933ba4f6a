"""Dagster's webserver and daemon as an operator runs them, and what the UI asks of them, over GraphQL.

Both are subprocesses in a session of their own, so that all they start ends with them.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

CHECKOUT = Path(__file__).resolve().parent.parent
LOCATION = {"repositoryLocationName": "chrono_backups", "repositoryName": "__repository__"}
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_SECONDS_TO_LOAD, _SECONDS_OF_A_RUN, _SECONDS_TO_END = 180, 300, 30
_HIGHEST_PORT = 65535

T = TypeVar("T")


class ServedFailed(Exception):
    """Dagster did not start, did not answer, or a run did not end as it should; says where to look."""


def free_port(wanted: int) -> int:
    """``wanted``, or the next port of 127.0.0.1 that nobody listens on; for 0 any."""
    for port in range(wanted, _HIGHEST_PORT + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServedFailed(f"no port is free from {wanted} on")


class Served:
    """A context: inside it the UI answers at ``url``, schedules and sensors are evaluated, and runs are started.

    ``working`` is where the code location starts, and so where it looks for ``.env``.
    """

    def __init__(self, home: Path, working: Path, environment: Mapping[str, str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._home = home
        self._working = working
        # Code servers talk over sockets in the temporary directory, and a path of a socket has to be short.
        self._temporary = tempfile.TemporaryDirectory(prefix="dagster-", ignore_cleanup_errors=True)
        Path(self._temporary.name).chmod(0o711)  # a drill's server, which is not root, has its socket below
        self._environment = {**environment, "DAGSTER_HOME": str(home), "TMPDIR": self._temporary.name}
        self._port = port
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._words: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> "Served":
        self._home.mkdir()
        shutil.copy(CHECKOUT / "dagster.yaml", self._home)
        workspace = ("--workspace", str(CHECKOUT / "workspace.yaml"))
        try:
            self._start(
                "dagster-webserver", *workspace, "--host", "127.0.0.1", "--port", str(self._port),
                "--log-level", "warning",
            )  # fmt: skip
            # One after the other: both set up the history's SQLite files where there are none.
            self.until(self._loaded, "its code location", _SECONDS_TO_LOAD)
            self._start("dagster-daemon", "run", *workspace, "--log-level", "warning")
            self.until(self._healthy, "its daemon", _SECONDS_TO_LOAD)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self, program: str, *words: str) -> None:
        self._words[program] = words
        with (self._home / f"{program}.log").open("wb") as log:
            self._processes[program] = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *words],
                cwd=self._working,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _stop(self) -> None:
        """The daemon first, so that it starts nothing more; what does not end in time is killed."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # nothing it started is left
                continue
        self._temporary.cleanup()

    def kill(self, program: str) -> None:
        """End one of the two, and all that it started, without a warning."""
        process = self._processes[program]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def restart(self, program: str) -> None:
        """Start one that was killed, and wait until it is well."""
        self._start(program, *self._words[program])
        self.until(self._healthy, program, _SECONDS_TO_LOAD)

    def check(self) -> None:
        """Raise where one of the processes has ended."""
        for program, process in self._processes.items():
            if process.poll() is not None:
                log = self._home / f"{program}.log"
                last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise ServedFailed(f"{program} ended with exit code {process.returncode}; {log} ends:\n{last}")

    def until(self, answer: Callable[[], T], what: str, seconds: float) -> T:
        """The first true answer."""
        deadline = time.monotonic() + seconds
        while not (found := answer()):
            self.check()
            if time.monotonic() > deadline:
                raise ServedFailed(f"Dagster: waited {seconds:.0f} s for {what}; its logs are in {self._home}")
            time.sleep(0.2)
        return found

    def _loaded(self) -> bool:
        try:
            found = self.ask("""{ workspaceOrError { ... on Workspace { locationEntries { loadStatus
                locationOrLoadError { ... on PythonError { message } } } } } }""")
        except OSError:  # not listening yet
            return False
        entries = found["workspaceOrError"]["locationEntries"]
        for entry in entries:
            if message := (entry["locationOrLoadError"] or {}).get("message"):
                raise ServedFailed(f"the code location does not load: {message}")
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def _healthy(self) -> bool:
        found = self.ask("{ instance { daemonHealth { allDaemonStatuses { healthy required } } } }")
        statuses = found["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(one["healthy"] for one in statuses if one["required"])

    def ask(self, query: str, **variables: Any) -> Any:
        """GraphQL, as the UI does it."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ServedFailed(f"Dagster refused a question: {error.read().decode(errors='replace')}") from error
        if found.get("errors"):
            raise ServedFailed(f"Dagster refused a question: {found['errors']}")
        return found["data"]

    def run(
        self, job: str, day: str | None = None, config: Mapping[str, Any] | None = None, storage: str | None = None
    ) -> str:
        """Launch a job, for a day (and a storage) where it has such, and wait until it is done; the run's id."""
        run = self.launch(job, day, config, storage)
        if (status := self.end_of(run)) != "SUCCESS":
            raise ServedFailed(f"{job} ended as {status}: {self.url}/runs/{run}\n{self.failures(run)}")
        return run

    def launch(
        self, job: str, day: str | None = None, config: Mapping[str, Any] | None = None, storage: str | None = None
    ) -> str:
        """Launch a job as the launchpad does. Returns the run's id."""
        tags = {"dagster/partition": day} if day else {}
        if day and storage:
            both = {"dagster/partition/day": day, "dagster/partition/storage": storage}
            tags = {"dagster/partition": f"{day}|{storage}", **both}
        launched = self.ask(
            """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
                __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={
                "selector": {**LOCATION, "jobName": job},
                "runConfigData": dict(config or {}),
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            },
        )["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise ServedFailed(f"{job} could not be launched: {launched}")
        return str(launched["run"]["runId"])

    def end_of(self, run: str, seconds: float = _SECONDS_OF_A_RUN) -> str:
        """How a run ended: SUCCESS, FAILURE or CANCELED. Waits for it."""
        return self.until(lambda: self._ended(run), f"the end of run {run}", seconds)

    def _ended(self, run: str) -> str:
        found = self.ask("query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }", run=run)
        status = str(found["runOrError"]["status"])
        return status if status in _ENDED else ""

    def failures(self, run: str) -> str:
        """What the run's failed steps said."""
        found = self.ask(
            """query($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
                ... on ExecutionStepFailureEvent { error { message } }
                ... on RunFailureEvent { error { message } } } } } } }""",
            run=run,
        )
        events = found["runOrError"]["eventConnection"]["events"]
        return "\n".join(event["error"]["message"] for event in events if event.get("error"))

    def facts(self, run: str) -> dict[str, Any]:
        """The numbers and texts that a run's materialization shows."""
        found = self.ask(
            """query($run: ID!) { runOrError(runId: $run) { ... on Run { assetMaterializations { metadataEntries {
                label ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue }
                ... on TextMetadataEntry { text } ... on BoolMetadataEntry { boolValue } } } } } }""",
            run=run,
        )
        out: dict[str, Any] = {}
        for made in found["runOrError"]["assetMaterializations"]:
            for entry in made["metadataEntries"]:
                values = [value for name, value in entry.items() if name != "label"]
                if values:
                    out[entry["label"]] = values[0]
        return out

    def checks(self, run: str) -> dict[str, bool]:
        """Check name → passed, of a run."""
        found = self.ask(
            """query($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
                ... on AssetCheckEvaluationEvent { evaluation { checkName success } } } } } } }""",
            run=run,
        )
        events = found["runOrError"]["eventConnection"]["events"]
        made = [event["evaluation"] for event in events if event.get("evaluation")]
        return {one["checkName"]: one["success"] for one in made}

    def succeeded(self, asset: str) -> list[str]:
        """The runs that materialized an asset, newest first."""
        found = self.ask(
            """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) {
                ... on Asset { assetMaterializations(limit: 10) { runId } } } }""",
            key={"path": [asset]},
        )
        return [made["runId"] for made in found["assetOrError"].get("assetMaterializations", [])]

    def failed(self) -> list[str]:
        """All runs that failed, newest first."""
        found = self.ask("{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId } } } }")
        return [run["runId"] for run in found["runsOrError"]["results"]]
