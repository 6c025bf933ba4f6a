"""Messages as text, as HTML and as a chat's text, by Jinja2 templates that an operator may replace.

For each kind of text the first of these that is there is used, the operator's directory before the built-in one::

    backup-failed.txt   backup-failed.html   backup-failed.md   backup-failed.subject     of the event
    message.txt         message.html         message.md         message.subject           of every event

Templates are sandboxed, and HTML is escaped. One of the operator's that fails is reported, and the built-in one is
used: a message is never lost to its own looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrono_backups.events import Finding
from chrono_backups.notifications.catalogue import EVENTS
from chrono_backups.notifications.message import Message, Site, news
from chrono_backups.notifications.standing import Standing

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

KINDS = ("subject", "txt", "html", "md")
_BUILT_IN = Path(__file__).parent / "templates"
_LONGEST = 200_000
"""Characters of one rendered text: a template that repeats itself without end is cut."""
COLOURS = {"error": "#c62828", "warning": "#e08a00", "info": "#1565c0", "resolved": "#2e7d32"}


@dataclass(frozen=True)
class Rendered:
    """A message as people read it."""

    subject: str
    """One line."""
    text: str
    html: str
    chat: str
    """Plain text for a chat's message: what happened. ``facts`` go into its fields."""
    facts: tuple[tuple[str, str], ...]
    colour: str
    """As ``#rrggbb``."""


class Renderer:
    """Renders messages. ``faults`` has what is wrong with the operator's templates, as far as they were used."""

    def __init__(self, override: Path | None = None) -> None:
        self._override = override
        self._environments: dict[Path, SandboxedEnvironment] = {}
        self.faults: dict[str, str] = {}

    def render(self, message: Message, now: datetime) -> Rendered:
        """The message, with ages as of ``now``."""
        facts = facts_of(message, now)
        colour = COLOURS["resolved" if message.state == "resolved" else message.severity]
        given = {"message": message, "site": message.site, "headline": message.headline, "facts": facts,
                 "colour": colour, "moment": in_words, "age": age}  # fmt: skip
        subject, text, html, chat = (self._text(message.event, kind, given) for kind in KINDS)
        return Rendered(" ".join(subject.split())[:250], text, html, chat.strip(), facts, colour)

    def _text(self, event: str, kind: str, given: dict[str, Any]) -> str:
        for directory in (self._override, _BUILT_IN):
            for name in (f"{event}.{kind}", f"message.{kind}"):
                if directory is None or not (directory / name).is_file():
                    continue
                try:
                    return self._render(directory, name, given)
                except Exception as error:
                    if directory is _BUILT_IN:
                        raise
                    self.faults[name] = _fault(error)
        raise AssertionError(f"no built-in template renders {kind}")

    def _render(self, directory: Path, name: str, given: dict[str, Any]) -> str:
        environment = self._environments.get(directory)
        if environment is None:
            environment = self._environments[directory] = _environment(directory)
        parts: list[str] = []
        length = 0
        for part in environment.get_template(name).generate(given):
            parts.append(part)
            length += len(part)
            if length > _LONGEST:
                raise ValueError(f"it makes more than {_LONGEST:,} characters")
        return "".join(parts)


def _environment(directory: Path) -> SandboxedEnvironment:
    from jinja2 import FileSystemLoader, StrictUndefined  # noqa: PLC0415 - for those who send something only
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    # The built-in ones too, so that an operator's may extend them.
    places = [directory] if directory == _BUILT_IN else [directory, _BUILT_IN]
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(places),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _fault(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    return f"{type(error).__name__}: {error}" + (f" (line {line})" if line else "")


def check_templates(override: Path | None, now: datetime) -> list[Finding]:
    """What is wrong with an operator's templates: each is rendered with a message of its event, open and over."""
    if override is None:
        return []
    hint = "Mend it; until then the built-in one is used."
    if not override.is_dir():
        return [Finding("template-broken", "error", str(override), "BACKUP_NOTIFY_TEMPLATES is no directory", hint)]
    renderer, found = Renderer(override), []
    for event in EVENTS:
        for message in _samples(event, now):
            renderer.render(message, now)
    known = {f"{event}.{kind}" for event in (*EVENTS, "message") for kind in KINDS}
    for path in sorted(override.iterdir()):
        if path.name in renderer.faults:
            found.append(Finding("template-broken", "error", str(path), renderer.faults[path.name], hint))
        elif path.suffix[1:] in KINDS and path.name not in known and not path.name.startswith("_"):
            what = "no event has this name, so it is never used unless another template includes it"
            found.append(Finding("template-unused", "warning", str(path), what, "docs/notifications.md lists them."))
    return found


def _samples(event: str, now: datetime) -> Iterator[Message]:
    standing = Standing(now, "full_20260101_020000", now - timedelta(hours=9), "full_20260101_020000", now, "drill")
    given: dict[str, Any] = {"to_do": "Nothing: it is an example.", "subject": "full", "backup_type": "full",
                             "severity": "error", "incident": "sample:full", "count": 3}  # fmt: skip
    for state, known in (("opened", standing), ("reminder", None), ("resolved", Standing(now))):
        yield news(
            event, Site("example", "host", "https://dagster.example.com"), now, name="sample", what="An example.",
            state=state, standing=known, rows=(("full_20260101_020000", "complete", "1.2 GiB"),), **given,
        )  # fmt: skip


# What every kind of text shows.


def facts_of(message: Message, now: datetime) -> tuple[tuple[str, str], ...]:
    """Label and value, in the order in which a reader wants them; nothing that is not known."""
    rows = [("Backup", message.backup_id)]
    if message.incident:
        rows.append(("Since", f"{in_words(message.since)} ({age(now - message.since)} ago)"))
        if message.count > 1:
            rows.append(("Seen", f"{message.count:,} times"))
    rows += safe_in_words(message.standing, now)
    if message.state != "resolved":
        rows.append(("What to do", message.to_do))
    rows.append(("Run", message.link))
    rows.append(("Where", f"{message.site.name} ({message.site.host})" if message.site.host else message.site.name))
    return tuple((label, value) for label, value in rows if value)


def safe_in_words(standing: Standing | None, now: datetime) -> Sequence[tuple[str, str]]:
    """What is safe and what is proven; nothing where nobody looked yet."""
    if standing is None:
        return []
    if standing.newest_at is None:
        return [("Still safe", "nothing: there is no complete backup")]
    safe = f"{standing.newest_id}: all up to {in_words(standing.newest_at)} ({age(now - standing.newest_at)} ago)"
    if standing.proven_at is None:
        proven = "never, by a drill or a full verification"
    else:
        how = "a drill" if standing.proven_by == "drill" else "a full verification"
        proven = f"{standing.proven_id}, by {how}, {in_words(standing.proven_at)} ({age(now - standing.proven_at)} ago)"
    if now - standing.known_at > timedelta(hours=1):
        safe += f"; as of {in_words(standing.known_at)}, when the repository could be read last"
    return [("Still safe", safe), ("Last proven", proven)]


def in_words(moment: datetime) -> str:
    """A moment for a reader: ``2026-01-31 02:00 UTC``."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def amount(count: float) -> str:
    """A number of bytes for a reader: ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def age(span: timedelta) -> str:
    """A span for a reader: ``3 days``, ``2 h 5 min``."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"
