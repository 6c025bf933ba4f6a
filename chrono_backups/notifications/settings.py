"""Who is told, and through which channel."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from chrono_backups.notifications.routes import CHANNELS, ROUTES_ACCEPTED, parse_routes
from chrono_backups.variables import AbsolutePath, Port, SecretUrl, Section, Url, Words, needed_when_enabled, variable

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
    smtp_use_tls: bool = variable(
        "BACKUP_EMAIL_SMTP_USE_TLS",
        True,
        about="Encrypt the connection; a server that does not offer it gets no mail and no password.",
    )
    smtp_tls: Literal["starttls", "implicit"] | None = variable(
        "BACKUP_EMAIL_SMTP_TLS",
        default_note="`implicit` on port 465, else `starttls`",
        example="implicit",
        about="How it is encrypted: from the first byte, or after STARTTLS.",
    )
    smtp_ca_file: AbsolutePath | None = variable(
        "BACKUP_EMAIL_SMTP_CA_FILE",
        default_note="the system's authorities",
        example="/etc/ssl/company-ca.pem",
        about="Certificates of the authorities that the server's own is checked by.",
    )
    smtp_username: str | None = variable(
        "BACKUP_EMAIL_SMTP_USERNAME", example="backups@company.com", about="The account there."
    )
    smtp_password: SecretStr | None = variable("BACKUP_EMAIL_SMTP_PASSWORD", about="The account's password.")

    _needed = field_validator("recipients", "sender", "smtp_host")(needed_when_enabled)

    @property
    def encryption(self) -> Literal["none", "starttls", "implicit"]:
        """How the connection is encrypted."""
        if not self.smtp_use_tls:
            return "none"
        return self.smtp_tls or ("implicit" if self.smtp_port == 465 else "starttls")


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
        "BACKUP_PAGERDUTY_SEVERITY", "error", about="Severity of the incidents; warnings are warnings at most."
    )
    url: Url = variable(
        "BACKUP_PAGERDUTY_URL",
        "https://events.pagerduty.com/v2/enqueue",
        example="https://events.eu.pagerduty.com/v2/enqueue",
        about="Where events are sent; accounts in the EU have their own.",
    )

    _needed = field_validator("integration_key")(needed_when_enabled)


class WebhookSettings(Section):
    """Webhook"""

    enabled: bool = variable("BACKUP_WEBHOOK_ENABLED", False, about="Post signed messages to a server of yours.")
    url: SecretUrl | None = variable("BACKUP_WEBHOOK_URL", about="Its address.")
    secret: SecretStr | None = variable("BACKUP_WEBHOOK_SECRET", about="What the messages are signed with.")
    timeout: float = variable("BACKUP_WEBHOOK_TIMEOUT", 30.0, gt=0, le=600, about="Seconds to wait for its answer.")

    _needed = field_validator("url")(needed_when_enabled)


def _hours(value: float) -> float | None:
    return value or None


def _off_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


def _time_of_day(value: Any) -> Any:
    value = _off_is_none(value)
    if isinstance(value, str):
        if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value):
            raise ValueError("a time of day as 08:00, or off")
        hour, minute = value.split(":")
        return time(int(hour), int(minute))
    return value


class NotificationsSettings(Section):
    """Notifications"""

    # Channels come before what is validated against them.
    email: EmailSettings = Field(default_factory=EmailSettings)
    slack: SlackSettings = Field(default_factory=SlackSettings)
    discord: DiscordSettings = Field(default_factory=DiscordSettings)
    pagerduty: PagerDutySettings = Field(default_factory=PagerDutySettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    urls: SecretStr | None = variable(
        "BACKUP_NOTIFY_URLS",
        accepted="Apprise URLs separated by spaces",
        about="Any other service, by its Apprise URL (needs the extra `apprise`).",
    )
    routes: str | None = variable(
        "BACKUP_NOTIFY_ROUTES",
        default_note="what is wrong, and that it is over, to every channel; to PagerDuty errors only",
        accepted=ROUTES_ACCEPTED,
        example='"error -> pagerduty, email; warning -> slack; digest -> email"',
        about="Which events, severities and backup types go to which channel.",
    )
    repeat_hours: Annotated[float, Field(ge=0, le=8760), AfterValidator(_hours)] | None = variable(
        "BACKUP_NOTIFY_REPEAT_HOURS",
        24.0,
        accepted="hours from 0 (never) to 8760",
        about="After how long people are told again of what still is wrong.",
    )
    digest: Annotated[time | None, BeforeValidator(_time_of_day)] = variable(
        "BACKUP_NOTIFY_DIGEST",
        default_note="off",
        accepted="a time of day as 08:00, or off",
        example="08:00",
        about="When a digest of the last day's backups is sent, in BACKUP_TIMEZONE.",
    )
    templates: AbsolutePath | None = variable(
        "BACKUP_NOTIFY_TEMPLATES",
        example="/app/templates",
        about="A directory of Jinja2 templates that go before the built-in ones of the same name.",
    )
    name: str | None = variable(
        "BACKUP_NOTIFY_NAME",
        default_note="the machine's name",
        example='"Chrono Scraper, production"',
        about="Whose backups they are, in every message.",
    )
    ui_url: Url | None = variable(
        "BACKUP_UI_URL", example="https://dagster.company.com", about="Where people reach the Dagster UI, for links."
    )
    heartbeat_url: SecretUrl | None = variable(
        "BACKUP_HEARTBEAT_URL", about="Pinged after each good backup, so that silence is noticed elsewhere."
    )

    @field_validator("routes")
    @classmethod
    def _can_be_read(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None:
            # Of a channel whose own settings are wrong that is told, and not that the route names it.
            off = (info.context or {}).get("off", ())
            checked = {name for name in info.data if name in CHANNELS and name not in off}
            enabled = {name for name in checked if info.data[name].enabled}
            urls = info.data.get("urls")
            parse_routes(text, enabled | ({"apprise"} if urls is not None else set()), checked | {"apprise"} - {*off})
        return text

    @property
    def channels(self) -> tuple[str, ...]:
        """The enabled channels."""
        sections = ("email", "slack", "discord", "pagerduty", "webhook")
        found = [name for name in sections if getattr(self, name).enabled]
        return (*found, *(f"apprise-{number}" for number, _ in enumerate(self.apprise_urls, start=1)))

    @property
    def apprise_urls(self) -> tuple[str, ...]:
        """One by one: each is a channel of its own, so that one that is down does not double what others got."""
        return () if self.urls is None else tuple(self.urls.get_secret_value().split())

    @property
    def repeat(self) -> timedelta | None:
        """The interval of reminders; None for never."""
        return None if self.repeat_hours is None else timedelta(hours=self.repeat_hours)
