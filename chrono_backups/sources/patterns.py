"""Include and exclude patterns.

A pattern without ``/`` is matched against names at any depth (``*.tmp``); one with ``/`` against whole
paths, from the root if it starts with ``/`` (``/app/data/cache``), else at any depth (``cache/*.db``).
``*`` and ``?`` stop at ``/``, ``**`` does not, ``[…]`` is a class of characters. A trailing ``/`` means
directories only. An excluded directory is left out with all that is below it. Where there are include
patterns, a file is taken only if one matches; directories are walked in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import Pattern


def _translate(pattern: str) -> str:
    out: list[str] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*":
            if pattern[i : i + 1] == "*":
                i += 1
                if pattern[i : i + 1] == "/":
                    i += 1
                    out.append("(?:.*/)?")
                else:
                    out.append(".*")
            else:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := _class_end(pattern, i)) > 0:
            out.append(_class(pattern[i:end]))
            i = end + 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _class_end(pattern: str, start: int) -> int:
    """Where the ``]`` is that ends the class begun before ``start``, or -1. A ``]`` that comes first is in it."""
    first = start + 1 if pattern[start : start + 1] in {"!", "^"} else start
    return pattern.find("]", first + 1)


def _class(inner: str) -> str:
    negated, members = (True, inner[1:]) if inner[0] in "!^" else (False, inner)
    escaped = re.sub(r"([\\\]\[&~|^])", r"\\\1", members)
    expression = f"[^/{escaped}]" if negated else f"[{escaped}]"
    try:
        re.compile(expression)
    except re.error:  # a range that runs backwards holds nothing
        return "[^/]" if negated else "(?!)"
    return expression


def _compiled(patterns: Iterable[str]) -> Pattern[bytes] | None:
    """One expression over absolute paths, or None where there is no pattern."""
    parts = []
    for pattern in patterns:
        body = _translate(pattern.strip("/") if pattern != "/" else "")
        parts.append(f"/{body}" if pattern.startswith("/") else f"(?:.*/)?{body}")
    if not parts:
        return None
    return re.compile("|".join(f"(?:{part})" for part in parts).encode(), re.DOTALL)


class Patterns:
    """Decides which paths are taken. Paths are absolute bytes."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        exclude = list(exclude)
        self._include = _compiled(include)
        self._exclude = _compiled(pattern for pattern in exclude if not pattern.endswith("/"))
        self._exclude_directories = _compiled(exclude)
        self.empty = self._include is None and self._exclude_directories is None
        """Everything is taken."""

    def excludes_directory(self, path: bytes) -> bool:
        """Whether the directory is left out, with all below it."""
        return self._exclude_directories is not None and self._exclude_directories.fullmatch(path) is not None

    def excludes(self, path: bytes) -> bool:
        """Whether what is no directory is left out."""
        if self._exclude is not None and self._exclude.fullmatch(path):
            return True
        return self._include is not None and not self._include.fullmatch(path)


class Selection:
    """What of a backup is asked for: paths, or patterns of paths, each with all that is below it."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        expression = _compiled(pattern.rstrip("/") or "/" for pattern in patterns)
        self._expression = None if expression is None else re.compile(b"(?:%b)(?:/.*)?" % expression.pattern, re.DOTALL)

    @property
    def everything(self) -> bool:
        """Nothing narrower was asked for."""
        return self._expression is None

    def takes(self, path: bytes) -> bool:
        """Whether the entry of that absolute path is asked for."""
        return self._expression is None or self._expression.fullmatch(path) is not None
