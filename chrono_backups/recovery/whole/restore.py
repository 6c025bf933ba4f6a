"""Carrying out a whole restore, part after part, with an account at every moment of what is old and what is new.

The order keeps what is lost by stopping least: what overwrites nothing and takes longest comes first, what is swapped
in at one moment last.

1. **postgres**, into a directory beside the running server. It is the part most likely to fail, for want of room, of
   WAL or of a sound object, and where it does nothing has been changed. It takes the old server's place by the
   operator's hand, when all else is there.
2. **configuration**, then **files**: each file is old or new, whatever comes. Rows of the old database find what they
   refer to, as nothing is removed.
3. **meilisearch**: built beside the old indexes, and swapped in at one moment.
4. **redis**: replaced at one moment, within seconds; sessions and queues are the last to go back in time.

All parts are checked before the first is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.whole.parts import Part, PartReport

ORDER: tuple[SourceName, ...] = ("postgres", "configuration", "files", "meilisearch", "redis")
Stage = Literal["waiting", "under way", "restored"]


@dataclass
class PartState:
    """How far one part is."""

    part: Part
    stage: Stage = "waiting"
    report: PartReport | None = None

    @property
    def words(self) -> str:
        """Whether it is old or new."""
        match self.stage:
            case "restored":
                return f"as in {self.part.backup_id}"
            case "under way":
                return self.part.when_stopped
            case _:
                return "as it was" if self.part.overwrites else "not restored"

    def to_json(self) -> dict[str, Any]:
        done = self.report.to_json() if self.report is not None else {"source": self.part.source}
        return {**done, "backup_id": self.part.backup_id, "stage": self.stage, "state": self.words}


class WholeRestore:
    """The parts of one restore. ``check``, take the safety backup, then ``execute``."""

    def __init__(self, parts: Sequence[Part]) -> None:
        ordered = sorted(parts, key=lambda part: ORDER.index(part.source))
        self.states = [PartState(part) for part in ordered]

    @property
    def parts(self) -> list[Part]:
        return [one.part for one in self.states]

    @property
    def overwritten(self) -> list[SourceName]:
        """The sources that a safety backup is to hold."""
        return [source for part in self.parts if part.overwrites for source in part.sources]

    def check(self, listener: Listener) -> None:
        """Raises where one of them would be refused. Changes nothing."""
        for part in self.parts:
            part.check(listener)

    def execute(self, listener: Listener, *, changed: Callable[[], None] = lambda: None) -> None:
        """Carry them out in order. Whatever it raises, ``told`` says what is old and what is new.

        ``changed`` is called whenever a part is begun or has ended.
        """
        for one in self.states:
            one.stage = "under way"
            changed()
            one.report = one.part.execute(listener)
            one.stage = "restored"
            changed()

    def told(self) -> list[tuple[str, str]]:
        """Of each source whether it is old or new, in words."""
        return [(source, one.words) for one in self.states for source in one.part.sources]

    @property
    def findings(self) -> list[Finding]:
        """Of the parts that are restored."""
        return [finding for one in self.states if one.report for finding in one.report.findings]

    @property
    def damaged(self) -> int:
        """Files left out."""
        return sum(one.report.damaged for one in self.states if one.report)

    def to_json(self) -> list[dict[str, Any]]:
        return [one.to_json() for one in self.states]
