"""The audit log: appended by many, rotated, and every way of tampering named."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import FrozenClock, SystemClock
from chrono_backups.errors import AuditUnwritable
from chrono_backups.monitoring.audit.line import FIRST, make, parse
from chrono_backups.monitoring.audit.log import AuditLog
from chrono_backups.monitoring.audit.verify import AuditReport, verify
from chrono_backups.repository.records import AuditHead
from chrono_backups_tests.undisturbed import once_undisturbed


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def log(tmp_path: Path, clock: FrozenClock) -> AuditLog:
    return AuditLog(tmp_path / "logs" / "audit.log", retention_days=30, clock=clock)


def fill(log: AuditLog, count: int) -> AuditHead:
    heads = [log.append({"act": "backup", "phase": "end", "on": {"number": number}}) for number in range(count)]
    return heads[-1]


def named(report: AuditReport) -> list[tuple[str, str]]:
    return [(one.code, one.subject) for one in report.findings]


def test_lines_are_chained_and_private(log: AuditLog) -> None:
    assert log.head() is None
    head = fill(log, 3)
    lines = [parse(body) for body in log.path.read_bytes().splitlines()]
    assert [one.number for one in lines if one] == [1, 2, 3, 4]
    assert lines[0] is not None and lines[0].previous == FIRST and lines[0].content()["act"] == "log-begun"
    assert log.head() == head and head.line == 4
    assert log.path.stat().st_mode & 0o777 == 0o600
    report = verify(log.files(), {"a": head})
    assert report.ok and (report.lines, report.last, report.head, report.heads_checked) == (4, 4, head.hash, 1)


def swap(lines: list[bytes]) -> None:
    lines[5], lines[6] = lines[6], lines[5]


def rewrite(lines: list[bytes]) -> None:
    """Line 6 anew, with a hash of its own."""
    old = parse(lines[5].rstrip())
    assert old is not None
    lines[5] = make(old.number, old.log, old.previous, old.moment, {"act": "nothing"}).body + b"\n"


def change(lines: list[bytes]) -> None:
    lines[5] = lines[5].replace(b'"number":4', b'"number":9')


TAMPERING: dict[str, tuple[Callable[[list[bytes]], object], list[tuple[str, str]]]] = {
    "changed": (change, [("audit-line-changed", "line 6")]),
    "rewritten": (rewrite, [("audit-line-changed", "line 6")]),
    "dropped": (lambda lines: lines.pop(5), [("audit-lines-missing", "line 6")]),
    "several dropped": (lambda lines: lines.__delitem__(slice(5, 8)), [("audit-lines-missing", "lines 6 to 8")]),
    "reordered": (swap, [("audit-line-misplaced", "line 6")]),
    "doubled": (lambda lines: lines.insert(7, lines[4]), [("audit-line-misplaced", "line 5")]),
    "inserted": (
        lambda lines: lines.insert(5, b"nothing\n"),
        [("audit-line-changed", "audit.log, line 6 of the file")],
    ),
    "begun later": (lambda lines: lines.__delitem__(slice(0, 3)), [("audit-lines-missing", "lines 1 to 3")]),
    "cut": (lambda lines: lines.pop(), [("audit-log-cut", "lines 10 to 10")]),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_named(log: AuditLog, how: str) -> None:
    head = fill(log, 9)
    lines = log.path.read_bytes().splitlines(keepends=True)
    tamper, expected = TAMPERING[how]
    tamper(lines)
    log.path.write_bytes(b"".join(lines))
    assert named(verify(log.files(), {"full_20260101_000000": head})) == expected


def test_a_log_that_was_written_anew_is_given_away_by_a_backup(log: AuditLog, clock: FrozenClock) -> None:
    known = {"full_20260101_000000": fill(log, 4)}
    lines = [parse(body) for body in log.path.read_bytes().splitlines()]
    forged, previous = [], FIRST
    for old in lines:
        assert old is not None
        new = make(old.number, old.log, previous, old.moment, {"act": "forged"})
        forged.append(new.body + b"\n")
        previous = new.hash
    log.path.write_bytes(b"".join(forged))
    assert verify(log.files()).ok, "by itself it is a sound log"
    assert named(verify(log.files(), known)) == [("audit-head-differs", "line 5")]
    other = {"b": AuditHead("0" * 16, 3, "1" * 64)}
    assert verify(log.files(), other).heads_elsewhere == 1


def test_a_torn_line_is_accounted_for(log: AuditLog) -> None:
    fill(log, 2)
    with log.path.open("ab") as file:
        file.write(b'{"n":4,"log":"ab')
    assert verify(log.files()).ok
    fill(log, 2)
    report = verify(log.files())
    assert report.ok and report.last == 6, report.findings
    text = log.path.read_bytes()
    log.path.write_bytes(text.replace(b'{"n":4,"log":"ab\n', b'{"n":4,"log":"ax\n'))
    assert named(verify(log.files())) == [("audit-line-changed", "audit.log, line 4 of the file")]


def test_rotated_and_removed_files_leave_the_chain_provable(log: AuditLog, clock: FrozenClock) -> None:
    heads = {}
    for day in range(80):
        heads[f"day {day}"] = fill(log, 2)
        clock.advance(timedelta(days=1))
    files = log.files()
    assert len(files) > 5
    report = verify(files, heads)
    assert report.ok, report.findings
    assert report.first > 50 and report.heads_checked + report.heads_elsewhere == 80
    oldest = parse(files[0].read_bytes().splitlines()[-1])
    assert oldest is not None and clock.now() - oldest.moment <= timedelta(days=36), "what is too old is gone"
    assert clock.now() - oldest.moment >= timedelta(days=25), "and what is not is there"
    files[1].unlink()
    assert [code for code, _ in named(verify(log.files(), heads))] == ["audit-lines-missing"]
    files[0].unlink()
    assert [code for code, _ in named(verify(log.files(), heads))] == ["audit-lines-missing"]


def test_a_crash_in_the_midst_of_a_rotation_breaks_nothing(log: AuditLog) -> None:
    head = fill(log, 3)
    log.path.rename(log.path.with_name(f"audit.log.{head.line:012}"))
    fill(log, 1)
    report = verify(log.files())
    assert report.ok and report.last == 6


def _append(path: Path, begin: Any, count: int) -> None:
    log = AuditLog(path, retention_days=30, clock=SystemClock())
    begin.wait(240)
    for number in range(count):
        log.append({"act": "backup", "on": {"process": os.getpid(), "number": number}})


def test_several_processes_append_at_once(log: AuditLog) -> None:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(4)
    processes = [context.Process(target=_append, args=(log.path, begin, 50)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    report = verify(log.files())
    assert report.ok and report.last == 201


def test_what_can_not_be_written_is_an_error_with_a_remedy(tmp_path: Path, clock: FrozenClock) -> None:
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit.log", retention_days=30, clock=clock)
    with pytest.raises(AuditUnwritable, match="can't be written: file exists") as caught:
        log.append({"act": "backup"})
    assert "BACKUP_AUDIT_ENABLED" in caught.value.hint


def test_a_long_text_makes_no_long_line(log: AuditLog) -> None:
    log.append({"act": "restore", "on": {"paths": ["x" * 5000] * 1000}})
    log.append({"act": "restore", "on": {str(number): "y" * 900 for number in range(100)}})
    assert max(map(len, log.path.read_bytes().splitlines())) < 16384
    assert fill(log, 1).line == 4 and verify(log.files()).ok


def test_a_hundred_thousand_lines_in_two_seconds(tmp_path: Path, clock: FrozenClock) -> None:
    previous, written = FIRST, []
    who = {"user": "backup", "uid": 1000, "trigger": "schedule incremental_backup_schedule, dagster run 6d2f"}
    said = {"act": "backup", "phase": "end", "who": who, "result": "complete", "from": {"host": "app", "pid": 1}}
    for number in range(1, 100_001):
        line = make(number, "ab" * 8, previous, clock.now(), {**said, "run": f"{number:032x}"})
        written.append(line.body + b"\n")
        previous = line.hash
    path = tmp_path / "audit.log"
    path.write_bytes(b"".join(written))

    def quickly() -> None:
        began = time.process_time()
        report = verify([path], {"a": AuditHead("ab" * 8, 100_000, previous)})
        spent = time.process_time() - began
        assert report.ok and report.lines == 100_000 and report.heads_checked == 1
        assert spent <= 2.0, f"{spent:.2f} s"

    once_undisturbed(quickly)
    number = random.randrange(2, 99_999)
    del written[number - 1]
    path.write_bytes(b"".join(written))
    assert named(verify([path])) == [("audit-lines-missing", f"line {number}")]
