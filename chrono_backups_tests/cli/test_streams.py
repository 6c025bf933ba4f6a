"""The two streams: one JSON document whatever happens, and readers that go away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chrono_backups_tests.cli.conftest import COMMAND, Site

_PRELUDE = """
import sys
from chrono_backups.cli import failures
from chrono_backups.cli.terminal.output import Output
from chrono_backups.errors import Damaged
output = Output(json=True, quiet=False)
"""


def python(code: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", _PRELUDE + code], capture_output=True, check=True)


def document(code: str) -> Any:
    return json.loads(python(code).stdout.decode("utf-8", "strict"))


def test_a_stream_that_fails_midway_is_still_one_document() -> None:
    value = document("""
try:
    with output.stream({"id": "x"}, "entries") as stream:
        stream.add({"a": 1})
        stream.add({"b": "\\udce9"})
        raise Damaged("a pack is damaged", key="packs/1")
except Damaged as error:
    failures.report(output, error, debug=False)
""")
    assert value["id"] == "x"
    assert value["entries"] == [{"a": 1}, {"b": "\\351"}]
    assert value["error"]["kind"] == "Damaged"
    assert value["error"]["key"] == "packs/1"


def test_an_empty_stream() -> None:
    assert document('with output.stream({}, "entries"): pass') == {"entries": []}
    assert document('with output.stream({"a": 1}, "entries"): pass') == {"a": 1, "entries": []}


def test_an_error_after_the_document_adds_none() -> None:
    value = document("""
output.document({"done": True})
failures.report(output, Damaged("late", key="k"), debug=False)
""")
    assert value == {"done": True}


def test_secrets_are_masked_in_what_a_driver_says(site: Site) -> None:
    ran = python("""
from chrono_backups.cli.context import Context
import os
os.environ["BACKUP_SFTP_PASSWORD"] = "p/ss w0rd"
os.environ["POSTGRES_PASSWORD"] = "postgres"
context = Context(output)
failures.report(output, ValueError("cannot log in with p/ss w0rd at sftp://x:p%2Fss%20w0rd@h to postgres"), debug=True)
""")
    assert b"w0rd" not in ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["error"]["message"] == (
        "unexpected ValueError: cannot log in with [secret] at sftp://x:[secret]@h to postgres"
    )


def test_a_reader_that_goes_away_is_no_error(site: Site) -> None:
    for words in (("--help",), ("keygen",), ("keygen", "--json"), ("list", "--help")):
        process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(240) == 0
        process.stderr.close()


def test_a_full_disk_behind_standard_output_is_an_error() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run([*COMMAND, "keygen"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ran.returncode == 1
    assert b"No space left" in ran.stderr
    assert b"Exception ignored" not in ran.stderr


_WORKING = """
import sys, time
from chrono_backups.cli import failures
from chrono_backups.cli import interruption
from chrono_backups.cli.interruption import stoppable, time_limit
from chrono_backups.cli.terminal.output import Output
interruption._PATIENCE_SECONDS = {at_once}
output = Output(json=True, quiet=False)
def last(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:  # a signal that comes right before one long sleep would not end it
        time.sleep(0.02)
def work():
    try:
        print("working", file=sys.stderr, flush=True)
        with time_limit({limit}):
            last(600)
    finally:
        print("cleaning up", file=sys.stderr, flush=True)
        last({cleaning})
        print("clean", file=sys.stderr, flush=True)
with stoppable():
    try:
        work()
    except KeyboardInterrupt as stop:
        sys.exit(failures.report_interruption(output, stop, "all is whole", debug=False))
"""


def working(limit: str = "None", cleaning: str = "0", at_once: float = 0.5) -> subprocess.Popen[str]:
    """A program at work. A signal that comes twice within ``at_once`` seconds is one that came once."""
    code = _WORKING.format(limit=limit, cleaning=cleaning, at_once=at_once)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    return process


def test_each_signal_cancels_cleanly() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = working()
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 130
        assert "clean\n" in err
        assert f"chrono-backups: cancelled: {number.name}; all is whole" in err
        assert json.loads(out)["error"]["kind"] == "Cancelled"
        assert json.loads(out)["error"]["exit_code"] == 130


def test_a_signal_that_comes_twice_at_once_does_not_cut_the_cleaning_short() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        process = working(cleaning="0.3", at_once=120)
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.02)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 130
        assert "\nclean\n" in err


def test_a_second_interrupt_is_honoured() -> None:
    process = working(cleaning="600")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "cleaning up\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "stopped at once" in err
    assert "\nclean\n" not in err


def test_the_time_limit_is_a_failure_that_is_named() -> None:
    process = working(limit="0.2")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "clean\n" in err
    assert "error: BACKUP_TIMEOUT_SECONDS have passed" in err
    assert json.loads(out)["error"]["kind"] == "Cancelled"
