"""Ports of the loopback address for servers that have to be told one, or that come back on the one they had.

A port that the system chose, and that was let go, is the system's to give again: to another worker of the tests, or to
any connection that goes out meanwhile. So these lie below the range it chooses from. Each process takes blocks of them,
which no other process of the tests has: a block's name is that of an abstract socket, which the kernel lets go with the
process, and a port is given out once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_HOST = "127.0.0.1"
_LOWEST, _HIGHEST = 10_240, 32_767
_BLOCK = 128
_CHOSEN_BY_THE_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: list[socket.socket] = []
_lock = threading.Lock()


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given while this process lives."""
    with _lock:
        return next(_ports)


def _given_out() -> Iterator[int]:
    while True:
        for first in _blocks():
            if _take(first):
                yield from (port for port in range(first, first + _BLOCK) if _is_free(port))
        yield _any()  # all are taken: better one that may be given twice than none


def _blocks() -> range:
    lowest = _HIGHEST + 1
    with suppress(OSError, ValueError, IndexError):
        lowest = int(_CHOSEN_BY_THE_SYSTEM.read_text().split()[0])
    return range(_LOWEST, min(_HIGHEST + 1, lowest) - _BLOCK + 1, _BLOCK)


def _take(first: int) -> bool:
    """Make the block this process's own, unless another one has it."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0chrono_backups_tests.ports.{first}")
    except OSError:
        name.close()
        return False
    _held.append(name)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((_HOST, port))
        return True
    return False


def _any() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


_ports = _given_out()
