"""Several looks at once, none of which is waited for longer than a deadline.

Each runs on a daemon thread: nothing can end one that hangs in a system call or a client library, and a daemon thread
keeps no process alive. One that still hangs from an earlier look is not started again, so that a service that looks
every few minutes does not gather threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from chrono_backups.clock import Clock, SystemClock

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came of one look: a value, or an error, or neither where it hangs."""

    value: T | None = None
    error: Exception | None = None
    hangs: bool = False
    seconds: float = 0.0
    """How long it took; of one that hangs, how long it has hung."""


class Bounded:
    """Runs looks, and remembers those that hang."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._hanging: dict[str, tuple[threading.Thread, float]] = {}

    @property
    def hanging(self) -> bool:
        """Whether one has not come back yet."""
        return any(thread.is_alive() for thread, _ in self._hanging.values())

    def run(self, looks: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, Answer[T]]:
        """The answers by name, all of them, after ``seconds`` at the latest."""
        began = self._clock.monotonic()
        answers: dict[str, Answer[T]] = {}
        answered = threading.Condition()

        def ask(name: str, look: Callable[[], T]) -> None:
            try:
                answer = Answer(look())
            except Exception as error:
                answer = Answer(error=error)
            took = self._clock.monotonic() - began
            with answered:
                answers[name] = Answer(answer.value, answer.error, seconds=took)
                answered.notify()

        self._hanging = {name: one for name, one in self._hanging.items() if one[0].is_alive()}
        started = {name: look for name, look in looks.items() if name not in self._hanging}
        for name, look in started.items():
            thread = threading.Thread(target=ask, args=(name, look), name=f"look-{name}", daemon=True)
            self._hanging[name] = thread, began
            thread.start()
        with answered:
            answered.wait_for(lambda: len(answers) == len(started), timeout=seconds)
            found = dict(answers)
        for name in found:
            del self._hanging[name]
        now = self._clock.monotonic()
        for name in looks:
            if name not in found:
                found[name] = Answer(hangs=True, seconds=now - self._hanging[name][1])
        return found
