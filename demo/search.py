"""The demo's Meilisearch: the tests' own server, which stands in for a real one, as a process of its own."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from chrono_backups_tests.servers.meilisearch import program
from demo.database import free_port
from demo.served import CHECKOUT

_PATIENCE = 60.0


class SearchFailed(Exception):
    """The server did not start, or did not do what it was asked."""


class Search:
    """A server with a master key, empty; a context."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.key = secrets.token_urlsafe(18)
        self.place = Path(tempfile.mkdtemp(prefix="chrono-demo-search-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Search":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and remove what it left."""
        if self._process is not None:
            self._process.kill()  # it holds nothing that is to outlive it
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def settings(self) -> dict[str, str]:
        """How the product is told to reach it, and the program that a drill starts."""
        return {
            "BACKUP_MEILISEARCH_HOST": self.url,
            "BACKUP_MEILISEARCH_MASTER_KEY": self.key,
            "BACKUP_MEILISEARCH_BIN": str(program(self.place)),
        }

    def add(self, index: str, documents: Sequence[Mapping[str, Any]], *, wait: bool = False) -> None:
        """Add documents, whose key is ``id``. With ``wait``, until they are there."""
        task = self._ask("POST", f"/indexes/{index}/documents?primaryKey=id", documents)["taskUid"]
        until = time.monotonic() + _PATIENCE
        while wait:
            status = self._ask("GET", f"/tasks/{task}")["status"]
            if status == "succeeded":
                return
            if status in {"failed", "canceled"} or time.monotonic() > until:
                raise SearchFailed(f"documents for {index} were not added: the task is {status}")
            time.sleep(0.05)

    def _start(self) -> None:
        log = self.place / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # it ends with its standard input, so with us whatever comes
                [sys.executable, "-m", "chrono_backups_tests.servers.meilisearch", "--port", self.url.split(":")[-1]],
                cwd=CHECKOUT, env={**os.environ, "MEILI_MASTER_KEY": self.key},
                stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._ask("GET", "/version")
                return
            except SearchFailed as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = log.read_text(errors="replace")[-2000:]
                    raise SearchFailed(f"the stand-in for Meilisearch does not answer: {error}\n{said}") from error
                time.sleep(0.1)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise SearchFailed(f"{method} {path}: {error.read().decode(errors='replace')}") from error
        except OSError as error:
            raise SearchFailed(f"{method} {path}: {error}") from error
