"""Asking a helper process for a file of the log (``wal_ahead``): most of what ``wal-fetch`` takes is its own start.

The first call starts the helper. It answers each question as the program itself would, with settings and repository
opened anew, and only what is certain: a file as it is archived, or that there is none. Of everything else it says
nothing but that, and whoever asked finds out, and tells, by itself. So does it where the helper is not just what would
be started here: of the same words, in the same environment and directory.

A question is a file ``.question-TAG``, its answer ``.found-TAG``, which is the file itself, ``.none-TAG`` or
``.unsure-TAG``. Only who asked puts anything in the server's place: nothing comes there late.

Replay waits for what this file does, so it imports next to nothing.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Sequence

from chrono_backups.recovery.wal_spool import LOCK, PATIENCE, WAIT, helper_of, spool_for, take

QUESTION, FOUND, NONE, UNSURE = ".question-", ".found-", ".none-", ".unsure-"
LOCK_VARIABLE = "CHRONO_BACKUPS_SPOOL_LOCK"
"""Tells the helper which of its file descriptors holds the lock."""
WORDS_VARIABLE = "CHRONO_BACKUPS_SPOOL_WORDS"
"""Tells others with which words it was started."""
AHEAD = "--ahead"
NOT_ARCHIVED = "--not-archived"
_VALUED = frozenset({"--env-file", "--storage", "--system-identifier", NOT_ARCHIVED})
_OF_THE_SHELL = frozenset({LOCK_VARIABLE, WORDS_VARIABLE, "_", "PWD", "OLDPWD", "SHLVL"})
"""Variables that say nothing of what the program would do."""


def served(words: Sequence[str]) -> int | None:
    """The exit code where what the words of ``wal-fetch`` ask for is in place now, or certainly not archived.

    None where the program has to look by itself.
    """
    if len(words) < 3 or words[-1].startswith("-"):
        return None
    name, target = words[-2], os.path.abspath(words[-1])
    if take(name, target):
        return 0
    options = _options(words[:-2])
    spool = spool_for(target)
    if options is None or spool is None:
        return None
    missing = options.pop(NOT_ARCHIVED, "1")
    try:
        return _asked(spool, options, name, target, int(missing))
    except (OSError, ValueError):
        return None


def _options(words: Sequence[str]) -> dict[str, str] | None:
    """The options that matter to a helper; None where a word is not known here."""
    found: dict[str, str] = {}
    rest = iter(words)
    verbs = 0
    for word in rest:
        if word in _VALUED:
            found[word] = next(rest, "")
        elif word == "wal-fetch":
            verbs += 1
        elif word != "--quiet":
            return None
    return found if verbs == 1 else None


def _asked(spool: str, options: dict[str, str], name: str, target: str, missing: int) -> int | None:
    words = _helper_words(options)
    helper = helper_of(spool)
    if helper is None:
        _start(spool, words, name, target)
    elif not _is_ours(helper, words):
        return None
    tag = f"{os.getpid()}-{time.time_ns()}"
    question, found, none, unsure = (os.path.join(spool, kind + tag) for kind in (QUESTION, FOUND, NONE, UNSURE))
    with open(f"{question}.new", "wb") as file:  # noqa: PTH123 - as the rest of the spool's paths
        file.write(os.fsencode(name) + b"\0" + os.fsencode(target))
    os.rename(f"{question}.new", question)
    until = time.monotonic() + PATIENCE
    while True:
        lives = helper_of(spool) is not None  # before the answer: it may be its last
        if os.path.exists(found):
            os.rename(found, target)
            return 0
        for answer, code in ((none, missing), (unsure, None)):
            if os.path.exists(answer):
                os.unlink(answer)
                return code
        if not lives or time.monotonic() > until:
            _remove(question)
            return None
        time.sleep(WAIT)


def _helper_words(options: dict[str, str]) -> list[str]:
    before = [word for name, value in options.items() if name == "--env-file" for word in (name, value)]
    after = [word for name, value in sorted(options.items()) if name != "--env-file" for word in (name, value)]
    return ["--quiet", *before, "wal-fetch", *after, AHEAD]


def _start(spool: str, words: list[str], name: str, target: str) -> None:
    """Start a helper, unless one has been meanwhile. The lock is taken here and inherited: there is one only."""
    import subprocess  # noqa: PLC0415 - for the first call only

    os.makedirs(os.path.dirname(spool), mode=0o700, exist_ok=True)
    os.makedirs(spool, mode=0o700, exist_ok=True)
    handle = os.open(os.path.join(spool, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        for left in os.listdir(spool):
            if left.startswith(QUESTION):  # of one who waits no more
                _remove(os.path.join(spool, left))
        process = subprocess.Popen(  # noqa: S603 - this program, with words of its own
            [sys.executable, "-P", "-m", "chrono_backups", *words, name, target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[handle],
            env={**os.environ, LOCK_VARIABLE: str(handle), WORDS_VARIABLE: "\n".join(words)},
            start_new_session=True,
        )
        os.pwrite(handle, str(process.pid).encode(), 0)
    finally:
        os.close(handle)


def _remove(path: str) -> None:
    try:  # noqa: SIM105 - what this costs to import, each call would pay
        os.unlink(path)
    except OSError:
        pass


def _is_ours(helper: int, words: list[str]) -> bool:
    """Whether a helper that were started here would be the same: it would find the same, or not find it."""
    with open(f"/proc/{helper}/environ", "rb") as file:  # noqa: PTH123 - as above
        pairs = dict(pair.partition(b"=")[::2] for pair in file.read().split(b"\0") if pair)
    theirs = {os.fsdecode(name): os.fsdecode(value) for name, value in pairs.items()}
    if theirs.get(WORDS_VARIABLE) != "\n".join(words) or os.readlink(f"/proc/{helper}/cwd") != os.getcwd():
        return False
    return _telling(theirs) == _telling(dict(os.environ))


def _telling(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _OF_THE_SHELL}
