"""What ``make demo`` does: a small application of files, configuration, PostgreSQL, Redis and Meilisearch is backed up,
changed and backed up again through Dagster, drilled and proven, replicated, restored by the command line alone,
compared, and shown in Dagster's UI. A table is dropped meanwhile, and the database restored to the moment before.

python -m demo [--port 3000] [--once]

What it makes lies below ``.demo/`` in the checkout, and is made anew each time; the servers lie in temporary
directories, which are gone afterwards. Redis is there where the machine has a ``redis-server``; Meilisearch is the
tests' stand-in for one.
"""

import argparse
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from demo.account import Account
from demo.cache import Cache, CacheFailed
from demo.database import Database, DatabaseFailed
from demo.follower import Follower
from demo.point_in_time import PointInTime
from demo.receiver import Receiver, ReceiverFailed
from demo.search import Search, SearchFailed
from demo.served import CHECKOUT, Served, ServedFailed, free_port
from demo.walk import CommandFailed, Walk

PLACE = CHECKOUT / ".demo"
_FAILURES = (CacheFailed, CommandFailed, DatabaseFailed, ReceiverFailed, SearchFailed, ServedFailed)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 restored as it was; 1 anything else; 130 cancelled."""
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _cancel)
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"demo: another one is running in {PLACE}; end it first", file=sys.stderr)
            return 1
        try:
            return _demo(options.port, options.once)
        except KeyboardInterrupt:
            return 130
        except _FAILURES as failure:
            print(f"\ndemo: {failure}", file=sys.stderr)
            return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m demo", description="Back up a small application, restore it, compare.")
    parser.add_argument("--port", type=int, default=3000, help="of the UI (3000); the next free one if it is taken")
    parser.add_argument("--once", action="store_true", help="end when all is compared, in place of serving the UI")
    return parser.parse_args(arguments)


def _cancel(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _demo(port: int, once: bool) -> int:
    for left in PLACE.iterdir():
        if left.name != "lock":
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    account = Account(
        f"Chrono Backups, shown on a small application. All lies in {_shown(PLACE)}/, but for its servers."
    )
    walk = Walk(PLACE, account)
    walk.make_site()
    with ExitStack() as until_the_end:
        with account.step("Its database, in which orders come in from now on") as said:
            database = until_the_end.enter_context(Database())
            database.work()
            held = database.holding()
            said(
                f"PostgreSQL {database.version} on 127.0.0.1:{database.port}, {held.rows:,} orders, in {database.place}"
            )
        stores = _beside(database, account, until_the_end)
        walk.set_up({**database.settings(), **stores})
        with account.step("wal-receive: a service that stores the database's log within seconds") as said:
            receiver = until_the_end.enter_context(Receiver(PLACE, walk.environment))
            said(f"what it says: {_shown(PLACE)}/wal-receive.log")
        with account.step("Dagster: webserver, daemon and code location") as said:
            served = until_the_end.enter_context(Served(PLACE / "dagster", PLACE, walk.environment, free_port(port)))
            said(f"{served.url} – what follows can be watched there")
        restored = walk.through(served, PointInTime(account, database, receiver))
        if restored and not once:
            _serve(served)
    return 0 if restored else 1


def _beside(database: Database, account: Account, until_the_end: ExitStack) -> dict[str, str]:
    """Start the stores beside the database. Returns the settings of them, and of what must hold across all."""
    with account.step("Its cache and its search, which follow the orders") as said:
        program = Cache.find()
        cache = until_the_end.enter_context(Cache(program)) if program is not None else None
        if cache is None:
            said("no redis-server is on the PATH: going on without Redis")
        else:
            said(f"Redis {cache.version} on 127.0.0.1:{cache.port}")
        search = until_the_end.enter_context(Search())
        said(f"Meilisearch: the tests' stand-in for one, on {search.url}")
        follower = until_the_end.enter_context(Follower(database, cache, search))
    checks = PLACE / "drill-checks.txt"
    checks.write_text(follower.checks())
    found = {**search.settings(), "BACKUP_DRILL_CHECKS": str(checks)}
    return found if cache is None else {**found, **cache.settings()}


def _serve(served: Served) -> None:
    print(
        f"\nLook at it: {served.url}/asset-groups (lineage), {served.url}/runs, {served.url}/assets/full_backup\n"
        f"By hand:    cd {_shown(PLACE)} && ../.venv/bin/chrono-backups list\n"
        "Ctrl-C ends it.",
        flush=True,
    )
    try:
        while True:
            served.check()
            time.sleep(1)
    except KeyboardInterrupt:
        print("\nending …", flush=True)


def _shown(path: Path) -> str:
    """As the operator would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
