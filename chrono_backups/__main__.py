"""``chrono-backups``, also as ``python -m chrono_backups``."""

from __future__ import annotations

import sys


def main() -> int:
    """The console script's entry point."""
    try:
        from chrono_backups.cli.main import main as run  # noqa: PLC0415 - an interrupt may come this early

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
