"""What a verb works with: output, clock, settings and the application behind them, each when first asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chrono_backups.cli.terminal.output import Output
from chrono_backups.cli.terminal.progress import FINDINGS_SHOWN, finding_line, reported
from chrono_backups.clock import Clock, SystemClock
from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.redaction import redacted, secrets_of_environment, secrets_of_settings

if TYPE_CHECKING:
    from chrono_backups.assembly import Application
    from chrono_backups.cli.outcome import Undertaking
    from chrono_backups.identifiers import StorageName
    from chrono_backups.monitoring.journal import Journal
    from chrono_backups.notifications.alerts import Alerts
    from chrono_backups.repository.repository import Repository
    from chrono_backups.settings import Settings

TRIGGER = "command line"
DEBUG = "BACKUP_DEBUG"
NEW_KEY = "BACKUP_NEW_ENCRYPTION_KEY"
RUN_VARIABLES = (DEBUG, NEW_KEY)
"""Variables of one run of this program, which are no settings."""


class Context:
    """One run of the program."""

    def __init__(self, output: Output, *, clock: Clock | None = None) -> None:
        self.output = output
        self.clock = clock if clock is not None else SystemClock()
        self.began = self.clock.monotonic()
        self.when_cancelled = ""
        """What to say of the state that a cancelled run leaves behind; the verb knows."""
        self.leave_at_once = False
        """End the process without waiting for threads: one of them hangs."""
        self.undertaken: Undertaking | None = None
        """What the verb does that others have to hear of."""
        self.env_file: str | None = None
        """Read in place of ``.env``."""
        self.journal: Journal | None = None
        """Where this run is recorded, once it is known."""
        self._overrides: dict[str, str] = {}
        self._told: Counter[str] = Counter()
        self._secrets = secrets_of_environment(os.environ)
        output.redact = self.redact
        output.warned = self._warned

    @cached_property
    def settings(self) -> Settings:
        """The settings in force. Raises ``SettingsError`` with all that is wrong."""
        from chrono_backups import settings  # noqa: PLC0415 - pydantic: keygen and wrong usage do without

        environ = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES} | self._overrides
        loaded = settings.load(environ, env_file=None if self.env_file is None else Path(self.env_file))
        self._secrets |= secrets_of_settings(loaded)
        return loaded

    @property
    def knows_settings(self) -> bool:
        """Whether they were asked for, and are right."""
        return "settings" in vars(self)

    def undertake(self, operation: str, event: str, *, backup_type: str = "") -> Undertaking:
        """Begin what others have to hear of: how it ends is told by the channels of notifications."""
        from chrono_backups.cli.outcome import Undertaking  # noqa: PLC0415 - for some verbs only

        self.undertaken = Undertaking(operation, event, backup_type)
        return self.undertaken

    def override(self, variables: Mapping[str, str]) -> None:
        """Have these variables in place of the environment's, for this run. Before settings are first asked for."""
        self._overrides |= variables
        self._secrets |= secrets_of_environment(variables)

    @cached_property
    def application(self) -> Application:
        """The live objects that the settings describe."""
        from chrono_backups.assembly import Application  # noqa: PLC0415 - the engine: as above

        return Application(self.settings, clock=self.clock, on_begun=self._begun)

    def _begun(self, backup_id: str) -> None:
        if self.journal is not None and self.journal.act.name == "backup":
            self.journal.backup_id = backup_id
        elif self.journal is not None:
            self.journal.note("info", f"A safety backup is taken first: {backup_id}")

    def about(self, backup_id: str) -> None:
        """The run works on that backup, which `latest` may have meant: its records say so."""
        if self.journal is not None:
            self.journal.backup_id = backup_id

    @cached_property
    def alerts(self) -> Alerts:
        """Those who are told what goes wrong."""
        from chrono_backups.oversight import alerts  # noqa: PLC0415 - as above

        return alerts(self.settings, self.clock)

    @contextmanager
    def repository(self, storage: StorageName | None = None) -> Iterator[Repository]:
        """The repository in ``storage``, or in the primary one."""
        with self.application.open_repository(storage) as repository:
            yield repository

    @contextmanager
    def reading(self, storage: StorageName | None = None) -> Iterator[Repository]:
        """The repository in ``storage``, or without a name in whichever storage answers; nothing can be written."""
        with self.application.open_for_reading(storage, self._tell) as repository:
            yield repository

    def _tell(self, event: Progress | Finding) -> None:
        """Say what was found, so many times of a kind."""
        if self.journal is not None:
            self.journal.tell(event)
        if isinstance(event, Finding):
            self._told[event.code] += 1
            if self._told[event.code] <= FINDINGS_SHOWN:
                self.output.error(finding_line(event))

    @property
    def has_told(self) -> bool:
        """Whether anything was found on the way that people should hear of."""
        return bool(self._told)

    @contextmanager
    def progress(self) -> Iterator[Listener]:
        """A listener for long work, shown on standard error; findings are logged too."""
        with reported(self.output, self.clock) as shown:

            def listener(event: Progress | Finding) -> None:
                if self.journal is not None:
                    self.journal.tell(event)
                shown(event)

            yield listener

    def _warned(self, text: str) -> None:
        if self.journal is not None:
            self.journal.warn(text)

    def redact(self, text: str) -> str:
        """``text`` without any secret that this run knows."""
        return redacted(text, self._secrets)
