"""Which message goes to which channel. Pure.

Routes are rules separated by ``;``, each ``WHAT -> CHANNELS``. ``WHAT`` is words that must all hold::

    error -> pagerduty, email
    backup-failed|backup-partial type=full|incremental -> slack
    warning -> slack
    digest -> email
    * -> webhook

A word is a severity (``error``, ``warning``, ``info``), an event, ``type=`` and backup types, or ``*``; alternatives
are separated by ``|``. A message goes to the channels of every rule that holds, ``none`` being none. That something is
over goes where it was told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from chrono_backups.events import Severity
from chrono_backups.identifiers import BACKUP_TYPES
from chrono_backups.notifications.catalogue import EVENTS, NEWS_EVENTS

if TYPE_CHECKING:  # settings are read by programs that must start quickly
    from chrono_backups.notifications.message import Message

CHANNELS = ("email", "slack", "discord", "pagerduty", "webhook", "apprise")
ROUTES_ACCEPTED = "rules separated by ';', each 'WHAT -> CHANNELS'"

_SEVERITIES: tuple[str, ...] = get_args(Severity)


@dataclass(frozen=True)
class Route:
    """One rule. An empty set holds for everything."""

    severities: frozenset[str]
    events: frozenset[str]
    types: frozenset[str]
    channels: frozenset[str]

    def holds(self, message: Message) -> bool:
        """Whether it is about this message."""
        if message.event in NEWS_EVENTS and message.event not in self.events:
            return False  # a rule of severities is about what is wrong
        return (
            (not self.severities or message.severity in self.severities)
            and (not self.events or message.event in self.events)
            and (not self.types or message.backup_type in self.types)
        )


def parse_routes(text: str, enabled: Set[str], known: Set[str] = frozenset(CHANNELS)) -> tuple[Route, ...]:
    """The rules of ``text``. ``ValueError`` says what is accepted, and names the word that is not.

    ``known`` are the channels of which it is known whether they are ``enabled``.
    """
    rules = [rule for rule in (part.strip() for part in text.replace("\n", ";").split(";")) if rule]
    return tuple(_route(rule, enabled, known) for rule in rules)


def _route(rule: str, enabled: Set[str], known: Set[str]) -> Route:
    what, arrow, where = (part.strip() for part in rule.partition("->"))
    if not arrow or not what or not where:
        raise ValueError(f"{ROUTES_ACCEPTED}, as 'error -> email'; not '{rule}'")
    severities, events, types = set[str](), set[str](), set[str]()
    for word in what.split():
        name, equals, values = word.partition("=")
        if equals:
            _only([name], ["type"], "a word before '='")
            _only(values.split("|"), BACKUP_TYPES, "a backup type")
            types |= set(values.split("|"))
        elif word != "*":
            options = word.split("|")
            if set(options) <= set(_SEVERITIES):
                severities |= set(options)
            else:
                _only(options, [*EVENTS, *_SEVERITIES], "an event or a severity")
                if set(options) & set(_SEVERITIES):
                    raise ValueError(f"severities or events in one word, not both; not '{word}'")
                events |= set(options)
    return Route(frozenset(severities), frozenset(events), frozenset(types), _channels(where, enabled, known))


def _channels(where: str, enabled: Set[str], known: Set[str]) -> frozenset[str]:
    names = [name for name in (name.strip() for name in where.split(",")) if name]
    _only(names, [*CHANNELS, "none"], "a channel")
    for name in names:
        if name in known and name not in enabled:
            raise ValueError(f"channels that are enabled; {name} is not")
    return frozenset(names) - {"none"}


def _only(words: Iterable[str], known: Sequence[str], kind: str) -> None:
    for word in words:
        if word not in known:
            import difflib  # noqa: PLC0415 - needed for a mistake only

            near = difflib.get_close_matches(word, known, n=1)
            said = f"the nearest to '{word}' is {near[0]}" if near else f"one of {', '.join(known)}; not '{word}'"
            raise ValueError(f"{kind}: {said}")


def chosen(message: Message, routes: Sequence[Route] | None, channels: Sequence[str]) -> tuple[str, ...]:
    """The enabled ``channels`` that the message goes to; by the default ones where ``routes`` is None."""
    if message.event == "channel-failing":  # the channel itself would be no use
        channels = [channel for channel in channels if channel != message.subject]
    if routes is None:
        return tuple(channel for channel in channels if _by_default(message, channel))
    names = set[str]().union(*(route.channels for route in routes if route.holds(message)))
    found = tuple(channel for channel in channels if channel.partition("-")[0] in names)
    # That messages do not arrive concerns whoever can still be reached.
    return found or (tuple(channels) if message.event == "channel-failing" else ())


def _by_default(message: Message, channel: str) -> bool:
    if message.event in NEWS_EVENTS:
        return message.event == "digest" and channel != "pagerduty"
    return message.severity == "error" or (message.severity == "warning" and channel != "pagerduty")
