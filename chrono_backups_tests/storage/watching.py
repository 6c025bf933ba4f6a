"""Watching a local storage in tests, and having calls fail."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def everything_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def fail_with(number: int) -> Callable[..., Any]:
    def fail(*_args: object, **_options: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def folders_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders read from now on."""
    read: list[str] = []
    real = os.scandir

    def scandir(path: str) -> Any:
        read.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return read


def in_child(run: Callable[[Any], None], *, uid: int | None = None) -> str:
    """What ``run`` sends from a forked process, as that user; "" if it sends nothing."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def main() -> None:
        if uid is not None:
            os.setgid(uid)
            os.setuid(uid)
        run(sender)

    child = context.Process(target=main)
    child.start()
    sender.close()
    try:
        return str(receiver.recv())
    except EOFError:
        return ""
    finally:
        child.join()
