"""A way to an SFTP server: socket, host key, login, channel. The one file that imports paramiko."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko

from chrono_backups.errors import StorageDenied, StorageError, StorageUnavailable
from chrono_backups.storage.sftp_host_keys import HostKeys, find_host_keys, fingerprint, kind_of, known_as

if TYPE_CHECKING:
    from chrono_backups.storage.settings import SftpSettings

# Where the processor helps, GCM encrypts and authenticates in one pass, and costs half of what CTR and HMAC do.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
_WINDOW = 32 * 2**20
"""Bytes that the server may send before we took the first: more than a session ever asks for ahead."""
_LARGEST_PACKET = 128 * 1024
_RECEIVED_AT_ONCE = 256 * 1024
_SENT_AT_ONCE = 32 * 1024 - 64
"""What paramiko puts into one packet for OpenSSH; as bytes, because it raises twice inside over any other buffer."""

# Its thread logs, with tracebacks, what is raised here too.
_LOG = "chrono_backups.storage.sftp.transport"
logging.getLogger(_LOG).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Patience:
    """Seconds: for the connection, and then the handshake, to stand; for the login; for a byte to move after that."""

    connect: float = 15.0
    login: float = 20.0
    progress: float = 45.0


class SshDialer:
    """Opens connections to the server of the settings, each logged in and ready for SFTP."""

    def __init__(self, settings: SftpSettings, *, name: str, location: str, patience: Patience | None = None) -> None:
        assert settings.host is not None and settings.username is not None  # enabled settings have both
        self._settings = settings
        self._host = settings.host
        self._username = settings.username
        self._name = name
        self._location = location
        self._patience = patience or Patience()

    def dial(self) -> SshChannel:
        """Raises ``StorageUnavailable``, ``StorageDenied`` or ``StorageError``; nothing stays open then."""
        known = self._known_host_keys()
        key = self._private_key()
        sock = self._connect()
        transport = None
        try:
            transport = paramiko.Transport(_BufferedSocket(sock))  # type: ignore[arg-type]
            self._shake_hands(transport, known)
            self._log_in(transport, key)
            return self._open_channel(transport, sock)
        except BaseException:
            if transport is not None:
                transport.close()
            sock.close()
            raise

    def _connect(self) -> socket.socket:
        try:
            sock = socket.create_connection((self._host, self._settings.port), self._patience.connect)
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise self._unavailable(
                f"can't connect: {reason}", hint="See that BACKUP_SFTP_HOST and BACKUP_SFTP_PORT lead to the server."
            ) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: ends what a dead or stalled peer takes no more bytes of
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._patience.progress * 1000))
        return sock

    # Who the server is

    def _known_host_keys(self) -> HostKeys:
        path = self._known_hosts
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = ""
        except OSError as error:
            raise self._denied(
                f"{path} can't be read: {error.strerror}", hint="Let the user this program runs as read it."
            ) from error
        return find_host_keys(text, self._host, self._settings.port)

    @property
    def _known_hosts(self) -> Path:
        return self._settings.known_hosts or Path.home() / ".ssh" / "known_hosts"

    def _shake_hands(self, transport: paramiko.Transport, known: HostKeys) -> None:
        transport.set_log_channel(_LOG)
        transport.banner_timeout = transport.handshake_timeout = self._patience.connect
        transport.clear_to_send_timeout = self._patience.progress
        options = transport.get_security_options()
        options.ciphers = tuple(cipher for cipher in _CIPHERS if cipher in options.ciphers) or options.ciphers
        # A server has keys of several types: it is to show one that it is known by.
        wanted = [one for kind in known.kinds for one in _SIGNATURES.get(kind, (kind,)) if one in options.key_types]
        options.key_types = (*wanted, *(one for one in options.key_types if one not in wanted))
        try:
            transport.start_client(timeout=self._patience.connect)
            if not transport.is_active() or not transport.initial_kex_done:
                raise paramiko.SSHException("no answer to the handshake")
            shown = transport.get_remote_server_key().asbytes()
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise self._error(f"no common algorithms: {error}", hint="Update the server's SSH.") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._unavailable(f"the SSH handshake failed: {_reason(error)}") from error
        self._check_host_key(shown, known)

    def _check_host_key(self, shown: bytes, known: HostKeys) -> None:
        verdict = known.judge(shown)
        if verdict == "trusted":
            return
        name = known_as(self._host, self._settings.port)
        what = f"{kind_of(shown)} {fingerprint(shown)}"
        scan = f"ssh-keyscan -p {self._settings.port} {self._host} >> {self._known_hosts}"
        if verdict == "unknown":
            raise self._denied(
                f"the host key of {name} is not in {self._known_hosts}; the server shows {what}",
                hint=f"Compare the fingerprint with the server's own (`ssh-keygen -lf` there), then `{scan}`.",
            )
        if verdict == "revoked":
            raise self._denied(
                f"the server shows {what}, which {self._known_hosts} says is revoked",
                hint="Give the server a new host key.",
            )
        expected = ", ".join(fingerprint(key) for key in known.trusted if kind_of(key) == kind_of(shown))
        raise self._denied(
            f"the host key of {name} has CHANGED: expected {expected}, and the server shows {what}. "
            "Somebody may be posing as it; nothing was sent",
            hint=f"If the server was installed anew: `ssh-keygen -R '{name}' -f {self._known_hosts}`, compare the "
            f"fingerprint with the server's own, then `{scan}`.",
        )

    # Who we are

    def _private_key(self) -> paramiko.PKey | None:
        path = self._settings.private_key_path
        if path is None:
            return None
        secret = self._settings.private_key_passphrase
        try:
            return paramiko.PKey.from_path(path, None if secret is None else secret.get_secret_value().encode())  # type: ignore[arg-type]
        except OSError as error:
            raise self._denied(
                f"the private key {path} can't be read: {error.strerror}",
                hint="BACKUP_SFTP_PRIVATE_KEY_PATH names a file that the user this program runs as may read.",
            ) from error
        except Exception:  # every key format has errors of its own, and some tell of the key
            wanted = "needs a passphrase or is no private key" if secret is None else "does not open by that passphrase"
            raise self._denied(
                f"the private key {path} {wanted}",
                hint="Set BACKUP_SFTP_PRIVATE_KEY_PASSPHRASE, or make a key: `ssh-keygen -t ed25519`.",
            ) from None

    def _log_in(self, transport: paramiko.Transport, key: paramiko.PKey | None) -> None:
        transport.auth_timeout = self._patience.login
        password = self._settings.password
        ways: list[str] = []
        try:
            wanted: list[str] | None = None
            if key is not None:
                ways.append(f"the key {self._settings.private_key_path}")
                try:
                    wanted = transport.auth_publickey(self._username, key)
                except paramiko.AuthenticationException:
                    if password is None or not transport.is_active():
                        raise
            if password is not None and not transport.is_authenticated():
                ways.append("the password")
                wanted = transport.auth_password(self._username, password.get_secret_value())
            if not transport.is_authenticated():
                raise self._denied(
                    f"{self._username} is not let in by {' and '.join(ways) or 'no proof'} alone: the server also "
                    f"wants {' or '.join(wanted or ['more'])}",
                    hint="Set both BACKUP_SFTP_PRIVATE_KEY_PATH and BACKUP_SFTP_PASSWORD, or allow one of them alone.",
                )
        except paramiko.AuthenticationException as error:
            if not transport.is_active() or "timeout" in str(error).lower():
                raise self._unavailable("the connection was lost during the login") from None
            allowed = getattr(error, "allowed_types", ())
            raise self._denied(
                f"the server does not let {self._username} in by {' nor by '.join(ways)}"
                + (f"; it would take {' or '.join(allowed)}" if allowed else ""),
                hint="Put the key's public half into the account's authorized_keys, or correct BACKUP_SFTP_USERNAME, "
                "BACKUP_SFTP_PASSWORD, BACKUP_SFTP_PRIVATE_KEY_PATH.",
            ) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._unavailable(f"the login broke off: {_reason(error)}") from None

    def _open_channel(self, transport: paramiko.Transport, sock: socket.socket) -> SshChannel:
        transport.set_keepalive(15)
        try:
            channel = transport.open_session(_WINDOW, _LARGEST_PACKET, self._patience.connect)
            channel.settimeout(self._patience.progress)
            channel.invoke_subsystem("sftp")
        except paramiko.ChannelException as error:
            raise self._error(f"the server opens no channel: {error.text}", hint="See the server's log.") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            if transport.is_active():
                raise self._error(
                    "the server offers no SFTP", hint="Give it a line `Subsystem sftp internal-sftp` in sshd_config."
                ) from error
            raise self._unavailable(f"the connection was lost: {_reason(error)}") from error
        return SshChannel(transport, channel, sock, self)

    # What to say

    def _unavailable(self, what: str, *, hint: str = "") -> StorageUnavailable:
        return StorageUnavailable(self._say(what), storage=self._name, hint=hint)

    def _denied(self, what: str, *, hint: str) -> StorageDenied:
        return StorageDenied(self._say(what), storage=self._name, hint=hint)

    def _error(self, what: str, *, hint: str) -> StorageError:
        return StorageError(self._say(what), storage=self._name, hint=hint)

    def _say(self, what: str) -> str:
        return f"{self._name} ({self._location}): {what}"

    def lost(self, error: BaseException | None, *, seconds: float) -> StorageUnavailable:
        """The error of a connection that broke or stalled."""
        if isinstance(error, TimeoutError):
            return self._unavailable(f"the server was silent for {seconds:.0f} s")
        return self._unavailable(f"the connection was lost: {_reason(error)}")

    def broken(self, reason: str) -> StorageError:
        """The error of a server that does not speak SFTP."""
        return self._error(
            f"the server does not answer in SFTP: {reason}",
            hint="See that the account's shell start-up prints nothing, or use `ForceCommand internal-sftp`.",
        )


class SshChannel:
    """The channel that SFTP is spoken over; it ends with its connection. One thread at a time."""

    def __init__(
        self, transport: paramiko.Transport, channel: paramiko.Channel, sock: socket.socket, dialer: SshDialer
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._socket = sock
        self._dialer = dialer

    def send(self, data: bytes | bytearray) -> None:
        with memoryview(data) as whole:
            place = 0
            while place < len(whole):
                try:
                    sent = self._channel.send(bytes(whole[place : place + _SENT_AT_ONCE]))
                except (paramiko.SSHException, EOFError, OSError) as error:
                    raise self._lost(error) from error
                if sent == 0 or not self._transport.is_active():
                    raise self._lost(None)
                place += sent

    def receive(self) -> bytes:
        try:
            data = self._channel.recv(_WINDOW)  # all there is: what stays behind is moved again and again
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(error) from error
        if not data:
            raise self._lost(None)
        return data

    def has_come(self) -> bool:
        return self._channel.recv_ready()

    def broken(self, reason: str) -> StorageError:
        return self._dialer.broken(reason)

    def _lost(self, error: BaseException | None) -> StorageUnavailable:
        if not isinstance(error, TimeoutError):
            error = self._transport.get_exception() or error
        return self._dialer.lost(error, seconds=self._channel.gettimeout() or 0)

    @property
    def open(self) -> bool:
        return self._transport.is_active() and not self._channel.closed

    def close(self) -> None:
        with suppress(Exception):  # it may be broken already, which is why it is closed
            self._transport.close()
        self._socket.close()


class _BufferedSocket:
    """A socket to paramiko, which takes each packet in three small reads: here they cost one system call for many."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""
        self._place = 0

    def recv(self, count: int) -> bytes:
        if self._place == len(self._buffer):
            self._buffer, self._place = self._socket.recv(_RECEIVED_AT_ONCE), 0
        data = self._buffer[self._place : self._place + count]
        self._place += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def _reason(error: BaseException | None) -> str:
    if error is None or isinstance(error, EOFError):
        return "the server closed it"
    if isinstance(error, TimeoutError):
        return "no answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
