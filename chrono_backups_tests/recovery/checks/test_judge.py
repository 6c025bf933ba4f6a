"""What stores answer, compared as the checks say."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from chrono_backups.errors import RestoreError, SourceError
from chrono_backups.recovery.checks.judge import CheckResult, judge
from chrono_backups.recovery.checks.syntax import Query, parse_checks


def result(line: str, answers: Mapping[str, object]) -> CheckResult:
    """The result where each query's text is answered as ``answers`` says."""

    def ask(query: Query) -> object:
        answer = answers[query.text]
        if isinstance(answer, Exception):
            raise answer
        return answer

    (found,) = judge(parse_checks(f"a: {line}"), {"sql": ask, "redis": ask})
    return found


@pytest.mark.parametrize(
    ("line", "answers", "good"),
    [
        ("sql 'x' == redis 'y'", {"x": 5, "y": b"5"}, True),
        ("sql 'x' == redis 'y'", {"x": 5, "y": b"6"}, False),
        ("sql 'x' == redis 'y'", {"x": Decimal("5.0"), "y": 5}, True),
        ("sql 'x' != 5", {"x": 5}, False),
        ("sql 'x' > 4.5", {"x": 5}, True),
        ("sql 'x' >= 5", {"x": 5}, True),
        ("sql 'x' < 5", {"x": 5}, False),
        ("sql 'x' <= 4", {"x": 5}, False),
        ("sql 'x' within 2 of 7", {"x": 5}, True),
        ("sql 'x' within 1 of 7", {"x": 5}, False),
        ("sql 'x' within 10% of 50", {"x": 45}, True),
        ("sql 'x' within 10% of 50", {"x": 44}, False),
        ("sql 'x' == 'a text'", {"x": "a text"}, True),
        ("sql 'x' == 'a text'", {"x": "another"}, False),
        ("sql 'x' == '007'", {"x": b"7"}, True),
        ("sql 'x' == 3", {"x": [b"a", b"b", b"c"]}, True),
        ("sql 'x' == 1", {"x": True}, True),
        ("sql 'x' == 'nan'", {"x": float("nan")}, True),
        ("sql 'x' == 'caf\\xe9'", {"x": b"caf\xe9"}, True),
    ],
)
def test_values_relate(line: str, answers: Mapping[str, object], good: bool) -> None:
    found = result(line, answers)
    assert found.good is good, found.problem
    assert (found.finding is None) is good


@pytest.mark.parametrize(
    ("line", "answers", "said"),
    [
        ("sql 'x' == 5", {"x": None}, 'sql "x" gave nothing'),
        ("sql 'x' > 5", {"x": "many"}, "many is no number, and > compares numbers"),
        ("sql 'x' within 5 of redis 'y'", {"x": 1, "y": b"many"}, "many is no number, and within 5 of"),
        ("sql 'x' == 5", {"x": SourceError("relation x does not exist")}, "relation x does not exist"),
        ("meilisearch 'documents x' == 5", {}, "meilisearch could not be asked, as it was not restored"),
        ("sql 'x' == 5", {"x": 4}, "4 is not == 5"),
        ("sql 'x' within 1% of 5", {"x": RestoreError("gone")}, "gone"),
    ],
)
def test_what_can_not_be_compared_is_no_good(line: str, answers: Mapping[str, object], said: str) -> None:
    found = result(line, answers)
    assert not found.good
    assert said in found.problem
    finding = found.finding
    assert finding is not None
    assert (finding.code, finding.severity, finding.subject) == ("drill-check", "error", "a")


def test_what_was_found_is_kept() -> None:
    found = result("sql 'x' == redis 'y'", {"x": 5, "y": b"6"}).to_json()
    assert found.pop("seconds") >= 0
    assert found == {
        "name": "a",
        "check": 'a: sql "x" == redis "y"',
        "good": False,
        "left": "5",
        "right": "6",
        "problem": "5 is not == 6",
    }


def test_a_long_value_is_cut() -> None:
    found = result("sql 'x' == 'y'", {"x": "long" * 1000})
    assert len(found.left or "") < 250
