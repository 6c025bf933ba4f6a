"""The front of this room: what was seen goes in, and people hear what they must, now or as soon as a channel works."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from chrono_backups.clock import Clock, from_text, to_text
from chrono_backups.events import Finding
from chrono_backups.notifications.base import Notifier
from chrono_backups.notifications.delivery import Delivered, deliver
from chrono_backups.notifications.incidents import Changes, Covers, Incident, Sighting, nothing_ends, observe, reminders
from chrono_backups.notifications.ledger import Ledger
from chrono_backups.notifications.message import Message, Site, message_of, news
from chrono_backups.notifications.outbox import ChannelState, Outbox
from chrono_backups.notifications.outcome import Ended, ends, sightings
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.routes import Route, chosen, parse_routes
from chrono_backups.notifications.settings import NotificationsSettings
from chrono_backups.notifications.standing import Standing
from chrono_backups.notifications.state import State

Redact = Callable[[str], str]

FAILURES_TO_TELL = 3
"""So many in a row, and a channel that does not answer is reported; one that refuses us at once."""
_STANDING, _DIGEST, _SUSPECTS = "standing", "digest", "suspects"
_DIGEST_LATE = timedelta(hours=6)
"""A digest that could not be made so long after its time is left out."""


@dataclass(frozen=True)
class Overview:
    """How things are."""

    incidents: Sequence[Incident]
    channels: Sequence[ChannelState]
    standing: Standing | None


class Alerts:
    """Incidents, messages and channels of one deployment. Does nothing where no channel is enabled."""

    def __init__(
        self,
        settings: NotificationsSettings,
        state: State,
        site: Site,
        renderer: Renderer,
        notifiers: Mapping[str, Notifier],
        *,
        clock: Clock,
        redact: Redact,
    ) -> None:
        """``redact`` masks every secret that settings know, in whatever people are told."""
        self._settings, self._state, self._site = settings, state, site
        self._renderer, self._notifiers, self._clock, self._redact = renderer, notifiers, clock, redact

    @property
    def enabled(self) -> bool:
        """Whether anybody is told anything."""
        return bool(self._notifiers)

    @property
    def site(self) -> Site:
        """Whose backups they are."""
        return self._site

    @property
    def channels(self) -> tuple[str, ...]:
        """The enabled channels."""
        return tuple(self._notifiers)

    # What was seen.

    def observe(
        self, seen: Sequence[Sighting], covers: Covers = nothing_ends, *, token: str = ""
    ) -> tuple[Message, ...]:
        """Take note; the messages that are to go out. ``covers`` tells which incidents are over when not in ``seen``.

        With a ``token`` only the first time that it is used. All of it is on the disk, or, with a
        ``NotificationError``, none of it.
        """
        if not self.enabled:
            return ()
        now = self._clock.now()
        with self._state.transaction() as sql:
            ledger = Ledger(sql)
            if token and not ledger.first_time(token, now):
                return ()
            changes = observe(ledger.open_incidents(), [self._masked(one) for one in seen], covers, now)
            ledger.apply(changes)
            return self._put(Outbox(sql), ledger, changes, now)

    def ended(self, ended: Ended, *, token: str = "") -> tuple[Message, ...]:
        """Take note of how an operation ended. As ``observe``."""
        return self.observe(sightings(ended), partial(ends, ended), token=token)

    def believed(self, suspects: Sequence[Sighting]) -> set[str]:
        """Of these, the keys of those that were suspected the last time too, or are incidents already."""
        if not self.enabled or (not suspects and not self._state.exists):
            return set()
        keys = {one.key for one in suspects}
        with self._state.transaction() as sql:
            ledger = Ledger(sql)
            known = {*(ledger.fact(_SUSPECTS) or []), *(incident.key for incident in ledger.open_incidents())}
            ledger.note(_SUSPECTS, sorted(keys))
        return keys & known

    def observe_settings(self, found: Sequence[Finding]) -> tuple[Message, ...]:
        """Take note of what is wrong with the settings of notifications, among all findings of settings."""
        seen = [Sighting(finding) for finding in found if finding.code == "notify-settings"]
        return self.observe(seen, lambda one: one.last.finding.code == "notify-settings")

    def tell(self, event: str, *, name: str, what: str, **more: object) -> Message | None:
        """Put news into the outbox; None where nobody is to hear it, or did already under that ``name``."""
        if not self.enabled:
            return None
        now = self._clock.now()
        message = news(event, self._site, now, name=name, what=self._redact(what), **more)
        channels = chosen(message, self.routes, self.channels)
        if not channels:
            return None
        with self._state.transaction() as sql:
            ledger = Ledger(sql)
            if not ledger.first_time(f"news {name}", now):
                return None
            message = replace(message, standing=_standing(ledger))
            Outbox(sql).put(message, channels)
        return message

    def note_standing(self, standing: Standing) -> None:
        """Remember what is safe, for messages of a time at which nobody can look."""
        if self.enabled:
            with self._state.transaction() as sql:
                ledger, before = Ledger(sql), _standing(Ledger(sql))
                if before is not None and before.proven_at is not None:
                    standing = standing.with_proof(before.proven_id, before.proven_at, before.proven_by)
                ledger.note(_STANDING, standing.to_json())

    def note_proof(self, backup_id: str, by: str) -> None:
        """Remember that a backup was proven just now, by a ``drill`` or a full ``verify``."""
        if self.enabled:
            now = self._clock.now()
            with self._state.transaction() as sql:
                ledger = Ledger(sql)
                standing = _standing(ledger) or Standing(now)
                ledger.note(_STANDING, standing.with_proof(backup_id, now, by).to_json())

    def digest(self, timezone: str, rows: Callable[[datetime], Sequence[tuple[str, str, str]]]) -> Message | None:
        """Put the digest into the outbox where it is time for one. ``rows`` are of the backups since a moment."""
        at, now = self._settings.digest, self._clock.now()
        if at is None or not self.enabled:
            return None
        local = now.astimezone(ZoneInfo(timezone))
        due = local.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
        if not due <= local < due + _DIGEST_LATE:
            return None
        with self._state.transaction() as sql:
            ledger = Ledger(sql)
            if ledger.fact(_DIGEST) == due.date().isoformat():
                return None
            bad = len(ledger.open_incidents())
        found = tuple(rows(now - timedelta(days=1)))
        good = sum(how == "complete" for _, how, _ in found)
        what = f"{len(found)} backups in the last day, {good} of them complete."
        what += f" {bad} thing{'s are' if bad != 1 else ' is'} wrong now." if bad else " Nothing is wrong."
        message = self.tell("digest", name=f"digest {due.date().isoformat()}", what=what, rows=found)
        with self._state.transaction() as sql:
            Ledger(sql).note(_DIGEST, due.date().isoformat())
        return message

    # What goes out.

    def flush(self, seconds: float) -> Delivered:
        """Say what has lasted for long again, and deliver what waits, for so many seconds at most.

        A channel that fails is an incident, told on the others.
        """
        if not self.enabled or not self._state.exists:
            return Delivered()
        began = self._clock.monotonic()
        self._remind()
        report = deliver(self._state, self._notifiers, self._clock, seconds)
        if self._judge_channels(report):
            # What is to be heard of a channel that failed just now, on those that did not.
            well = {name: one for name, one in self._notifiers.items() if name not in report.faults}
            report.add(deliver(self._state, well, self._clock, max(0.0, began + seconds - self._clock.monotonic())))
        return report

    def _remind(self) -> None:
        now = self._clock.now()
        with self._state.transaction() as sql:
            ledger, outbox = Ledger(sql), Outbox(sql)
            changes = reminders(ledger.open_incidents(), now, self._settings.repeat)
            ledger.apply(changes)
            self._put(outbox, ledger, changes, now)
            outbox.tidy(self.channels, now)

    def _judge_channels(self, report: Delivered) -> tuple[Message, ...]:
        """Incidents of the channels and templates themselves."""
        with self._state.transaction() as sql:
            states = Outbox(sql).channels(self.channels)
        seen = [
            Sighting(Finding("channel-failing", "error", one.name, _in_words(one), one.hint))
            for one in states
            if one.failures >= FAILURES_TO_TELL or one.refused
        ]
        seen += [
            Sighting(Finding("channel-failing", "warning", name, what, "Correct the recipients."))
            for name, what in report.complaints.items()
        ]
        hint = "Mend the template; until then the built-in one is used."
        seen += [
            Sighting(Finding("template-broken", "warning", name, what, hint))
            for name, what in self._renderer.faults.items()
        ]
        good = {one.name for one in states if not one.failures and report.sent.get(one.name)}
        return self.observe(
            seen, lambda one: one.last.finding.code == "channel-failing" and one.last.finding.subject in good
        )

    def test(self, channel: str) -> str:
        """Send a test message by that channel, now and past the outbox. Returns and raises as ``Notifier.send``."""
        now = self._clock.now()
        what = "This is a test. Whoever reads it will hear of what goes wrong with these backups."
        message = news("test", self._site, now, name=f"test@{to_text(now)}", what=what)
        return self._notifiers[channel].send(message)

    def retry_now(self) -> None:
        """Have what waits for a channel to recover tried at once."""
        if self.enabled and self._state.exists:
            with self._state.transaction() as sql:
                Outbox(sql).retry_now(self.channels)

    def overview(self) -> Overview:
        """What is wrong, what waits, what is safe."""
        if not self.enabled or not self._state.exists:
            return Overview((), [ChannelState(name, 0, 0, False, "", "", "", "") for name in self.channels], None)
        with self._state.transaction() as sql:
            ledger = Ledger(sql)
            return Overview(ledger.open_incidents(), Outbox(sql).channels(self.channels), _standing(ledger))

    # Inside.

    @property
    def routes(self) -> tuple[Route, ...] | None:
        """The operator's; None where the default ones hold."""
        text = self._settings.routes
        kinds = {channel.partition("-")[0] for channel in self.channels}
        return None if text is None else parse_routes(text, kinds, frozenset())

    def _put(self, outbox: Outbox, ledger: Ledger, changes: Changes, now: datetime) -> tuple[Message, ...]:
        """The messages of these changes, in the outbox."""
        standing = _standing(ledger) if changes.told else None
        made = tuple(message_of(state, incident, self._site, standing, now) for state, incident in changes.told)
        for message in made:
            if channels := chosen(message, self.routes, self.channels):
                outbox.put(message, channels)
        return made

    def _masked(self, sighting: Sighting) -> Sighting:
        found = sighting.finding
        subject, message, hint = map(self._redact, (found.subject, found.message, found.hint))
        return replace(
            sighting,
            finding=Finding(found.code, found.severity, subject, message, hint),
            link=self._redact(sighting.link),
        )


def _standing(ledger: Ledger) -> Standing | None:
    """What was safe when somebody looked last."""
    noted = ledger.fact(_STANDING)
    with suppress(KeyError, TypeError, ValueError):
        return None if noted is None else Standing.from_json(noted)
    return None


def _in_words(channel: ChannelState) -> str:
    since = f" since {from_text(channel.failing_since):%Y-%m-%d %H:%M} UTC" if channel.failing_since else ""
    count = f"{channel.waiting} message{'s' if channel.waiting != 1 else ''} wait"
    return f"{channel.fault}{since}; {count}{'s' if channel.waiting == 1 else ''}, and none is lost"
