"""Cron expressions: all that is accepted runs, all that is refused is named."""

from __future__ import annotations

import pytest

from chrono_backups.backup.cron import SHORTHANDS, check_cron

GOOD = ("0 2 * * 0", "*/5 0-23/2 1,15,31 JAN-DEC SUN-SAT", "5/15 * * * 7", "0 0 29 2 *", "0 0 31 1,2 *", *SHORTHANDS)

BAD = {
    "minute": ("60 * * * *", "5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "1- * * * *", "-1 * * * *", "١ * * * *"),
    "hour": ("* 24 * * *", "* 1-2-3 * * *"),
    "day of the month": ("* * 0 * *", "* * L * *", "* * ? * *", "0 0 30 FEB *", "0 0 31 4,6 MON"),
    "month": ("* * * 13 *", "* * * MON *"),
    "day of the week": ("* * * * 8", "* * * * MON#2", "* * * * FRI-MON", "* * * * MONDAY"),
    "shorthand": ("@reboot", "@Daily"),
    "five fields": ("", "daily", "0 2 * *", "0 0 * * * *"),
}


@pytest.mark.parametrize("expression", GOOD)
def test_what_is_accepted_dagster_runs(expression: str) -> None:
    schedules = pytest.importorskip("dagster._utils.schedules")
    assert check_cron(f"  {expression}" if not expression.startswith("@") else expression) == expression
    assert schedules.is_valid_cron_string(expression)


@pytest.mark.parametrize(("field", "expression"), [(field, text) for field, texts in BAD.items() for text in texts])
def test_what_is_wrong_is_named(field: str, expression: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{field}\b"):
        check_cron(expression)
