"""Cron expressions, read strictly, so that a wrong one is found when settings load.

Five fields (minute, hour, day of the month, month, day of the week) of ``*``, numbers, names
(``JAN``, ``MON``), ranges, steps and lists, or a shorthand as ``@daily``. All of it is a part of
what Dagster's own parser takes, and no more: what is left out (``L``, ``#``, ``?``, seconds, ranges
that run backwards) differs between cron's many readers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORTHANDS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Days of each month in its longest year."""

_ITEM = re.compile(
    r"(?:(?P<all>\*)|(?P<low>[0-9]{1,2}|[A-Z]{3})(?:-(?P<high>[0-9]{1,2}|[A-Z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?"
)


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def values(self, text: str) -> set[int]:
        return set().union(*(self._item(item, text) for item in text.upper().split(",")))

    def _item(self, item: str, text: str) -> set[int]:
        match = _ITEM.fullmatch(item)
        if match is None:
            raise self._wrong(text)
        step = int(match["step"] or 1)
        if match["all"]:
            low, high = self.low, self.high
        else:
            low = self._number(match["low"], text)
            high = self._number(match["high"], text) if match["high"] else (self.high if match["step"] else low)
        if low > high or not 1 <= step <= self.high:
            raise self._wrong(text)
        return set(range(low, high + 1, step))

    def _number(self, word: str, text: str) -> int:
        if word in self.names:
            return self.names.index(word) + self.low
        if not word.isdigit() or not self.low <= int(word) <= self.high:
            raise self._wrong(text)
        return int(word)

    def _wrong(self, text: str) -> ValueError:
        names = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        allowed = f"{self.low}-{self.high}{names}, *, rising ranges, steps and lists"
        return ValueError(f"in the field {self.name}: {allowed}, not '{text}'")


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),
)


EVERY_DAY = frozenset(range(1, 32))
EVERY_WEEKDAY = frozenset(range(7))


@dataclass(frozen=True)
class Times:
    """What an expression names. Sunday is 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]


_SPELT_OUT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def times_of(text: str) -> Times:
    """What an expression that ``check_cron`` accepts names. ``ValueError`` for another one."""
    words = _SPELT_OUT.get(text, text).split()
    minutes, hours, days, months, weekdays = (
        frozenset(field.values(word)) for field, word in zip(_FIELDS, words, strict=True)
    )
    return Times(minutes, hours, days, months, frozenset(day % 7 for day in weekdays))


def check_cron(text: str) -> str:
    """``text`` with single spaces. ``ValueError`` says what is accepted and names the wrong field."""
    if text.startswith("@"):
        if text not in SHORTHANDS:
            raise ValueError(f"a shorthand of {', '.join(SHORTHANDS)}, or five fields")
        return text
    words = text.split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"five fields: {', '.join(field.name for field in _FIELDS)}; not {len(words)}")
    values = [field.values(word) for field, word in zip(_FIELDS, words, strict=True)]
    if min(values[2]) > max(_LONGEST[month - 1] for month in values[3]):
        raise ValueError(f"a day of the month that the month has, not day '{words[2]}' of month '{words[3]}'")
    return " ".join(words)
