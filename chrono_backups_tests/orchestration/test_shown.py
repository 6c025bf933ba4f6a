"""What is shown: tables that no name can break, numbers in words, progress and findings in the run's log."""

import logging

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.events import Finding, Progress
from chrono_backups.orchestration.metadata import ROWS_SHOWN, findings_table, in_words, plain_metadata, table
from chrono_backups.orchestration.progress import FINDINGS_SHOWN, RunLog, progress_line


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert in_words(count) == words


def test_no_name_breaks_a_table() -> None:
    lines = table(("path", "bytes#"), [("a|b\nc", 1), ("\udcff", 2)]).splitlines()
    assert lines == ["| path | bytes |", "| --- | ---: |", "| a\\|b c | 1 |", "| \\udcff | 2 |"]


def test_the_worst_findings_come_first_and_the_rest_is_counted() -> None:
    many = [Finding("x", "info", f"file {number}", "changed") for number in range(ROWS_SHOWN + 4)]
    text = findings_table([*many, Finding("y", "error", "worst", "gone")])
    assert "| error | worst | gone |" in text.splitlines()[2]
    assert text.endswith("… and 5 more.")


def test_of_a_report_the_plain_values_are_shown() -> None:
    shown = plain_metadata({"ok": True, "bytes": 3, "seconds": 1.23456, "id": "a", "list": [1], "none": None})
    assert {name: value.value for name, value in shown.items()} == {
        "ok": True,
        "bytes": 3,
        "seconds": 1.2346,
        "id": "a",
    }


def test_progress_is_a_line() -> None:
    progress = Progress("capture", "files", 1 << 20, 3400, total_bytes=4 << 20)
    assert progress_line(progress) == "capture files: 1.0 MiB of 4.0 MiB (25 %), 3,400 items"


def test_the_log_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock()
    log = RunLog(logging.getLogger("run"), clock)
    with caplog.at_level(logging.INFO, "run"):
        for _ in range(100):
            clock.sleep(1)
            log(Progress("capture", "files", 1, 1))
        for number in range(FINDINGS_SHOWN + 10):
            log(Finding("x", "warning", f"file {number}", "changed"))
    assert sum(record.levelno == logging.INFO for record in caplog.records) == 10
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == FINDINGS_SHOWN + 1
