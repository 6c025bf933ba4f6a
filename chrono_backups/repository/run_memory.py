"""What a run read once and need not read again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class RunMemory:
    """Remembers for one run at a time: a backup under its lease, whose view of what was stored may stand still.

    What it relies on, prune leaves alone as long as the lease is there (``maintenance/prune.py``).
    """

    def __init__(self) -> None:
        self._run = ""
        self._known: dict[str, Any] = {}

    def begin(self, run: str) -> None:
        """A run begins; a name may come again, when its first backup was given up."""
        self._run, self._known = run, {}

    def know(self, run: str, what: str, known: Any) -> None:
        """Remember something that was not read."""
        if run == self._run:
            self._known[what] = known

    def once(self, run: str, what: str, read: Callable[[], T]) -> T:
        """``read()``, or what it gave to the same run before. Outside of a run (an empty name) it is always read."""
        if not run:
            return read()
        if run != self._run:
            self.begin(run)
        if what not in self._known:
            self._known[what] = read()
        known: T = self._known[what]
        return known
