"""Receivers of messages, of the tests' own: an HTTP server that keeps what it is posted, and a mail server."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from json import loads
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass(frozen=True)
class Posted:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the receiver says to it."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Posted], Reply | None]
"""The reply to a request; None closes the connection without one."""


def taken(_posted: Posted) -> Reply:
    return Reply()


class Receiver:
    """A running HTTP server. ``posted`` are the requests that it answered with 2xx."""

    def __init__(self, script: Script = taken) -> None:
        self.script = script
        self.posted: list[Posted] = []
        self.refused: list[Posted] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                posted = Posted(self.command, self.path, dict(self.headers.items()), body)
                reply = outer.script(posted)
                if reply is None:
                    outer.refused.append(posted)
                    self.close_connection = True
                    return
                (outer.posted if reply.status < 300 else outer.refused).append(posted)
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                try:
                    self.end_headers()
                    self.wfile.write(reply.body)
                except OSError:  # the sender did not wait
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiver(script: Script = taken) -> Iterator[Receiver]:
    running = Receiver(script)
    try:
        yield running
    finally:
        running.close()


class Mailbox:
    """A running mail server. ``mails`` are those that it took."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refuse: dict[str, str] = {}
        """Recipient → the reply that it gets."""
        self.busy = ""
        """The reply that every message gets, where it is set."""
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self._login, self._implicit = login, implicit
        options: dict[str, Any] = {"auth_require_tls": False, "decode_data": False, "ready_timeout": 60}
        if tls is not None and not implicit:
            options |= {"tls_context": tls, "require_starttls": True}
        if login is not None:
            options |= {"authenticator": self._authenticate, "auth_required": True}
        self._controller = Controller(
            self, hostname="127.0.0.1", port=0, ssl_context=tls if implicit else None, **options
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        given = data.login.decode(), data.password.decode()
        self.logins.append(given)
        return AuthResult(success=given == self._login, handled=False)

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.busy:
            return self.busy
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        self.encrypted.append(session.ssl is not None or self._implicit)
        return "250 OK"

    def start(self) -> None:
        # The system chooses a free port, and aiosmtpd would probe the one that it was told.
        self._controller._trigger_server = self._knock  # type: ignore[method-assign]
        self._controller.start()

    def _knock(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=30).close()

    @property
    def port(self) -> int:
        server = self._controller.server
        assert server is not None
        return int(server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

    def stop(self) -> None:
        self._controller.stop()


@contextmanager
def mailbox(**options: Any) -> Iterator[Mailbox]:
    running = Mailbox(**options)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS settings for 127.0.0.1, and the file by which clients trust it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = directory / "certificate.pem", directory / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file
