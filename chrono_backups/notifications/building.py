"""Alerts and their channels made from settings, and what is wrong with those as far as that shows without sending."""

from __future__ import annotations

import os
import socket
from collections.abc import Set
from functools import partial
from pathlib import Path

from chrono_backups.clock import Clock
from chrono_backups.errors import NotificationError
from chrono_backups.events import Finding
from chrono_backups.notifications.alerts import Alerts
from chrono_backups.notifications.base import Notifier
from chrono_backups.notifications.message import Site
from chrono_backups.notifications.rendering import Renderer, check_templates
from chrono_backups.notifications.settings import NotificationsSettings
from chrono_backups.notifications.state import State, default_directory
from chrono_backups.redaction import redacted, secrets_of_environment

_WITHOUT_HOME = Path("/var/lib/chrono-backups")


def build_alerts(settings: NotificationsSettings, directory: Path | None, secrets: Set[str], clock: Clock) -> Alerts:
    """Opens nothing. ``secrets``, and what the environment names as such, are masked in whatever is told."""
    renderer = Renderer(settings.templates)
    host = socket.gethostname()
    site = Site(settings.name or host, host if settings.name else "", (settings.ui_url or "").rstrip("/"))
    return Alerts(
        settings,
        State(directory or default_directory() or _WITHOUT_HOME),
        site,
        renderer,
        build_channels(settings, renderer, clock),
        clock=clock,
        redact=partial(redacted, secrets=secrets | secrets_of_environment(os.environ)),
    )


def build_channels(settings: NotificationsSettings, renderer: Renderer, clock: Clock) -> dict[str, Notifier]:
    """By name. Opens no connection; only what a channel in use needs is imported."""
    found: list[Notifier] = []
    if settings.email.enabled:
        from chrono_backups.notifications.email import EmailNotifier  # noqa: PLC0415 - as the docstring says

        found.append(EmailNotifier(settings.email, renderer, clock))
    if settings.slack.enabled:
        from chrono_backups.notifications.slack import SlackNotifier  # noqa: PLC0415

        found.append(SlackNotifier(settings.slack, renderer, clock))
    if settings.discord.enabled:
        from chrono_backups.notifications.discord import DiscordNotifier  # noqa: PLC0415

        found.append(DiscordNotifier(settings.discord, renderer, clock))
    if settings.pagerduty.enabled:
        from chrono_backups.notifications.pagerduty import PagerDutyNotifier  # noqa: PLC0415

        found.append(PagerDutyNotifier(settings.pagerduty, renderer, clock))
    if settings.webhook.enabled:
        from chrono_backups.notifications.webhook import WebhookNotifier  # noqa: PLC0415

        found.append(WebhookNotifier(settings.webhook, renderer, clock))
    for number, url in enumerate(settings.apprise_urls, start=1):
        from chrono_backups.notifications.apprise import AppriseNotifier  # noqa: PLC0415

        found.append(AppriseNotifier(number, url, renderer, clock))
    return {channel.name: channel for channel in found}


def check_notifications(settings: NotificationsSettings, directory: Path | None, clock: Clock) -> list[Finding]:
    """For ``validate``: templates, Apprise's URLs, where messages are kept, settings that are worth a word."""
    channels = build_channels(settings, Renderer(), clock)
    found = check_templates(settings.templates, clock.now())
    for channel in channels.values():
        if (check_url := getattr(channel, "check", None)) is not None:
            try:
                check_url()
            except NotificationError as error:
                found.append(Finding("channel-refused", "error", channel.name, error.message, error.hint))
    if channels:
        found += _check_state(directory)
    email, webhook = settings.email, settings.webhook
    if email.enabled and email.smtp_username and email.smtp_password and not email.smtp_use_tls:
        what = "the password of the mail server is sent unencrypted"
        hint = "Set BACKUP_EMAIL_SMTP_USE_TLS=true."
        found.append(Finding("email-unencrypted", "warning", "BACKUP_EMAIL_SMTP_USE_TLS", what, hint))
    if webhook.enabled and webhook.secret is None:
        hint = "Set it, and let the receiver check the signature."
        what = "nothing signs what is sent, so that the receiver can't know who sent it"
        found.append(Finding("webhook-unsigned", "warning", "BACKUP_WEBHOOK_SECRET", what, hint))
    return found


def _check_state(directory: Path | None) -> list[Finding]:
    """Whether messages can be kept, as far as that shows without writing."""
    state = State(directory or default_directory() or _WITHOUT_HOME)
    near = state.path
    while not near.exists() and near != near.parent:
        near = near.parent
    if os.access(near, os.W_OK):
        return []
    what = f"messages can't be kept there: {near} can't be written to by this account"
    hint = "Let it be a directory on a local disk that this account may write to."
    return [Finding("state-not-writable", "error", "BACKUP_STATE_DIR", what, hint)]
