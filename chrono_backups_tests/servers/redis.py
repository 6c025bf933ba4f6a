"""Redis servers of the tests' own: Debian's `redis-server`, alone, with TLS, behind Sentinels, as a cluster.

Each works in a temporary directory, listens on a free port of the loopback address, and is gone afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from chrono_backups.sources.settings import RedisSettings
from chrono_backups_tests.servers.ports import free_port

_PATIENCE = 120.0
_QUIET = {
    "bind": "127.0.0.1",
    "save": '""',
    "appendonly": "no",
    "daemonize": "no",
    "repl-diskless-sync-delay": "0",
    "enable-debug-command": "local",
    "databases": "16",
    "loglevel": "notice",
}


def need() -> str:
    """The server's program; the test is skipped without it."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("needs redis-server: make servers")
    return found


def wait(condition: Any, what: str, patience: float = _PATIENCE) -> None:
    """Until ``condition()`` is true."""
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(0.02)


class RedisServer:
    """One server. ``home`` is where it works."""

    def __init__(self, home: Path, config: dict[str, str] | None = None, *, lines: str = "", mode: str = "") -> None:
        """``lines``: of its configuration, as they are. ``mode``: such as ``--sentinel``."""
        self.program = need()
        self.home = home
        self.port = free_port()
        self.config = {**_QUIET, "port": str(self.port), "dir": str(home), **(config or {})}
        if mode == "--sentinel":
            self.config = {name: self.config[name] for name in ("bind", "port", "dir")}
        self.lines = lines
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home / "server.log"
        home.mkdir(parents=True, exist_ok=True)

    def start(self, *, ready: bool = True) -> RedisServer:
        lines = "".join(f"{name} {value}\n" for name, value in self.config.items())
        (self.home / "redis.conf").write_text(lines + self.lines)
        command = [self.program, str(self.home / "redis.conf"), *([self._mode] if self._mode else [])]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Until it answers, with its data loaded."""

        def answers() -> bool:
            assert self.running, f"the server ended:\n{self.log.read_text()[-3000:]}"
            try:
                return bool(self.client().ping())
            except redis.AuthenticationError:
                return True
            except (redis.ConnectionError, redis.ResponseError):
                return False

        wait(answers, "a server that answers")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """At once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """A client of the default user, unless told otherwise."""
        words: dict[str, Any] = {"port": self.port, "db": db, "socket_timeout": 60, "protocol": 2, **options}
        if "tls-port" in self.config:
            words |= {"ssl": True, "ssl_ca_certs": self.config["tls-ca-cert-file"], "port": self.tls_port}
        if "requirepass" in self.config:
            words.setdefault("password", self.config["requirepass"].strip('"'))
        return redis.Redis(host="127.0.0.1", **words)

    @property
    def tls_port(self) -> int:
        return int(self.config.get("tls-port", "0"))

    def digest(self) -> str:
        """Of all content, whatever the order in which it lies."""
        return str(self.client().execute_command("DEBUG", "DIGEST"), "ascii")

    def settings(self, **more: Any) -> RedisSettings:
        """How the source reaches it."""
        words: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
        if "requirepass" in self.config:
            words["password"] = self.config["requirepass"].strip('"')
        return RedisSettings(**(words | more))


