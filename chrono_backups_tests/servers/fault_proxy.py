"""A proxy that misbehaves as scripted, in front of any server on this machine::

    with FaultProxy(server.port) as proxy:
        proxy.latency = 0.05                                   # seconds a round trip takes longer
        proxy.script(Answer(503, retry_after=2), Reset(method="PUT", after=1000))
        client = connect("127.0.0.1", proxy.port)
        …
        assert proxy.count("PUT") == 2

A fault strikes the next request that it matches (``method``, and ``path``, a regular expression searched for in the
request's target), once or ``times`` times, after it let ``skip`` of them pass; of several the first of the script. With
``http=False`` nothing is looked into: a connection counts as one request whose bodies are all it carries. Leaving the
context raises ``AssertionError`` for faults that never came about, because then the test did not prove what it says.

``python -m chrono_backups_tests.servers.fault_proxy PORT LATENCY`` is the proxy as a process of its own, without faults
and looking into nothing: it prints its port and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from chrono_backups_tests.servers.faults import (
    Answer,
    Corrupt,
    Direction,
    Fault,
    LoseAnswer,
    Refuse,
    Request,
    Reset,
    Slow,
    Stall,
    Truncate,
)
from chrono_backups_tests.servers.http_messages import Head, read_body, until_end
from chrono_backups_tests.servers.ports import free_port

_HOST = "127.0.0.1"
_SLOW_PIECE = 2**12
_WAITING_MOST = 1024
"""Pieces on their way in one direction of a connection: enough for 1 GB/s with 50 ms."""
_PATIENCE = 60.0


class FaultProxy:
    """A proxy on a free port of the loopback interface; a context. Its methods may be called from any thread."""

    def __init__(self, target_port: int, *, http: bool = True, latency: float = 0.0) -> None:
        self.latency = latency
        self.requests: list[Request] = []
        self.moved = 0
        """Bytes that were passed on, both ways together."""
        self.port = free_port()  # its own: it has to come back on it
        self._target = target_port
        self._http = http
        self._script: list[tuple[Fault, list[int]]] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self._open_door = threading.Event()
        self._refused_by_fault = False
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if kind is None and self.unreached:
            raise AssertionError(f"faults never reached: {self.unreached}; requests were: {self.requests}")

    def script(self, *faults: Fault) -> None:
        """Add faults behind those that have not come about yet."""
        with self._lock:
            self._script += [(fault, [fault.skip, fault.times]) for fault in faults]

    def clear(self) -> None:
        """Forget the faults that are left and the requests that came."""
        with self._lock:
            self._script.clear()
            self.requests.clear()

    @property
    def unreached(self) -> list[Fault]:
        """The faults that have not come about as often as they should."""
        with self._lock:
            return [fault for fault, (_, times) in self._script if times > 0]

    def count(self, method: str = "", path: str = "") -> int:
        """How many such requests came."""
        with self._lock:
            return sum(method in ("", one.method) and re.search(path, one.target) is not None for one in self.requests)

    def drop(self) -> None:
        """Reset every connection there is."""
        self._run(self._reset_all())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Reset every connection, and refuse new ones within the context."""
        self._run(self._close())
        try:
            yield
        finally:
            self._run(self._listen())

    def wait_open(self) -> None:
        """Until connections can be made."""
        assert self._open_door.wait(_PATIENCE), "it stays closed"

    def wait_reopened(self) -> None:
        """Until a fault that refuses connections is over; nothing where ``refusing`` does."""
        if self._refused_by_fault:
            self.wait_open()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(_PATIENCE)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, _HOST, self.port, limit=2**18, reuse_address=True)
        self._open_door.set()

    async def _close(self) -> None:
        self._open_door.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._reset_all()

    async def _end(self) -> None:
        await self._close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the proxy at the latest."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        server: asyncio.StreamWriter | None = None
        try:
            if self.latency:
                await asyncio.sleep(self.latency)  # the handshake's round trip
            from_server, server = await asyncio.open_connection(_HOST, self._target, limit=2**18)
            self._open.add(server)
            for each in (writer, server):
                each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, reader, _Wire(self, writer), from_server, _Wire(self, server))
            await (connection.serve_http() if self._http else connection.serve_raw())
        except _Struck:
            for one in (writer, server):
                if one is not None:
                    _reset(one)
        except (OSError, EOFError):  # either side went away: so does the other
            pass
        finally:
            for one in (writer, server):
                if one is not None:
                    self._open.discard(one)
                    one.close()

    def due(self, request: Request) -> Fault | None:
        """Note a request; the fault that strikes it."""
        with self._lock:
            self.requests.append(request)
            for fault, left in self._script:
                if (
                    left[1] <= 0
                    or fault.method not in ("", request.method)
                    or not re.search(fault.path, request.target)
                ):
                    continue
                if left[0] > 0:
                    left[0] -= 1
                    continue
                left[1] -= 1
                return fault
        return None

    def refuse_for(self, seconds: float) -> None:
        """Close the door and open it again later."""

        async def closed() -> None:
            await self._close()
            await asyncio.sleep(seconds)
            await self._listen()
            self._refused_by_fault = False

        self._refused_by_fault = True
        self.spawn(closed())


