"""Which message goes where. Pure."""

from __future__ import annotations

import re

import pytest

from chrono_backups.notifications.message import Message, news
from chrono_backups.notifications.routes import CHANNELS, chosen, parse_routes
from chrono_backups_tests.notifications.messages import NOW, SITE, message

ALL = ("email", "slack", "pagerduty", "apprise-1", "apprise-2")


def to(text: str | None, sent: Message) -> set[str]:
    routes = None if text is None else parse_routes(text, set(CHANNELS))
    return set(chosen(sent, routes, ALL))


def of(severity: str = "error", event: str = "backup-failed", backup_type: str = "full") -> Message:
    return message(severity=severity, event=event, code=event, backup_type=backup_type)


DIGEST = news("digest", SITE, NOW, name="d", what="all is well")


def test_by_default_what_is_wrong_goes_everywhere_and_only_errors_page_somebody() -> None:
    assert to(None, of("error")) == set(ALL)
    assert to(None, of("warning")) == set(ALL) - {"pagerduty"}
    assert to(None, of("info")) == set()
    assert to(None, DIGEST) == set(ALL) - {"pagerduty"}
    assert to(None, news("backup-succeeded", SITE, NOW, name="s", what="made")) == set()


@pytest.mark.parametrize(
    ("text", "sent", "where"),
    [
        ("error -> email", of("error"), {"email"}),
        ("error -> email", of("warning"), set()),
        ("error|warning -> email; error -> pagerduty", of("error"), {"email", "pagerduty"}),
        ("* -> apprise", of("info"), {"apprise-1", "apprise-2"}),
        ("* -> email", DIGEST, set()),
        ("digest -> email", DIGEST, {"email"}),
        ("backup-failed|backup-overdue error type=full|incremental -> slack", of(), {"slack"}),
        ("backup-failed type=configuration -> slack", of(), set()),
        ("backup-partial -> slack", of(), set()),
        ("backup-failed -> none; error -> email", of(), {"email"}),
        ("\n error -> email \n\n warning -> slack;", of("warning"), {"slack"}),
    ],
)
def test_rules(text: str, sent: Message, where: set[str]) -> None:
    assert to(text, sent) == where


def test_its_end_goes_where_its_beginning_went() -> None:
    text = "error -> pagerduty; warning -> slack"
    for severity in ("error", "warning"):
        over = message("resolved", severity=severity)
        assert to(text, over) == to(text, message("opened", severity=severity)) != set()


def test_that_a_channel_fails_is_told_on_others_whatever_the_routes_say() -> None:
    failing = message(code="channel-failing", subject="slack")
    assert to(None, failing) == set(ALL) - {"slack"}
    assert to("error -> slack", failing) == set(ALL) - {"slack"}, "its only channel is the one that fails"
    assert to("error -> slack, email", failing) == {"email"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("error email", "rules separated by ';', each 'WHAT -> CHANNELS', as 'error -> email'; not 'error email'"),
        ("-> email", "not '-> email'"),
        ("error ->", "not 'error ->'"),
        ("backup-faild -> email", "an event or a severity: the nearest to 'backup-faild' is backup-failed"),
        ("zzz -> email", "not 'zzz'"),
        ("error -> emial", "a channel: the nearest to 'emial' is email"),
        ("error -> slack", "channels that are enabled; slack is not"),
        ("type=ful -> email", "a backup type: the nearest to 'ful' is full"),
        ("kind=full -> email", "a word before '=': one of type; not 'kind'"),
        ("error|backup-failed -> email", "severities or events in one word, not both"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_accepted(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_routes(text, {"email"})


def test_nothing_of_the_kind_is_enabled() -> None:
    assert chosen(of(), None, ()) == ()
