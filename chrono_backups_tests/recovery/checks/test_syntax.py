"""The language of drill checks: what is written is what is meant, and what is not understood says where."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.errors import UsageError
from chrono_backups.recovery.checks.syntax import Check, Constant, Query, parse_checks

COUNT = Query("sql", "select count(*) from pages")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (
            'pages: sql "select count(*) from pages" == meilisearch "documents pages"',
            Check("pages", COUNT, "==", Query("meilisearch", "documents pages")),
        ),
        ('alive:redis "DBSIZE">=1', Check("alive", Query("redis", "DBSIZE"), ">=", Constant(Decimal(1)))),
        (
            "some: sql(app) 'select count(*) from pages' within 5 of redis(2) \"GET pages\"",
            Check("some", Query("sql", COUNT.text, "app"), "within", Query("redis", "GET pages", "2"), Decimal(5)),
        ),
        (
            'part: redis "DBSIZE" within 2.5% of sql "select count(*) from pages"',
            Check("part", Query("redis", "DBSIZE"), "within", COUNT, Decimal("2.5"), True),
        ),
        (
            r'quotes: sql "select \"Name\" from t where a = \'b\'" != "a \"text\""',
            Check("quotes", Query("sql", "select \"Name\" from t where a = 'b'"), "!=", Constant('a "text"')),
        ),
        (
            'media: files "/app/media/**" > -1.5',
            Check("media", Query("files", "/app/media/**"), ">", Constant(Decimal("-1.5"))),
        ),
        (
            'german: meilisearch "documents pages where lang = de" < sql "select 1"',
            Check("german", Query("meilisearch", "documents pages where lang = de"), "<", Query("sql", "select 1")),
        ),
    ],
)
def test_what_is_written_is_what_is_meant(line: str, meant: Check) -> None:
    assert parse_checks(line) == (meant,)
    assert parse_checks(str(meant)) == (meant,), "as it is shown it can be written"


def test_empty_lines_and_comments_are_no_checks() -> None:
    text = '\n# all: of it\n  # more\na: sql "select 1" == 1\n\nb: sql "select 2" == 2\n'
    assert [one.name for one in parse_checks(text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "does not begin with a name"),
        ("two words: sql 'x' == 1", "does not begin with a name"),
        ("a:", "what is asked"),
        ("a: mysql 'x' == 1", "what is asked .* in column 4"),
        ("a: sql == 1", "a text in quotes behind sql is missing in column 8"),
        ("a: sql 'x'", "a relation .* is missing at its end"),
        ("a: sql 'x' = 1", "what begins in column 12 is not understood"),
        ("a: sql 'x' == ", "what is asked"),
        ("a: sql 'x' == 1 2", "there is more behind it, from column 17 on"),
        ("a: sql 'x == 1", "is not understood"),
        ("a: sql ' ' == 1", "sql is asked nothing"),
        ("a: sql 'x' within 5 1", "'of' is missing"),
        ("a: sql 'x' within of 1", "how far they may be apart is missing"),
        ("a: sql 'x' within -1 of 1", "how far they may be apart is missing"),
        ("a: sql 'x' within 1 of 'y'", "has no meaning"),
        ("a: redis(x) 'GET a' == 1", "a Redis database is a number"),
        ("a: redis 'GET \"a' == 1", "quotes within the command are not closed"),
        ("a: meilisearch(x) 'documents a' == 1", "takes nothing in parentheses"),
        ("a: meilisearch 'count a' == 1", "meilisearch is asked"),
        ("a: meilisearch 'document a 1' == 1", "meilisearch is asked"),
        ("a: meilisearch 'documents a b' == 1", "where FILTER"),
        ("a: meilisearch 'documents a where' == 1", "where FILTER"),
        ("a: files 'media/**' == 1", "begins with / or"),
    ],
)
def test_what_is_not_understood_is_named_with_its_line(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"line 2 of the drill checks: .*{said}") as caught:
        parse_checks(f"first: sql 'select 1' == 1\n{line}")
    assert "pages: sql" in caught.value.hint


def test_a_name_is_used_once() -> None:
    with pytest.raises(UsageError, match=r"line 3 .* a is used twice"):
        parse_checks('a: sql "1" == 1\nb: sql "1" == 1\na: redis "DBSIZE" == 1')


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_checks(text)
    except UsageError:
        return
    assert parse_checks("\n".join(map(str, found))) == found


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and len(text.splitlines()) == 1))
def test_any_text_can_be_asked(text: str) -> None:
    if text.splitlines() != [text]:
        return
    check = Check("a", Query("sql", text), "==", Constant(text))
    assert parse_checks(str(check)) == (check,)