class _Struck(Exception):
    """The fault's end of a connection: both sides are reset."""


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Wire:
    """One direction of a connection: what is sent arrives half a round trip later, at full bandwidth."""

    def __init__(self, proxy: FaultProxy, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writer = writer
        self._under_way: asyncio.Queue[tuple[float, bytes]] | None = None

    async def send(self, data: bytes) -> None:
        delay = self._proxy.latency / 2
        self._proxy.moved += len(data)
        if self._under_way is None:
            if not delay:
                self._writer.write(data)
                await self._writer.drain()
                return
            self._under_way = asyncio.Queue(_WAITING_MOST)
            self._proxy.spawn(self._deliver(self._under_way))
        await self._under_way.put((asyncio.get_running_loop().time() + delay, data))

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await under_way.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            with suppress(OSError):
                self._writer.write(data)
                await self._writer.drain()
            under_way.task_done()

    async def arrived(self) -> None:
        """All that was sent is there."""
        if self._under_way is not None:
            await self._under_way.join()

    async def end(self) -> None:
        """Say that nothing more comes."""
        await self.arrived()
        with suppress(OSError, RuntimeError):
            self._writer.write_eof()


class _Connection:
    """A client's connection and the one to the server that stands for it."""

    def __init__(
        self,
        proxy: FaultProxy,
        from_client: asyncio.StreamReader,
        to_client: _Wire,
        from_server: asyncio.StreamReader,
        to_server: _Wire,
    ) -> None:
        self._proxy = proxy
        self._from_client = from_client
        self._to_client = to_client
        self._from_server = from_server
        self._to_server = to_server
        self._continued = False

    async def serve_raw(self) -> None:
        fault = self._proxy.due(Request("", ""))
        if isinstance(fault, Refuse | LoseAnswer):
            self._refuse(fault)
        up = self._carry(until_end(self._from_client), self._to_server, fault, "up")
        down = self._carry(until_end(self._from_server), self._to_client, fault, "down")
        await _both(self._to_the_end(up, self._to_server), self._to_the_end(down, self._to_client))

    @staticmethod
    async def _to_the_end(carried: Coroutine[Any, Any, None], wire: _Wire) -> None:
        await carried
        await wire.end()

    async def serve_http(self) -> None:
        while True:
            try:
                head = Head(await self._from_client.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                return  # the client is done
            method, target, _ = head.first.split(" ", 2)
            fault = self._proxy.due(Request(method, target))
            if isinstance(fault, Refuse):
                self._refuse(fault)
            if isinstance(fault, Answer):
                await self._answer(fault, head)
                continue
            self._continued = False
            await self._to_server.send(head.raw)
            sent = self._proxy.spawn(
                self._carry(read_body(self._from_client, head, request=True), self._to_server, fault, "up")
            )
            answered = self._proxy.spawn(self._bring_answer(method, fault))
            try:
                await asyncio.wait((sent, answered), return_when=asyncio.FIRST_COMPLETED)
                if sent.done():
                    sent.result()
                await answered
                # A client that asked first, and was refused, keeps its body.
                if not head.expects or self._continued:
                    await sent
            finally:
                sent.cancel()
                answered.cancel()

    def _refuse(self, fault: Refuse | LoseAnswer) -> None:
        if isinstance(fault, Refuse):
            self._proxy.refuse_for(fault.seconds)
        raise _Struck

    async def _answer(self, fault: Answer, head: Head) -> None:
        if not head.expects:
            async for _ in read_body(self._from_client, head, request=True):
                pass
        lines = [f"HTTP/1.1 {fault.status} Scripted", f"Content-Length: {len(fault.body)}"]
        lines += [f"{name}: {value}" for name, value in fault.headers]
        if fault.retry_after is not None:
            lines.append(f"Retry-After: {fault.retry_after}")
        body = b"" if head.first.startswith("HEAD ") else fault.body
        await self._to_client.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def _bring_answer(self, method: str, fault: Fault | None) -> None:
        while True:
            head = Head(await self._from_server.readuntil(b"\r\n\r\n"))
            status = int(head.first.split()[1])
            if status >= 200:
                break
            self._continued = True
            await self._to_client.send(head.raw)
        bodiless = method == "HEAD" or status in (204, 304)
        if isinstance(fault, LoseAnswer):
            raise _Struck
        if isinstance(fault, Stall) and (fault.direction, fault.after) == ("down", 0):
            await asyncio.sleep(fault.seconds)
        lying = isinstance(fault, Truncate) and fault.lying and not bodiless
        await self._to_client.send(head.with_length(fault.keep) if lying else head.raw)  # type: ignore[union-attr]
        if not bodiless:
            await self._carry(read_body(self._from_server, head, request=False), self._to_client, fault, "down")

    async def _carry(self, pieces: AsyncIterator[bytes], wire: _Wire, fault: Fault | None, way: Direction) -> None:
        """Move a body, as the fault has it."""
        edge = _edge(fault, way)
        passed = 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for piece in pieces:
            data = _corrupted(piece, passed, fault, way)
            if edge is not None and passed + len(data) > edge:
                await wire.send(data[: edge - passed])
                await self._strike(fault, wire)
                data, passed, edge = data[edge - passed :], edge, None
            if isinstance(fault, Slow) and fault.direction == way:
                for start in range(0, len(data), _SLOW_PIECE):
                    await asyncio.sleep((passed + start) / fault.bytes_per_second - (loop.time() - began))
                    await wire.send(data[start : start + _SLOW_PIECE])
            else:
                await wire.send(data)
            passed += len(data)
        if edge is not None and not isinstance(fault, Truncate):
            await self._strike(fault, wire)

    async def _strike(self, fault: Fault | None, wire: _Wire) -> None:
        await wire.arrived()
        if isinstance(fault, Stall):
            if fault.after or fault.direction == "up":  # the other one was before the answer's head
                await asyncio.sleep(fault.seconds)
        elif isinstance(fault, Truncate):
            if not fault.lying:
                await wire.end()
            raise EOFError("cut") from None
        else:
            raise _Struck


def _edge(fault: Fault | None, way: Direction) -> int | None:
    """After how many bytes that way the fault strikes."""
    if isinstance(fault, Truncate):
        return fault.keep if way == "down" else None
    if isinstance(fault, Reset | Stall) and fault.direction == way:
        return fault.after
    return None


def _corrupted(piece: bytes, passed: int, fault: Fault | None, way: Direction) -> bytes:
    if not isinstance(fault, Corrupt) or fault.direction != way or not 0 <= fault.position - passed < len(piece):
        return piece
    changed = bytearray(piece)
    changed[fault.position - passed] ^= fault.mask
    return bytes(changed)


async def _both(*works: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def main(arguments: list[str], ready: Callable[[int], None]) -> None:
    """The proxy as a process of its own."""
    with FaultProxy(int(arguments[0]), http=False, latency=float(arguments[1])) as proxy:
        ready(proxy.port)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:], lambda port: print(port, flush=True))  # noqa: T201
