"""Connections to storages that speak HTTP: pooled, and sent through piece by piece.

Imported lazily by the drivers, because ``requests`` takes long to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from chrono_backups.storage.pacing import is_paced, leave, piece

TIMEOUT = (10.0, 60.0)
"""Seconds: for a connection to be made and for each piece of a body to be taken; for an answer to begin and between any
two parts of it."""
POOLED = 32
"""Connections kept open: more than threads of one process ever use at once, so none is made anew."""

CONNECTION_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What comes out of a session, and of reading an answer's body, where the connection fails."""

_PIECE = 256 * 1024


class Body:
    """A request's body: several buffers one after the other, none of them copied.

    Python counts a socket's timeout for the whole of one ``sendall``, so a large body in one piece would have
    to be through in the seconds that are meant for a server that takes nothing at all. ``close`` lets go of the
    buffers, whatever traceback still holds a piece of them. It can be sent again, as after a refreshed login.
    """

    def __init__(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        self._views = [memoryview(buffer) for buffer in buffers]
        self._piece: memoryview | None = None

    def __len__(self) -> int:
        return sum(view.nbytes for view in self._views)

    def __iter__(self) -> Iterator[Any]:  # of what a socket takes, which requests' types are too narrow for
        for view in self._views:
            begin = 0
            while begin < view.nbytes:
                self._let_go()
                self._piece = view[begin : begin + piece(_PIECE)]
                begin += self._piece.nbytes
                leave(self._piece.nbytes)
                yield self._piece

    def close(self) -> None:
        """Release the buffers; the body can't be sent any more."""
        self._let_go()
        for view in self._views:
            view.release()
        self._views = []

    def _let_go(self) -> None:
        if self._piece is not None:
            self._piece.release()
            self._piece = None


class PiecewiseAdapter(HTTPAdapter):
    """Keeps ``POOLED`` connections, repeats nothing by itself, and sends large bodies piece by piece."""

    def __init__(self) -> None:
        super().__init__(pool_connections=4, pool_maxsize=POOLED, max_retries=0)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        body = request.body
        if isinstance(body, bytes) and len(body) > _PIECE:
            streamed: Any = Body([body])  # its length is in the headers already
            request.body = streamed
        answer = super().send(request, *arguments, **options)
        if is_paced():
            _pace(answer.raw)
        return answer


def _pace(raw: Any) -> None:
    """Have what is streamed of an answer, as libraries do, come as fast as it may and no faster."""
    streamed = raw.stream

    def stream(amt: int = _PIECE, **options: Any) -> Iterator[bytes]:
        for part in streamed(piece(amt), **options):
            leave(len(part))
            yield part

    raw.stream = stream


def mount(session: requests.Session) -> None:
    """Let the session keep to this module's promises."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, PiecewiseAdapter())


def new_session() -> requests.Session:
    """A session of its own."""
    session = requests.Session()
    mount(session)
    return session
