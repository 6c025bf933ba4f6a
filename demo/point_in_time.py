"""The accident: somebody drops a table. The database comes back as it was a moment before, row for row; and a drill
brings back all stores together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chrono_backups.cli.terminal.quantities import count, duration
from demo.account import Account
from demo.database import Database, Holding
from demo.receiver import Receiver
from demo.served import Served, ServedFailed

_SECONDS_TO_ARCHIVE = 90
Command = Callable[..., Any]


@dataclass(frozen=True)
class Accident:
    """A moment just before ``DROP TABLE orders``, and what the table held then."""

    moment: datetime
    held: Holding

    @property
    def iso(self) -> str:
        return self.moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class PointInTime:
    """The steps that are about the past: of the database, and of all stores together."""

    def __init__(self, account: Account, database: Database, receiver: Receiver) -> None:
        self._account = account
        self._database = database
        self._receiver = receiver

    def accident(self) -> Accident:
        """Orders have come in since the last backup; then the table is gone."""
        with self._account.step("An accident: DROP TABLE orders") as said:
            held, moment = self._database.drop_orders()
            said(f"it held {count(held.rows, 'order')} worth {held.cents / 100:,.2f}, some newer than the last backup")
            said(f"a moment before it was dropped: {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC")
        return Accident(moment, held)

    def restore(self, accident: Accident, command: Command, served: Served) -> bool:
        """Restore to that moment, start the server, and compare every row; whether they are the same."""
        target = self._database.place / "restored-database"
        title = "Restored to just before the DROP TABLE: base backup, then its log"
        with self._account.step(title) as said:
            served.until(lambda: self._is_archived(accident, command), "the log in the archive", _SECONDS_TO_ARCHIVE)
            done = command(
                "restore", "latest", "--source", "postgres", "--target-time", accident.iso, "--start",
                "--to", str(target),
            )  # fmt: skip
            started: Mapping[str, Any] = done["started"]
            try:
                found = self._database.holding_of(started)
            finally:
                self._database.end(started)
            said(f"replayed up to LSN {started['lsn']}, and the server answered, in {target}")
            if found == accident.held:
                said(f"compared: all {count(found.rows, 'order')} are there, every row byte for byte as it was")
                return True
            said(f"NOT as it was: {found} in place of {accident.held}")
            return False

    def _is_archived(self, accident: Accident, command: Command) -> bool:
        """The receiver stores within seconds; this tells when it has."""
        self._receiver.check()
        ends = [one["end_time"] for one in command("recovery-points")["ranges"]]
        return any(end and datetime.fromisoformat(end) > accident.moment for end in ends)

    def drill(self, command: Command, served: Served, day: str) -> None:
        """All sources of the newest backup, restored together; Dagster keeps what was found."""
        with self._account.step("A drill by a Dagster run: all stores restored together, and asked together") as said:
            run = served.run("drill_job", day, storage="local")
            facts = served.facts(run)
            if not facts["proven"]:
                raise ServedFailed(f"the drill did not prove the backup: {served.url}/runs/{run}")
            found = command("drill", "--list")[0]["details"]
            for source in found["sources"]:
                said(f"{source['source']:<14}{duration(source['seconds']):>6}  {_compared(source)}")
            for check in found["checks"]:
                verdict = "holds" if check["good"] else "DOES NOT HOLD"
                said(f"{verdict:<14}{check['left']}, {check['right']}  {check['check']}")
            said(
                f"{found['point']['note']}; all of it stood together, was compared and answered the checks "
                f"within {duration(found['seconds'])}"
            )
            said(f"{found['backup_id']} proven – {served.url}/runs/{run}")


def _compared(source: Mapping[str, Any]) -> str:
    """What was found out of a source, each thing once."""
    return "; ".join(dict.fromkeys(" ".join(proof["done"].split()) for proof in source["proofs"] if proof["done"]))
