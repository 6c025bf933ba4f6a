"""Whether what the stores answer relates as the checks demand."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from chrono_backups.errors import ChronoBackupsError, RestoreError
from chrono_backups.events import Finding
from chrono_backups.recovery.checks.syntax import Asked, Check, Constant, Operand, Query, Relation

Ask = Callable[[Query], object]
"""Asks a running store: a number, a text, bytes, or a list, which stands for how many there are in it.

Raises ``ChronoBackupsError`` where the store refuses."""
Value = Decimal | str
_COMPARE: Mapping[Relation, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_LONGEST_SHOWN = 200


@dataclass(frozen=True)
class CheckResult:
    """What became of one check."""

    name: str
    check: str
    """As it is written."""
    good: bool
    left: str | None
    """The value; None where it could not be had."""
    right: str | None
    problem: str
    """Why it is not good; empty where it is."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "check": self.check,
            "good": self.good,
            "left": self.left,
            "right": self.right,
            "problem": self.problem,
            "seconds": round(self.seconds, 3),
        }

    @property
    def finding(self) -> Finding | None:
        """What is wrong; None where it is good."""
        if self.good:
            return None
        hint = "The parts of this recovery point do not fit together, or the check asks for more than it promises."
        return Finding("drill-check", "error", self.name, f"{self.problem}: {self.check}", hint)


def judge(checks: Sequence[Check], stores: Mapping[Asked, Ask]) -> list[CheckResult]:
    """Ask and compare, check by check. A store that is not there fails its checks."""
    return [_judge(check, stores) for check in checks]


def _judge(check: Check, stores: Mapping[Asked, Ask]) -> CheckResult:
    began = time.monotonic()
    left: Value | None = None
    right: Value | None = None
    problem = ""
    try:
        left = _value(check.left, stores)
        right = _value(check.right, stores)
        if not holds(check, left, right):
            problem = f"{_shown(left)} is not {check.relation_text} {_shown(right)}"
    except ChronoBackupsError as error:
        problem = error.message
    shown_left, shown_right = (None if value is None else _shown(value) for value in (left, right))
    seconds = time.monotonic() - began
    return CheckResult(check.name, str(check), not problem, shown_left, shown_right, problem, seconds)


def _value(operand: Operand, stores: Mapping[Asked, Ask]) -> Value:
    if isinstance(operand, Constant):
        return _number(operand.value)
    if operand.store not in stores:
        raise RestoreError(f"{operand.store} could not be asked, as it was not restored")
    return value_of(stores[operand.store](operand), operand)


def value_of(answer: object, query: Query) -> Value:
    """An answer as a value: whatever reads as a number is one. Raises ``RestoreError`` where there is none."""
    if isinstance(answer, bytes | bytearray):
        answer = bytes(answer).decode("utf-8", "backslashreplace")
    if answer is None:
        raise RestoreError(f"{query} gave nothing")
    if isinstance(answer, list | tuple | set | dict):
        return Decimal(len(answer))
    return _number(int(answer) if isinstance(answer, bool) else answer)


def _number(value: object) -> Value:
    """The value as a number where it reads as one, else as a text."""
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        return str(value)
    return found if found.is_finite() else str(value)


def holds(check: Check, left: Value, right: Value) -> bool:
    """Whether the values relate as the check says. Raises ``RestoreError`` where they can't be compared."""
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        if check.relation == "within":
            allowed = abs(right) * check.tolerance / 100 if check.percent else check.tolerance
            return abs(left - right) <= allowed
        return _COMPARE[check.relation](left, right)
    if check.relation in {"==", "!="}:
        return _COMPARE[check.relation](_text(left), _text(right))
    wrong = left if isinstance(left, str) else right
    raise RestoreError(f"{_shown(wrong)} is no number, and {check.relation_text} compares numbers")


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:f}"


def _shown(value: Value) -> str:
    text = _text(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
