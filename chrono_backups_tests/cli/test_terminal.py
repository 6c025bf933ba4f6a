"""Quantities, names, tables: what people read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.cli.terminal import quantities
from chrono_backups.cli.terminal.names import json_name, json_text, printable, safe_message
from chrono_backups.cli.terminal.tables import facts, table


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1234, "1.2 kB"), (99_949, "99.9 kB"), (99_960, "100 kB"),
        (549_000_000, "549 MB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (1_200_000_000, "1.2 GB"),
        (-1500, "-1.5 kB"), (10**21, "1000 EB"),
    ],
)  # fmt: skip
def test_sizes(count: int, shown: str) -> None:
    assert quantities.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 m 00 s"),
        (200, "3 m 20 s"), (3600, "1 h 00 m"), (7500, "2 h 05 m"), (273_600, "3 d 4 h"), (-1, "0.0 s"),
    ],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert quantities.duration(seconds) == shown


def test_counts_and_rates() -> None:
    assert quantities.count(1, "file") == "1 file"
    assert quantities.count(12345, "directory", "directories") == "12,345 directories"
    assert quantities.rate(10**9, 2) == "500 MB/s"
    assert quantities.rate(10**9, 0) == "-"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("größe".encode(), "größe"),
        (b"two\nlines", r"two\nlines"),
        (b"\x1b[31mred", r"\033[31mred"),
        (b"caf\xe9", r"caf\351"),
        (b"back\\slash", r"back\\slash"),
        ("\u202eevil".encode(), r"\342\200\256evil"),
    ],
)
def test_names(name: bytes, shown: str) -> None:
    assert printable(name) == shown


@given(st.binary())
def test_any_name_is_one_safe_line_and_no_two_look_alike(name: bytes) -> None:
    shown = printable(name)
    assert shown.isprintable()
    restored = shown.encode().decode("unicode_escape") if shown.isascii() else None
    if restored is not None:
        assert restored.encode("latin-1") == name


@given(st.binary())
def test_any_name_is_valid_json_and_comes_back(name: bytes) -> None:
    document = json.loads(json.dumps(json_name(name), ensure_ascii=False).encode("utf-8"))
    if "path_base64" in document:
        import base64

        assert base64.b64decode(document["path_base64"]) == name
    else:
        assert document["path"].encode() == name


@given(st.text())
def test_text_for_json_has_no_surrogates(text: str) -> None:
    json_text(text + "\udcff").encode("utf-8")


def test_messages_keep_their_lines_and_lose_their_escapes() -> None:
    assert safe_message("one\ntwo \x1b[2J \\ \udce9") == "one\ntwo \\033[2J \\ \\351"


def test_a_table() -> None:
    rows = [("a", "1.2 GB", "x"), ("longer", "5 B", "")]
    assert table(("ID", "SIZE", "REST"), rows, right=("SIZE",)) == [
        "ID        SIZE  REST",
        "a       1.2 GB  x",
        "longer     5 B",
    ]


def test_facts_leave_out_what_is_empty() -> None:
    assert facts([("id", "x"), ("missing", ""), ("status", "complete")], indent=" ") == [
        " id      x",
        " status  complete",
    ]
