"""Progress: one line redrawn on a terminal, few lines elsewhere, and nothing left behind."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from chrono_backups.cli.terminal.output import Output
from chrono_backups.cli.terminal.progress import FINDINGS_SHOWN, Reporter
from chrono_backups.clock import FrozenClock
from chrono_backups.events import Finding, Progress


def screen(written: str) -> list[str]:
    """What a terminal shows after ``written``: carriage return and erase-to-end are all that is used."""
    lines = []
    for line in written.split("\n"):
        shown = ""
        for part in line.split("\r")[1:] if "\r" in line else [line]:
            text, erased, rest = part.partition("\x1b[K")
            shown = text + rest if erased else text + shown[len(text) :]
        lines.append(shown)
    return lines


def reporter(*, terminal: bool, quiet: bool = False, width: int = 100) -> tuple[Reporter, FrozenClock, Output]:
    clock, output = FrozenClock(), Output(json=False, quiet=quiet)
    made = Reporter(output, clock, terminal=terminal, width=width)
    output.before_message = made.clear
    return made, clock, output


def event(done: int, total: int | None = 1000_000_000, subject: str = "files") -> Progress:
    return Progress("backup", subject, done, done // 1000_000, total)


def test_a_terminal_shows_bar_share_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    report, clock, _ = reporter(terminal=True)
    for second in range(6):
        report(event(second * 100_000_000))
        clock.advance(timedelta(seconds=1))
    assert screen(capsys.readouterr().err) == [
        "backup files  [############------------]   50 %  500 MB of 1.0 GB, 500 items  100 MB/s  5.0 s left"
    ]
    report.finish()
    assert screen("\r" + capsys.readouterr().err) == [""]


def test_at_most_ten_redraws_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    report, clock, _ = reporter(terminal=True)
    for step in range(1000):
        report(event(step * 1000))
        clock.advance(timedelta(milliseconds=1))
    assert 9 <= capsys.readouterr().err.count("\r") <= 11


@pytest.mark.parametrize("width", [1, 10, 40])
def test_a_narrow_terminal_never_wraps(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    report, _, _ = reporter(terminal=True, width=width)
    report(event(10))
    assert len(screen(capsys.readouterr().err)[0]) <= max(width - 1, 1)


def test_a_line_that_is_too_long_keeps_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    report, clock, _ = reporter(terminal=True, width=80)
    report(event(0))
    clock.advance(timedelta(seconds=1))
    report(event(100_000_000))
    shown = screen(capsys.readouterr().err)
    assert shown == ["backup files  [#-----------]   10 %  100 MB of 1.0 GB  100 MB/s  9.0 s left"]


def test_messages_do_not_mix_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    report, _, output = reporter(terminal=True)
    report(event(10))
    output.message("something")
    report(Finding("file-vanished", "warning", "/srv/a\nb", "it vanished", "Nothing to do."))
    shown = screen(capsys.readouterr().err)
    assert shown == ["something", r"warning: /srv/a\nb: it vanished (Nothing to do.)", ""]


def test_elsewhere_a_start_an_end_and_a_line_each_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    report, clock, _ = reporter(terminal=False)
    for second in range(70):
        report(event(second * 10_000_000))
        clock.advance(timedelta(seconds=1))
    report(event(1000, None, "configuration"))
    clock.advance(timedelta(seconds=2))
    report.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "backup files: started"
    assert lines[1].startswith("backup files:   30 %  300 MB of 1.0 GB, 300 items  10.0 MB/s")
    assert lines[2].startswith("backup files:   60 %")
    assert lines[3] == "backup files: 690 MB, 690 items in 1 m 10 s"
    assert lines[4:] == ["backup configuration: 1.0 kB in 2.0 s"]


def test_quiet_shows_findings_only(capsys: pytest.CaptureFixture[str]) -> None:
    report, _, _ = reporter(terminal=True, quiet=True)
    report(event(10))
    report(Finding("unreadable", "error", "/srv/a", "permission denied"))
    report(Finding("note", "info", "/srv/a", "fine"))
    report.finish()
    assert capsys.readouterr().err == "error: /srv/a: permission denied\n"


def test_a_flood_of_findings_is_cut_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    report, _, _ = reporter(terminal=False)
    for number in range(FINDINGS_SHOWN + 1234):
        report(Finding("unreadable", "warning", f"/srv/{number}", "permission denied"))
    report.finish()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == FINDINGS_SHOWN + 1
    assert lines[-1] == "warning: 1,234 more of the kind unreadable"


def test_unknown_totals(capsys: pytest.CaptureFixture[str]) -> None:
    report, clock, _ = reporter(terminal=True)
    report(Progress("verify", "", 0, 0))
    clock.advance(timedelta(seconds=2))
    report(Progress("verify", "", 50_000_000, 20))
    shown = screen(capsys.readouterr().err)[0]
    assert re.fullmatch(r"verify  2\.0 s  50\.0 MB, 20 items  25\.0 MB/s", shown)


def test_items_alone_give_share_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    report, clock, _ = reporter(terminal=True)
    report(Progress("prune", "", 0, 0, None, 100))
    clock.advance(timedelta(seconds=10))
    report(Progress("prune", "", 0, 25, None, 100))
    assert screen(capsys.readouterr().err)[0].endswith("25 %  25 of 100 items  30 s left")
