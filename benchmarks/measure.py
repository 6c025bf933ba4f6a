"""Runs one command, or one pipe, as whole processes and reads what it cost.

| figure | how |
|---|---|
| seconds | from the first process's start until the last has ended and the command after it (`sync`) has |
| CPU seconds | user and system time that `wait4` reports, of all the processes and the children they waited for |
| peak bytes | the largest sum, at any one moment, of the highest resident size so far (`VmHWM`) of each process alive |

So a pipe counts as the sum of its stages, several worker processes as the sum of them (pages they share count in
each). `/proc` is read every 50 ms; for a process that ends sooner `wait4`'s `ru_maxrss` steps in. A child
inherits this harness's own until it executes its program, so that figure is exact above it and an upper bound below.
"""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

_INTERVAL = 0.05


@dataclass(frozen=True)
class Command:
    """A pipe of one or more stages, where its ends lead, and what must run after it to be done."""

    stages: tuple[tuple[str, ...], ...]
    directory: Path
    environment: Mapping[str, str]
    output: Path | None = None
    then: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class CommandFailed(Exception):
    """A stage ended with another exit code than 0; `tail` is the end of what it said."""

    def __init__(self, program: str, code: int, tail: str) -> None:
        super().__init__(f"{program} ended with exit code {code}: {tail}")


def run(command: Command, log: Path) -> Cost:
    """Run `command` to its end and measure it; what it says goes to `log`.

    Raises:
        CommandFailed: a stage failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    os.sync()  # what an earlier contender left to be written is not this one's to wait for
    with ExitStack() as stack:
        said = stack.enter_context(log.open("wb"))
        output = stack.enter_context(command.output.open("wb")) if command.output else said
        watch = stack.enter_context(_MemoryWatch())
        start = time.perf_counter()
        stages = _start(command, output.fileno(), said.fileno(), watch)
        ended = [_wait(stage) for stage in stages]
        if command.then and not any(stage.returncode for stage in stages):
            last = subprocess.Popen(command.then, cwd=command.directory, env=dict(command.environment), stderr=said)
            stages.append(last)
            ended.append(_wait(last))
        seconds = time.perf_counter() - start
    for stage in stages:
        if stage.returncode:
            program = stage.args[0] if isinstance(stage.args, (list, tuple)) else stage.args
            raise CommandFailed(str(program), stage.returncode, _tail(log))
    peak = max(watch.peak, _reported(ended)) or sum(usage.ru_maxrss for usage in ended) * 1024
    return Cost(seconds, sum(usage.ru_utime + usage.ru_stime for usage in ended), peak)


def _reported(ended: list[resource.struct_rusage]) -> int:
    """The largest stage's peak where it can be told from this harness's own; 0 where it can't and `/proc` must say."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max((usage.ru_maxrss for usage in ended if usage.ru_maxrss > own), default=0) * 1024


def _start(command: Command, output: int, said: int, watch: "_MemoryWatch") -> list[subprocess.Popen[bytes]]:
    stages: list[subprocess.Popen[bytes]] = []
    for number, stage in enumerate(command.stages):
        process = subprocess.Popen(
            stage,
            stdin=stages[-1].stdout if stages else subprocess.DEVNULL,
            stdout=output if number == len(command.stages) - 1 else subprocess.PIPE,
            stderr=said,
            cwd=command.directory,
            env=dict(command.environment),
            start_new_session=True,
        )
        watch.add(process.pid)
        if stages and (upstream := stages[-1].stdout):
            upstream.close()  # or the stage before never sees that its reader has gone
        stages.append(process)
    return stages


def _wait(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-600:]


@dataclass
class _MemoryWatch:
    """Sums, every 50 ms, what the processes of the sessions it was told of hold; `peak` in bytes."""

    peak: int = 0
    _sessions: set[int] = field(default_factory=set)
    _session_of: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "_MemoryWatch":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def add(self, session: int) -> None:
        """Watch the processes of this session, whose leader has executed its program."""
        self._session_of[session] = session
        self._sessions.add(session)

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self.peak = max(self.peak, sum(map(_highest_resident, self._members())))

    def _members(self) -> list[int]:
        alive = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        for pid in alive:
            if pid not in self._session_of:  # asked once: most processes of a machine are none of ours
                self._session_of[pid] = _session(pid)
        return [pid for pid in alive if self._session_of[pid] in self._sessions]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _highest_resident(pid: int) -> int:
    """`VmHWM` in bytes; 0 for a process that has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    _, found, rest = status.partition(b"VmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if found else 0
