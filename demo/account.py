"""What the demo prints: each step with its number, what it took and what came of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chrono_backups.cli.terminal.quantities import duration

_WIDTH = 72


class Account:
    """Steps, numbered from 1 on, on standard output."""

    def __init__(self, head: str) -> None:
        self._number = 0
        print(head, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """One step; what the block says with the function it is given stands below, a line each."""
        self._number += 1
        lines: list[str] = []
        began = time.monotonic()
        yield lines.append
        took = duration(time.monotonic() - began)
        print(f"\n{self._number:>2}  {title:<{_WIDTH}} {took:>6}")
        for line in lines:
            print(f"    {line}", flush=True)
