"""Email by SMTP: STARTTLS, TLS from the first byte, or plain; with a login or without."""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from chrono_backups.clock import Clock
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, MessageRejected, NotificationError
from chrono_backups.notifications.message import Message
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import EmailSettings

_SECONDS = 30.0
_LOGIN = "BACKUP_EMAIL_SMTP_USERNAME and BACKUP_EMAIL_SMTP_PASSWORD"


class EmailNotifier:
    """Sends each message to all recipients. A repeated one has the same Message-ID, which mail programs join."""

    name = "email"

    def __init__(self, settings: EmailSettings, renderer: Renderer, clock: Clock) -> None:
        self._settings, self._renderer, self._clock = settings, renderer, clock

    def takes(self, message: Message) -> bool:
        """Mail has a place for everything."""
        del message
        return True

    def send(self, message: Message) -> str:
        """As ``Notifier.send``. Complains of recipients that the server did not take beside others that it did."""
        try:
            mail = self.compose(message)
            with self._connected() as server:
                refused = server.send_message(mail, to_addrs=list(self._settings.recipients))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            failure = self._explained(error)
        else:
            names = ", ".join(f"{address} ({code})" for address, (code, _) in sorted(refused.items()))
            return f"the mail server does not take mail for {names}" if refused else ""
        # Outside of the except block: what the library says may quote the login.
        raise failure

    def compose(self, message: Message) -> EmailMessage:
        """The mail, as text and as HTML."""
        settings, shown = self._settings, self._renderer.render(message, self._clock.now())
        mail = EmailMessage()
        mail["Subject"] = shown.subject
        name, address = parseaddr(settings.sender or "")
        mail["From"] = Address(name or "Backups", addr_spec=address)
        mail["To"] = ", ".join(settings.recipients)
        mail["Date"] = format_datetime(message.at)
        domain = address.rpartition("@")[2]
        mail["Message-ID"] = f"<{_digest(message.site.name, message.name)}@{domain}>"
        if message.incident:  # one thread for an incident, whose first message it need not have
            mail["References"] = f"<{_digest(message.site.name, message.incident)}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Chrono-Event"] = f"{message.event} {message.state} {message.severity}"
        if message.severity == "error" and message.state in {"opened", "worse"}:
            mail["Importance"] = "high"
        mail.set_content(shown.text)
        mail.add_alternative(shown.html, subtype="html")
        return mail

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        host, port = settings.smtp_host or "", settings.smtp_port
        if settings.encryption == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=self._tls())
        else:
            server = smtplib.SMTP(host, port, timeout=_SECONDS)
        try:
            server.ehlo()
            if settings.encryption == "starttls":
                server.starttls(context=self._tls())
            if settings.smtp_username and settings.smtp_password:
                server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server

    def _tls(self) -> ssl.SSLContext:
        file = self._settings.smtp_ca_file
        return ssl.create_default_context(cafile=None if file is None else str(file))

    def _explained(self, error: Exception) -> NotificationError:
        where = f"the mail server {self._settings.smtp_host}:{self._settings.smtp_port}"
        kind, words, hint = _explanation(error, self._settings)
        return kind(f"{where} {words}", channel=self.name, hint=hint)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


_PASSING = "It is tried again by itself."
_STARTTLS_HINT = (
    "Set BACKUP_EMAIL_SMTP_TLS=implicit where it speaks TLS from the first byte, or BACKUP_EMAIL_SMTP_USE_TLS=false "
    "where nobody else is on the line."
)

Explanation = tuple[type[NotificationError], str, str]


def _explanation(error: Exception, settings: EmailSettings) -> Explanation:
    """What happened, in words that quote no reply of the server: it may repeat what was sent."""
    match error:
        case smtplib.SMTPAuthenticationError():
            told: Explanation = ChannelRefused, f"refused the login ({error.smtp_code})", f"Correct {_LOGIN}."
        case smtplib.SMTPNotSupportedError() if settings.encryption == "starttls" and "STARTTLS" in str(error):
            told = ChannelRefused, "does not offer STARTTLS", _STARTTLS_HINT
        case smtplib.SMTPNotSupportedError():
            hint = f"Unset {_LOGIN}, or use the port for clients (587, 465)."
            told = ChannelRefused, "does not offer a login", hint
        case smtplib.SMTPSenderRefused():
            told = _by_code(error.smtp_code, "refused the sender", "Correct BACKUP_EMAIL_FROM.")
        case smtplib.SMTPRecipientsRefused():
            codes = sorted({code for code, _ in error.recipients.values()})
            told = _by_code(codes[0] if codes else 550, "refused every recipient", "Correct BACKUP_EMAIL_RECIPIENTS.")
        case smtplib.SMTPServerDisconnected():
            hint = "Does it expect TLS from the first byte? BACKUP_EMAIL_SMTP_TLS=implicit does that. " + _PASSING
            told = ChannelUnavailable, "closed the connection", hint
        case smtplib.SMTPResponseException() if error.smtp_code >= 500:
            told = MessageRejected, f"did not take the message ({error.smtp_code})", "Look at the mail server's log."
        case smtplib.SMTPResponseException():
            told = ChannelUnavailable, f"is busy ({error.smtp_code})", _PASSING
        case _:
            told = _no_connection(error)
    return told


def _by_code(code: int, what: str, hint: str) -> Explanation:
    kind = ChannelUnavailable if code < 500 else ChannelRefused
    return kind, f"{what} ({code})", _PASSING if code < 500 else hint


def _no_connection(error: Exception) -> Explanation:
    address = "Are BACKUP_EMAIL_SMTP_HOST and BACKUP_EMAIL_SMTP_PORT right, and may this machine connect there?"
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "BACKUP_EMAIL_SMTP_CA_FILE names a company's own authorities."
        return ChannelRefused, f"has a certificate that is not trusted: {error.verify_message}", hint
    if isinstance(error, ssl.SSLError):
        return ChannelRefused, "does not speak TLS as expected", "Try the other BACKUP_EMAIL_SMTP_TLS. " + address
    if isinstance(error, TimeoutError):
        return ChannelUnavailable, f"did not answer within {_SECONDS:.0f} s", address
    if isinstance(error, OSError):
        return ChannelUnavailable, f"can't be reached: {(error.strerror or 'no connection').lower()}", address
    return MessageRejected, f"could not be given the message: {type(error).__name__}", "Look at the templates."
