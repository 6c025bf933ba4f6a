"""A server that accepts every connection and never answers::

with SilentServer() as server:
    connect(server.port)
"""

from __future__ import annotations

import socket
import threading


class SilentServer:
    """Listens on a free port of the loopback interface; what it accepted it keeps open until the end."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listening.getsockname()[1]
        self._held: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many were made."""
        return len(self._held)

    def __enter__(self) -> SilentServer:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        for one in self._held:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                self._held.append(self._listening.accept()[0])
            except OSError:
                return
