"""The language of ``BACKUP_DRILL_CHECKS``: one check a line, as text and as values.

::

    # comment
    NAME: QUERY RELATION QUERY
    NAME: QUERY RELATION CONSTANT

    QUERY     sql "…" · sql(DATABASE) "…" · redis "…" · redis(NUMBER) "…" · meilisearch "…" · files "…"
    RELATION  == · != · >= · <= · > · < · within N of · within N% of
    CONSTANT  a number, or a text in quotes

Quotes are ``"`` or ``'``; within them ``\\`` takes away the meaning of the next quote or ``\\``. A name is letters,
digits and ``_ . -``, and is used once. What is wrong is named by line and column: a query may hold what nobody else
is to read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from chrono_backups.errors import UsageError

Asked = Literal["sql", "redis", "meilisearch", "files"]
Relation = Literal["==", "!=", ">=", "<=", ">", "<", "within"]
STORES: tuple[Asked, ...] = get_args(Asked)
_SYMBOLS: tuple[Relation, ...] = ("==", "!=", ">=", "<=", ">", "<")
_MEILISEARCH = {"documents": 1, "search": 1, "document": 3}
"""Verb → how many words it needs behind it."""
_EXAMPLE = 'pages: sql "select count(*) from pages" == meilisearch "documents pages"'
_NAME = re.compile(r"[\w.-]+\Z")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>-?\d+(?:\.\d+)?%?)
      | (?P<symbol>==|!=|>=|<=|>|<)
      | (?P<in>\(\s*[^()"']*\s*\))
      | (?P<word>[A-Za-z]+)
    )""",
    re.VERBOSE,
)
_Token = tuple[str, str, int]
"""Kind, text, and the column that it begins in."""


def _wrong(line: int, problem: str) -> UsageError:
    return UsageError(f"line {line} of the drill checks: {problem}", hint=f"A check is written as {_EXAMPLE}")


@dataclass(frozen=True)
class Query:
    """What is asked of one store, for one value."""

    store: Asked
    text: str
    within: str = ""
    """Of SQL the database, of Redis its number; empty: the configured one, and 0."""

    def __str__(self) -> str:
        return f"{self.store}{f'({self.within})' if self.within else ''} {_quoted(self.text)}"


@dataclass(frozen=True)
class Constant:
    """A value that the operator knows."""

    value: Decimal | str

    def __str__(self) -> str:
        return _quoted(self.value) if isinstance(self.value, str) else f"{self.value:f}"


Operand = Query | Constant


@dataclass(frozen=True)
class Check:
    """One line: what two values are asked for, and how they must relate."""

    name: str
    left: Query
    relation: Relation
    right: Operand
    tolerance: Decimal = Decimal(0)
    """Of ``within``: how far ``left`` may be from ``right``."""
    percent: bool = False
    """The tolerance is a part of ``right``."""

    @property
    def queries(self) -> tuple[Query, ...]:
        return (self.left, self.right) if isinstance(self.right, Query) else (self.left,)

    @property
    def relation_text(self) -> str:
        if self.relation != "within":
            return self.relation
        return f"within {self.tolerance:f}{'%' if self.percent else ''} of"

    def __str__(self) -> str:
        return f"{self.name}: {self.left} {self.relation_text} {self.right}"


def parse_checks(text: str) -> tuple[Check, ...]:
    """All checks of a text, in order. Raises ``UsageError`` for the first line that is none."""
    found: dict[str, Check] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        check = _Line(number, line).check()
        if check.name in found:
            raise _wrong(number, f"the name {check.name} is used twice")
        found[check.name] = check
    return tuple(found.values())


