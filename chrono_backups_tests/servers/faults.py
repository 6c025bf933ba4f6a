"""What the proxy (``fault_proxy.py``) can be told to do to a request, and what it saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["up", "down"]
"""``up`` is towards the server."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What strikes which requests."""

    method: str = ""
    path: str = ""
    skip: int = 0
    times: int = 1


@dataclass(frozen=True)
class Answer(Fault):
    """The proxy answers in the server's place, which hears nothing of it."""

    status: int = 503
    body: bytes = b""
    retry_after: float | str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Refuse(Fault):
    """Every connection is reset, and none can be made for so many seconds: "connection refused"."""

    seconds: float = 0.2


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset after so many bytes of the body in that direction (or at its end)."""

    direction: Direction = "up"
    after: int = 0


@dataclass(frozen=True)
class LoseAnswer(Fault):
    """The server does what it was asked; the connection is reset instead of its answer."""


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing moves for so many seconds after so many bytes of the body; down and 0: no answer begins."""

    seconds: float = 60.0
    direction: Direction = "down"
    after: int = 0


@dataclass(frozen=True)
class Slow(Fault):
    """The body comes no faster than that."""

    bytes_per_second: float = 10_000
    direction: Direction = "down"


@dataclass(frozen=True)
class Corrupt(Fault):
    """The body's byte at that position is another one."""

    direction: Direction = "down"
    position: int = 0
    mask: int = 0x01


@dataclass(frozen=True)
class Truncate(Fault):
    """The answer's connection ends, as if all were well, after so many bytes of the body.

    ``lying``: the answer's ``Content-Length`` says so as well.
    """

    keep: int = 0
    lying: bool = False


@dataclass(frozen=True)
class Request:
    """A request that came to the proxy, struck or not."""

    method: str
    target: str


def busy(status: int = 503, *, retry_after: float | str | None = None, **matching: Any) -> Answer:
    """An overloaded S3 server's answer."""
    return s3_error("SlowDown", status, retry_after=retry_after, **matching)


def s3_error(code: str, status: int = 403, message: str = "scripted", **more: Any) -> Answer:
    """An error as S3 words it: ``ExpiredToken`` (400), ``RequestTimeTooSkewed`` (403), …"""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    headers = (("Content-Type", "application/xml"),)
    return Answer(status=status, body=body, headers=headers, **more)
