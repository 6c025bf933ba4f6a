"""Who is told, and through which channel."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from chrono_backups.variables import Port, SecretUrl, Section, Words, needed_when_enabled, variable

_ADDRESS = "an email address"
_PLAIN_ADDRESS = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")
_NAMED_ADDRESS = re.compile(rf"[^<>]*<{_PLAIN_ADDRESS.pattern}>")


def _address(text: str) -> str:
    if not (_PLAIN_ADDRESS.fullmatch(text) or _NAMED_ADDRESS.fullmatch(text)):
        raise ValueError(_ADDRESS)
    return text


def _addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_PLAIN_ADDRESS.fullmatch(text) for text in texts):
        raise ValueError("email addresses separated by ','")
    return texts


class EmailSettings(Section):
    """Email"""

    enabled: bool = variable("BACKUP_EMAIL_ENABLED", False, about="Send email.")
    recipients: Annotated[Words, AfterValidator(_addresses)] = variable(
        "BACKUP_EMAIL_RECIPIENTS",
        (),
        accepted="email addresses separated by ','",
        example="admin@company.com,devops@company.com",
        about="To whom.",
    )
    sender: Annotated[str, AfterValidator(_address)] | None = variable(
        "BACKUP_EMAIL_FROM", accepted=_ADDRESS, example="backups@company.com", about="From whom."
    )
    smtp_host: str | None = variable("BACKUP_EMAIL_SMTP_HOST", example="smtp.mailgun.org", about="The mail server.")
    smtp_port: Port = variable("BACKUP_EMAIL_SMTP_PORT", 587, about="Its port.")
    smtp_use_tls: bool = variable("BACKUP_EMAIL_SMTP_USE_TLS", True, about="Encrypt the connection.")
    smtp_username: str | None = variable(
        "BACKUP_EMAIL_SMTP_USERNAME", example="backups@company.com", about="The account there."
    )
    smtp_password: SecretStr | None = variable("BACKUP_EMAIL_SMTP_PASSWORD", about="The account's password.")

    _needed = field_validator("recipients", "sender", "smtp_host")(needed_when_enabled)


class SlackSettings(Section):
    """Slack"""

    enabled: bool = variable("BACKUP_SLACK_ENABLED", False, about="Post to Slack.")
    webhook_url: SecretUrl | None = variable("BACKUP_SLACK_WEBHOOK_URL", about="The webhook's address.")
    channel: str | None = variable("BACKUP_SLACK_CHANNEL", example='"#backups"', about="The channel.")
    username: str | None = variable("BACKUP_SLACK_USERNAME", example="BackupBot", about="Shown as the sender.")
    icon_emoji: str | None = variable("BACKUP_SLACK_ICON_EMOJI", example=":floppy_disk:", about="Shown beside it.")

    _needed = field_validator("webhook_url")(needed_when_enabled)


class DiscordSettings(Section):
    """Discord"""

    enabled: bool = variable("BACKUP_DISCORD_ENABLED", False, about="Post to Discord.")
    webhook_url: SecretUrl | None = variable("BACKUP_DISCORD_WEBHOOK_URL", about="The webhook's address.")

    _needed = field_validator("webhook_url")(needed_when_enabled)


class PagerDutySettings(Section):
    """PagerDuty"""

    enabled: bool = variable("BACKUP_PAGERDUTY_ENABLED", False, about="Raise incidents in PagerDuty.")
    integration_key: SecretStr | None = variable("BACKUP_PAGERDUTY_INTEGRATION_KEY", about="The integration's key.")
    severity: Literal["critical", "error", "warning", "info"] = variable(
        "BACKUP_PAGERDUTY_SEVERITY", "error", about="Severity of the incidents."
    )

    _needed = field_validator("integration_key")(needed_when_enabled)


class WebhookSettings(Section):
    """Webhook"""

    enabled: bool = variable("BACKUP_WEBHOOK_ENABLED", False, about="Post signed messages to a server of yours.")
    url: SecretUrl | None = variable("BACKUP_WEBHOOK_URL", about="Its address.")
    secret: SecretStr | None = variable("BACKUP_WEBHOOK_SECRET", about="What the messages are signed with.")
    timeout: float = variable("BACKUP_WEBHOOK_TIMEOUT", 30.0, gt=0, about="Seconds to wait for its answer.")

    _needed = field_validator("url")(needed_when_enabled)


class NotificationsSettings(Section):
    """Notifications"""

    urls: SecretStr | None = variable(
        "BACKUP_NOTIFY_URLS", accepted="Apprise URLs", about="Any other service, by its Apprise URL."
    )
    routes: str | None = variable(
        "BACKUP_NOTIFY_ROUTES",
        accepted="routes",
        about="Which events, severities and backup types go to which channel.",
    )
    heartbeat_url: SecretUrl | None = variable(
        "BACKUP_HEARTBEAT_URL", about="Pinged after each good backup, so that silence is noticed elsewhere."
    )
    email: EmailSettings = Field(default_factory=EmailSettings)
    slack: SlackSettings = Field(default_factory=SlackSettings)
    discord: DiscordSettings = Field(default_factory=DiscordSettings)
    pagerduty: PagerDutySettings = Field(default_factory=PagerDutySettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
