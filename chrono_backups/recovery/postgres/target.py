"""What a restored cluster is to be recovered to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from chrono_backups.clock import from_text, to_text
from chrono_backups.errors import UsageError
from chrono_backups.identifiers import lsn_number

Kind = Literal["end", "latest", "time", "lsn", "name"]
Action = Literal["promote", "pause", "shutdown"]
ACTIONS: tuple[Action, ...] = ("promote", "pause", "shutdown")
LATEST = "latest"
TARGETS = ("recovery_target", "recovery_target_time", "recovery_target_lsn", "recovery_target_name",
           "recovery_target_xid")  # fmt: skip
"""The server's settings, of which at most one may have a value."""
_LONGEST_NAME = 63


@dataclass(frozen=True)
class Target:
    """A moment to recover to.

    ``end`` is where the base backup ends: the earliest moment that it can be restored to, and what it was taken for.
    ``latest`` is the end of the archived WAL.
    """

    kind: Kind = "end"
    value: str = ""
    """The LSN or the name."""
    moment: datetime | None = None
    """Of a time; aware."""
    timeline: int | None = None
    """None: the newest one that the target is on."""
    action: Action = "promote"
    exclusive: bool = False
    """Of an LSN: whatever begins there is not replayed any more."""

    def settings(self) -> Mapping[str, str]:
        """As the server's settings; none: all WAL that there is."""
        match self.kind:
            case "end":
                return {"recovery_target": "immediate"}
            case "time":
                assert self.moment is not None
                return {"recovery_target_time": f"{self.moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"}
            case "lsn":
                only_before = {"recovery_target_inclusive": "off"} if self.exclusive else {}
                return {**only_before, "recovery_target_lsn": self.value}
            case "name":
                return {"recovery_target_name": self.value}
            case _:
                return {}

    def reachable_from(self, facts: Mapping[str, Any]) -> bool:
        """Whether it is not before the end of the base backup with these facts."""
        if self.kind == "time":
            assert self.moment is not None
            return from_text(facts["stop_time"]) <= self.moment
        if self.kind == "lsn":
            return lsn_number(facts["end_lsn"]) <= lsn_number(self.value)
        return True

    def __str__(self) -> str:
        match self.kind:
            case "end":
                return "the end of the base backup"
            case "latest":
                return "the end of the stored WAL"
            case "time":
                assert self.moment is not None
                return to_text(self.moment)
            case _:
                return f"{self.kind.upper() if self.kind == 'lsn' else self.kind} {self.value}"


TO_THE_END = Target()


def parse_target(
    time: str | None = None,
    lsn: str | None = None,
    name: str | None = None,
    *,
    timeline: str | None = None,
    action: Action = "promote",
) -> Target:
    """The target that options name, at most one of them. Raises ``UsageError``."""
    given = [one for one in (time, lsn, name) if one is not None]
    if len(given) > 1:
        raise UsageError("a restore has one target", hint="Give one of --target-time, --target-lsn, --target-name.")
    line = None
    if timeline not in (None, LATEST):
        if not timeline.isdigit() or not 0 < int(timeline) < 1 << 32:
            raise UsageError(f"{timeline!r} is no timeline", hint="A timeline is a number, or `latest`.")
        line = int(timeline)
    if time == LATEST:
        return Target("latest", timeline=line, action=action)
    if time is not None:
        return Target("time", moment=_moment(time), timeline=line, action=action)
    if lsn is not None:
        try:
            lsn_number(lsn)
        except ValueError as error:
            raise UsageError(str(error), hint="An LSN is written as 2/A0000158.") from error
        return Target("lsn", lsn.upper(), timeline=line, action=action)
    if name is not None:
        if not name or len(name.encode()) > _LONGEST_NAME or "\0" in name:
            raise UsageError(f"{name!r} is no name of a restore point", hint="It has 1 to 63 bytes.")
        return Target("name", name, timeline=line, action=action)
    return replace(TO_THE_END, timeline=line, action=action)


def _moment(text: str) -> datetime:
    """A time without an offset is UTC, as all times that this program shows."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no time",
            hint="Write it as 2026-01-31T14:30:00Z, with an offset as 2026-01-31T15:30:00+01:00, or `latest`.",
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
