"""``chrono-backups``, also as ``python -m chrono_backups``."""

from __future__ import annotations

import sys
from typing import NoReturn

_FEW_COLLECTIONS = 50_000
"""New objects after which Python looks for garbage. By its own 700 it looks through all modules again and again while
they are imported, a sixth of a short verb's start; at this, a few MB wait to be found."""


def main() -> int:
    """Run the program with the process's words. Returns its exit code."""
    try:
        from chrono_backups.cli.main import main as run  # noqa: PLC0415 - an interrupt may come this early

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def program() -> NoReturn:
    """The console script's entry point: a process of its own, from its first import to its end."""
    import gc  # noqa: PLC0415 - for the process only

    gc.set_threshold(_FEW_COLLECTIONS)
    _leave(main())


def _leave(code: int) -> NoReturn:
    """End the process, all that was registered for its end done, without taking every module apart first.

    That takes as long as a small backup's last tenth. Output that can't be written was told of by ``Output``.
    """
    import atexit  # noqa: PLC0415 - as in program
    import os  # noqa: PLC0415
    import threading  # noqa: PLC0415

    threading._shutdown()  # type: ignore[attr-defined] # the interpreter itself begins its end with this
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    program()
