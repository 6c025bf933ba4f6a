"""Takes many backups in one process, through the command line's own `main`: what measuring `list` needs.

`python -m benchmarks.many COUNT`; settings come from the environment.
"""

import contextlib
import os
import sys
from pathlib import Path


def main() -> int:
    """The exit code of the first backup that failed, or 0."""
    from chrono_backups.__main__ import main as command_line  # noqa: PLC0415 - the peers are measured without it

    count = int(sys.argv[1])
    sys.argv = ["chrono-backups", "backup", "--type", "incremental", "--json"]
    for _ in range(count):
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                code = command_line()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        if code:
            return int(code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