class _Line:
    """One line, read from left to right."""

    def __init__(self, number: int, line: str) -> None:
        self._number = number
        name, colon, rest = line.partition(":")
        self._name = name.strip()
        self._column = len(name) + 2
        if not colon or _NAME.match(self._name) is None:
            raise _wrong(number, "it does not begin with a name and ':'")
        self._tokens = self._read(rest)
        self._next = next(self._tokens)

    def _read(self, rest: str) -> Iterator[_Token]:
        at = 0
        while rest[at:].strip():
            found = _TOKEN.match(rest, at)
            if found is None:
                column = self._column + at + len(rest[at:]) - len(rest[at:].lstrip())
                raise _wrong(self._number, f"what begins in column {column} is not understood")
            at = found.end()
            kind = found.lastgroup or ""
            yield kind, found[kind], self._column + found.start(kind)
        while True:
            yield "end", "", self._column + at

    def _take(self) -> str:
        taken, self._next = self._next, next(self._tokens)
        return taken[1]

    def _is(self, kind: str, text: str) -> bool:
        return self._next[:2] == (kind, text)

    def _fail(self, expected: str) -> UsageError:
        kind, _, column = self._next
        return _wrong(self._number, f"{expected} is missing {'at its end' if kind == 'end' else f'in column {column}'}")

    def check(self) -> Check:
        left = self._query()
        kind, text, _ = self._next
        if kind == "symbol":
            self._take()
            relation = next(one for one in _SYMBOLS if one == text)
            made = Check(self._name, left, relation, self._operand())
        elif self._is("word", "within"):
            made = self._within(left)
        else:
            raise self._fail(f"a relation ({', '.join(_SYMBOLS)}, within N of)")
        kind, _, column = self._next
        if kind != "end":
            raise _wrong(self._number, f"there is more behind it, from column {column} on")
        return made

    def _within(self, left: Query) -> Check:
        self._take()
        kind, number, _ = self._next
        if kind != "number" or number.startswith("-"):
            raise self._fail("how far they may be apart")
        self._take()
        if not self._is("word", "of"):
            raise self._fail("'of'")
        self._take()
        percent = number.endswith("%")
        right = self._operand()
        if isinstance(right, Constant) and isinstance(right.value, str):
            raise _wrong(self._number, "within N of a text has no meaning")
        return Check(self._name, left, "within", right, Decimal(number.rstrip("%")), percent)

    def _operand(self) -> Operand:
        kind, text, _ = self._next
        if kind == "number" and not text.endswith("%"):
            self._take()
            return Constant(Decimal(text))
        if kind == "text":
            self._take()
            return Constant(_unquoted(text))
        return self._query()

    def _query(self) -> Query:
        store = next((one for one in STORES if self._is("word", one)), None)
        if store is None:
            raise self._fail(f"what is asked ({', '.join(STORES)})")
        self._take()
        within = self._take().strip("() \t") if self._next[0] == "in" else ""
        kind, text, _ = self._next
        if kind != "text":
            raise self._fail(f"a text in quotes behind {store}")
        self._take()
        query = Query(store, _unquoted(text), within)
        problem = _problem(query)
        if problem:
            raise _wrong(self._number, problem)
        return query


def _problem(query: Query) -> str:
    """What is wrong with a query as far as that is seen without asking; empty where nothing is."""
    if not query.text.strip():
        return f"{query.store} is asked nothing"
    if query.store in {"meilisearch", "files"} and query.within:
        return f"{query.store} takes nothing in parentheses"
    return _PROBLEMS[query.store](query) if query.store in _PROBLEMS else ""


def _problem_of_redis(query: Query) -> str:
    if query.within and not query.within.isdigit():
        return "a Redis database is a number"
    return "" if words(query) else "its quotes within the command are not closed"


def _problem_of_files(query: Query) -> str:
    good = query.text.startswith(("/", "*"))
    return "" if good else "the pattern of files is of whole paths: it begins with / or *"


def _problem_of_meilisearch(query: Query) -> str:
    verb, *rest = query.text.split()
    if len(rest) < _MEILISEARCH.get(verb, len(rest) + 1):
        known = '"documents INDEX [where FILTER]", "search INDEX WORDS" or "document INDEX ID FIELD"'
        return f"meilisearch is asked {known}"
    if verb == "documents" and len(rest) > 1 and (rest[1] != "where" or len(rest) == 2):
        return "behind the index of documents comes `where FILTER`, or nothing"
    return ""


_PROBLEMS: dict[str, Callable[[Query], str]] = {
    "redis": _problem_of_redis,
    "files": _problem_of_files,
    "meilisearch": _problem_of_meilisearch,
}


def words(query: Query) -> list[str]:
    """The words of a command; none where its quotes are not closed."""
    try:
        return shlex.split(query.text)
    except ValueError:
        return []


def _unquoted(text: str) -> str:
    return re.sub(r"\\([\\\"'])", r"\1", text[1:-1])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
