"""A server of the tests' own that speaks Meilisearch's HTTP contract of 1.16, as no real one can be installed here.

::

    with MeilisearchServer(master_key="…") as server:
        server.fill("movies", documents, primary_key="id")
        …
        server.engine.task_faults.append(TaskFault("documentAdditionOrUpdate", "internal"))

It is held to what ``meilisearch_contract.py`` says. Requests are faulted by ``fault_proxy.py`` in front of it.

``python -m chrono_backups_tests.servers.meilisearch --port 7700`` is the server as a program: it prints its address and
ends with its standard input or by a signal. ``--generate movies:1000000`` fills an index before it answers. It takes a
real one's ``MEILI_MASTER_KEY`` and, as in drills (``program``), its options.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from chrono_backups_tests.servers.meilisearch_contract import PAYLOAD_LIMIT, VERSION, error_type
from chrono_backups_tests.servers.meilisearch_engine import Engine, Index, TaskFault
from chrono_backups_tests.servers.meilisearch_generated import document, documents
from chrono_backups_tests.servers.meilisearch_routes import Request, answer

__all__ = ["MeilisearchServer", "TaskFault", "program"]


class MeilisearchServer:
    """The server, on a free port of the loopback interface; a context."""

    def __init__(
        self,
        *,
        master_key: str | None = None,
        version: str = VERSION,
        port: int = 0,
        payload_limit: int = PAYLOAD_LIMIT,
    ) -> None:
        self.engine = Engine(version=version, master_key=master_key)
        self.payload_limit = payload_limit
        self.requests: list[tuple[str, str]] = []
        self._server = _Listener(("127.0.0.1", port), type("Handler", (_Handler,), {"server_state": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> MeilisearchServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.engine.paused.clear()
        self.engine.close()
        self._thread.join()

    def fill(self, uid: str, rows: Iterable[dict[str, Any]], *, primary_key: str = "id") -> Index:
        """Documents, without a task."""
        with self.engine.lock:
            index = self.engine.indexes.setdefault(uid, Index(uid, primary_key))
            for row in rows:
                index.add(dict(row))
        return index

    def contents(self) -> dict[str, list[Any]]:
        """All documents by index, vectors with them, in no order."""
        with self.engine.lock:
            return {
                uid: sorted((json.loads(row) for row in index.page(0, 10**9, vectors=True)), key=str)
                for uid, index in self.engine.indexes.items()
            }


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, _request: Any, _address: Any) -> None:
        """A client that went away is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: MeilisearchServer
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def _handle(self) -> None:
        state = self.server_state
        length = int(self.headers.get("Content-Length") or 0)
        if length > state.payload_limit:
            for _ in range(0, length, 1 << 20):
                self.rfile.read(min(1 << 20, length))
                length -= 1 << 20
            code = "payload_too_large"
            message = f"The provided payload reached the size limit of {state.payload_limit} bytes."
            self._send(413, json.dumps({"message": message, "code": code, "type": error_type(code)}).encode())
            return
        body = self.rfile.read(length)
        target = urlsplit(self.path)
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        state.requests.append((self.command, self.path))
        request = Request(
            state.engine,
            self.command,
            unquote(target.path).rstrip("/") or "/",
            dict(parse_qsl(target.query)),
            body,
            self.headers.get("Content-Type", "").partition(";")[0],
            token if scheme == "Bearer" and token else None,
        )
        self._send(*answer(request))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 503:
            self.send_header("Retry-After", "10")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle


def program(folder: Path, *words: str) -> Path:
    """A program in that folder that takes a real server's place, for ``BACKUP_MEILISEARCH_BIN``."""
    place = folder / "meilisearch"
    command = shlex.join([sys.executable, "-m", "chrono_backups_tests.servers.meilisearch", *words])
    root = Path(__file__).resolve().parents[2]
    place.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(root))} exec {command} "$@"\n', encoding="utf-8")
    place.chmod(0o700)
    return place


def main() -> None:
    """The server as a program."""
    parser = argparse.ArgumentParser(prog="python -m chrono_backups_tests.servers.meilisearch")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--master-key", default=os.environ.get("MEILI_MASTER_KEY"))
    parser.add_argument("--version", default=VERSION)
    parser.add_argument("--generate", default="", metavar="INDEX:COUNT")
    parser.add_argument("--spoil", type=json.loads, metavar="KEY", help="have the document of that key come out wrong")
    parser.add_argument("--swallow", action="store_true", help="count documents that are added, and don't keep them")
    parser.add_argument("--http-addr", default="", metavar="HOST:PORT", help="as a real one takes it, without input")
    for ignored in ("--db-path", "--dump-dir", "--snapshot-dir", "--env"):
        parser.add_argument(ignored, help="as a real one takes it; everything is kept in memory")
    parser.add_argument("--no-analytics", action="store_true", help="as a real one takes it")
    arguments = parser.parse_args()
    port = int(arguments.http_addr.rpartition(":")[2] or arguments.port)
    with MeilisearchServer(master_key=arguments.master_key, version=arguments.version, port=port) as server:
        server.engine.spoilt, server.engine.swallows = arguments.spoil, arguments.swallow
        uid, _, count = arguments.generate.partition(":")
        if uid:
            generate(server, uid, int(count))
        _say(server.url)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if not arguments.http_addr:
            threading.Thread(target=_until_input_ends, args=(server, uid, stop), daemon=True).start()
        stop.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def generate(server: MeilisearchServer, uid: str, count: int) -> None:
    """An index of generated documents, as quickly as can be."""
    index = server.engine.indexes[uid] = Index(uid, "id")
    index.rows = list(documents(count))
    index.places = {number: number for number in range(count)}
    index.fields = {name: place for place, name in enumerate(json.loads(document(0)))}


def _until_input_ends(server: MeilisearchServer, uid: str, stop: threading.Event) -> None:
    """A line ``change N SEED`` changes every N-th generated document."""
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["change"]:
            rows = server.engine.indexes[uid].rows
            every, seed = int(words[1]), int(words[2])
            for number in range(seed % every, len(rows), every):
                rows[number] = document(number, seed)
            _say("changed")
    stop.set()


if __name__ == "__main__":
    main()
