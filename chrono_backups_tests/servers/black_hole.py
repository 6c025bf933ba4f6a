"""A way to a server on this machine that can be made to swallow all, as a broken network does: without a word."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class BlackHole:
    """``swallow``: what is sent arrives nowhere, and nobody is told. ``pass_on``: new connections work again."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._swallowing = threading.Event()
        self._open: list[socket.socket] = []

    def __enter__(self) -> BlackHole:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def swallow(self) -> None:
        self._swallowing.set()

    def pass_on(self) -> None:
        """For connections that are made from now on; older ones stay lost."""
        self._swallowing = threading.Event()

    def lead_to(self, server: int) -> None:
        """Have connections end, and new ones lead to that port."""
        self._server = server
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._server))
            self._open += [near, far]
            lost = self._swallowing
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other, lost), daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not lost.is_set():
                    other.sendall(data)
        if not lost.is_set():
            with suppress(OSError):
                other.shutdown(socket.SHUT_WR)
