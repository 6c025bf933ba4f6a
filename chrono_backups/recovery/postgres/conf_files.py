"""A cluster's configuration files, read as the server reads them.

Source: PostgreSQL documentation, "Setting Parameters": the last value counts, included files stand where they are
included, and ``postgresql.auto.conf`` comes last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONF = "postgresql.conf"
AUTO_CONF = "postgresql.auto.conf"
INCLUDES = frozenset({"include", "include_if_exists", "include_dir"})
_DEEPEST = 10
_LINE = re.compile(
    r"^\s*(?P<name>[A-Za-z_][\w$.]*)\s*(?:=\s*|\s)\s*(?P<value>'(?:[^'\\]|''|\\.)*'|[^\s#']+)\s*(?:#.*)?$"
)
_ESCAPE = re.compile(r"''|\\([0-7]{1,3}|.)")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Assignment:
    """One line that says something. ``name`` is lower case; ``number`` counts from 0."""

    file: Path
    number: int
    name: str
    value: str


def unquoted(text: str) -> str:
    """The value that a quoted or plain word stands for."""
    if not text.startswith("'"):
        return text

    def plain(match: re.Match[str]) -> str:
        escaped = match[1]
        if escaped is None:
            return "'"
        if escaped[0] in "01234567":
            return chr(int(escaped, 8))
        return _SHORT.get(escaped, escaped)

    return _ESCAPE.sub(plain, text[1:-1])


def quoted(value: str) -> str:
    """``value`` as it is written in a configuration file."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def lines_of(file: Path) -> list[str]:
    """The lines of a file that may be missing, bytes that are no UTF-8 kept as they are."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def write_lines(file: Path, lines: list[str]) -> None:
    """Replace a file's content. It keeps its owner and mode where it is there already."""
    text = "".join(f"{line}\n" for line in lines)
    file.write_text(text, encoding="utf-8", errors="surrogateescape")


def assignments(data: Path) -> list[Assignment]:
    """All that the files of the data directory say, in the order in which it counts; what they include as well."""
    return [*_of(data / CONF, 0), *_of(data / AUTO_CONF, 0)]


def _of(file: Path, depth: int) -> Iterator[Assignment]:
    for number, line in enumerate(lines_of(file)):
        match = _LINE.match(line)
        if match is None:
            continue
        found = Assignment(file, number, match["name"].lower(), unquoted(match["value"]))
        yield found
        if found.name in INCLUDES and depth < _DEEPEST:
            for one in included(found):
                yield from _of(one, depth + 1)


def included(directive: Assignment) -> list[Path]:
    """The files that an include directive takes in; those that are there."""
    place = directive.file.parent / directive.value
    if directive.name != "include_dir":
        return [place] if place.is_file() else []
    if not place.is_dir():
        return []
    names = sorted(name for name in os.listdir(place) if name.endswith(".conf") and not name.startswith("."))
    return [place / name for name in names if (place / name).is_file()]


def effective(data: Path) -> dict[str, str]:
    """Setting → the value that counts."""
    return {one.name: one.value for one in assignments(data) if one.name not in INCLUDES}