@contextmanager
def redis_home() -> Iterator[Path]:
    """A temporary folder."""
    home = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def redis_server(config: dict[str, str] | None = None, *, lines: str = "") -> Iterator[RedisServer]:
    """A fresh server that runs."""
    with redis_home() as home:
        server = RedisServer(home, config, lines=lines)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def redis_cluster(masters: int = 3) -> Iterator[list[RedisServer]]:
    """A cluster whose slots are served evenly."""
    with redis_home() as home, ExitStack() as stack:
        found = []
        for number in range(masters):
            server = RedisServer(home / str(number), {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf"})
            server.config["cluster-port"] = str(free_port())
            stack.callback(server.stop)
            server.start()
            found.append(server)
        slots = [16384 * number // masters for number in range(masters + 1)]
        for number, server in enumerate(found):
            server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", slots[number], slots[number + 1] - 1)
            server.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in found[1:]:
            bus = server.config["cluster-port"]
            found[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        for server in found:
            wait(lambda one=server: _sees_all(one, masters), "a cluster that is whole")
        yield found


def _sees_all(server: RedisServer, masters: int) -> bool:
    state = server.client().execute_command("CLUSTER INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_size"] == str(masters))


@contextmanager
def sentinels(master: RedisServer, count: int = 1, name: str = "mymaster") -> Iterator[list[RedisServer]]:
    """Sentinels that watch ``master``."""
    with redis_home() as home, ExitStack() as stack:
        found = []
        for number in range(count):
            lines = f"sentinel monitor {name} 127.0.0.1 {master.port} 1\n"
            if "requirepass" in master.config:
                lines += f"sentinel auth-pass {name} {master.config['requirepass']}\n"
            one = RedisServer(home / str(number), lines=lines, mode="--sentinel")
            stack.callback(one.stop)
            found.append(one.start())
        yield found


def certificates(home: Path) -> dict[str, Path]:
    """An authority and a certificate for 127.0.0.1, made by openssl: ``ca``, ``cert``, ``key``."""
    home.mkdir(parents=True, exist_ok=True)
    files = {name: home / f"{name}.pem" for name in ("ca", "ca-key", "cert", "key", "request")}
    extensions = home / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n")

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", files["ca-key"], "-out", files["ca"], "-subj", "/CN=tests", "-days", 2)
    openssl("req", *curve, "-keyout", files["key"], "-out", files["request"], "-subj", "/CN=redis")
    openssl(
        "x509", "-req", "-in", files["request"], "-CA", files["ca"], "-CAkey", files["ca-key"], "-CAcreateserial",
        "-out", files["cert"], "-days", 2, "-extfile", extensions,
    )  # fmt: skip
    return files


def fill(server: RedisServer, *, databases: tuple[int, ...] = (0, 3, 15), rich: bool = True) -> None:
    """Keys of every type and encoding, with and without times, in several databases; and a library of functions."""
    noise = bytes(range(256))
    for db in databases:
        client = server.client(db)
        pipe = client.pipeline(transaction=False)
        for number in range(60):
            pipe.set(f"text:{number}", f"{db} some words " * (number % 30 + 1))
            pipe.set(f"number:{number}", (number - 30) * 10 ** (number % 12))
            pipe.set(f"noise:{number}", noise[number:] * (number % 3), px=10**10 + number if number % 2 else None)
            pipe.rpush(f"list:{number}", *[noise[: at % 40] for at in range(3 + number * 5)], 1, -7, 300, 2**40)
            pipe.sadd(f"numbers:{number}", *range(number + 1), 2**33 if number % 3 else 7)
            pipe.sadd(f"words:{number}", *[f"member {at}" for at in range(1 + number * 5)])
            pipe.hset(f"hash:{number}", mapping={f"field {at}": noise[:at] for at in range(1 + number * 3)})
            pipe.zadd(f"scores:{number}", {f"m{at}": at * 0.25 - 3 for at in range(1 + number * 4)})
            pipe.zadd(f"ends:{number}", {"least": "-inf", "most": "+inf", "some": number})
        if rich:
            pipe.set("large", noise * 8000)
            pipe.hset("large hash", mapping={f"f{at}": noise[: at % 90] for at in range(30_000)})
            pipe.zadd("large scores", {f"m{at}": at / 7 for at in range(5_000)})
            pipe.rpush("large list", *[noise * 8 for _ in range(800)])
        pipe.set(b"odd \x00\xff{key}", b"")
        pipe.set("k" * 300, "long key")
        for at in range(300):
            pipe.xadd("stream", {"n": at, "words": "x" * (at % 9)}, id=f"{at + 1}-1")
        pipe.xgroup_create("stream", "readers", "0")
        pipe.xgroup_create("stream", "idle", "$")
        pipe.xreadgroup("readers", "one", {"stream": ">"}, count=40)
        pipe.xack("stream", "readers", "1-1", "2-1")
        pipe.xdel("stream", "3-1", "4-1")
        pipe.execute()
    library = "#!lua name=tests\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)"
    server.client().function_load(library, replace=True)
