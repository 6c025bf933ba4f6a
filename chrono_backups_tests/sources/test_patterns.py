"""Patterns, as a table: pattern, path, whether it matches."""

from __future__ import annotations

import pytest

from chrono_backups.sources.patterns import Patterns

FILES = [
    # Without a slash: names, at any depth.
    ("*.tmp", b"/app/x.tmp", True),
    ("*.tmp", b"/app/deep/er/x.tmp", True),
    ("*.tmp", b"/app/x.tmp.gz", False),
    ("*.tmp", b"/app/.tmp", True),
    ("*.tmp", b"/app/x.tmp/y", False),
    ("core", b"/app/core", True),
    ("core", b"/app/score", False),
    ("core", b"/app/core.1", False),
    ("?.log", b"/a/1.log", True),
    ("?.log", b"/a/12.log", False),
    ("?", b"/a/b", True),
    # From the root.
    ("/app/data", b"/app/data", True),
    ("/app/data", b"/x/app/data", False),
    ("/app/*.db", b"/app/x.db", True),
    ("/app/*.db", b"/app/sub/x.db", False),
    ("/app/**/x", b"/app/x", True),
    ("/app/**/x", b"/app/a/b/x", True),
    ("/app/**/x", b"/apps/x", False),
    ("/app/**", b"/app/a/b", True),
    ("/app/**", b"/app", False),
    # With a slash, at any depth.
    ("cache/*.db", b"/app/cache/x.db", True),
    ("cache/*.db", b"/cache/x.db", True),
    ("cache/*.db", b"/app/nocache/x.db", False),
    ("cache/*.db", b"/app/cache/sub/x.db", False),
    # Classes.
    ("[ab].txt", b"/a.txt", True),
    ("[ab].txt", b"/c.txt", False),
    ("[!ab].txt", b"/c.txt", True),
    ("[!ab].txt", b"/a.txt", False),
    ("[0-9]*", b"/7up", True),
    ("[]x]", b"/]", True),
    ("[", b"/[", True),
    ("[!]x]", b"/x", False),
    ("[!]x]", b"/y", True),
    ("[!a]b", b"/b", False),
    ("[^a]", b"/b", True),
    ("[^a]", b"/a", False),
    ("x[!a]y", b"/x/y", False),
    ("[z-a]", b"/b", False),
    ("[a-]", b"/-", True),
    ("[[]", b"/[", True),
    ("[a&&b]", b"/&", True),
    ("[\\]", b"/\\", True),
    ("a[b", b"/a[b", True),
    # What means something to expressions means itself here.
    ("a.b", b"/axb", False),
    ("a+b", b"/a+b", True),
    ("(a|b)", b"/(a|b)", True),
    ("$x^", b"/$x^", True),
    ("a\\b", b"/a\\b", True),
    # Bytes.
    ("*.txt", b"/caf\xe9.txt", True),
    ("*.txt", b"/two\nlines.txt", True),
    ("caf?.txt", b"/caf\xe9.txt", True),
    ("café.txt", "/café.txt".encode(), True),
]


@pytest.mark.parametrize(("pattern", "path", "matches"), FILES)
def test_what_a_pattern_excludes(pattern: str, path: bytes, matches: bool) -> None:
    assert Patterns(exclude=[pattern]).excludes(path) is matches


@pytest.mark.parametrize(("pattern", "path", "matches"), FILES)
def test_what_a_pattern_includes(pattern: str, path: bytes, matches: bool) -> None:
    assert Patterns(include=[pattern]).excludes(path) is not matches


def test_a_slash_at_the_end_means_directories() -> None:
    patterns = Patterns(exclude=["node_modules/", "*.cache"])
    assert patterns.excludes_directory(b"/app/node_modules")
    assert not patterns.excludes(b"/app/node_modules")
    assert patterns.excludes_directory(b"/app/x.cache")
    assert patterns.excludes(b"/app/x.cache")


def test_includes_leave_directories_walked() -> None:
    patterns = Patterns(include=["*.sql"])
    assert not patterns.excludes_directory(b"/app/data")
    assert patterns.excludes(b"/app/data/x.txt")
    assert not patterns.excludes(b"/app/data/x.sql")


def test_an_exclusion_outweighs_an_inclusion() -> None:
    patterns = Patterns(include=["*.sql"], exclude=["secret.*"])
    assert patterns.excludes(b"/app/secret.sql")


def test_no_pattern_takes_everything() -> None:
    assert Patterns().empty
    assert not Patterns().excludes(b"/anything")
    assert not Patterns().excludes_directory(b"/anything")
    assert not Patterns(include=["*"]).empty


@pytest.mark.parametrize("pattern", ["[z-a]", "[a", "**", "*", "?", "[!]", "[]", "//", "/", "", "[\\]", "[^a]"])
def test_no_pattern_is_an_error_in_the_middle_of_a_backup(pattern: str) -> None:
    Patterns(exclude=[pattern]).excludes(b"/app/data")
