"""The SDK of S3: how a client is made, what it sends, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions as sdk_errors
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from chrono_backups.clock import Clock
from chrono_backups.errors import StorageDenied, StorageError, StorageUnavailable
from chrono_backups.storage.http_failures import innermost_reason
from chrono_backups.storage.pacing import leave, piece
from chrono_backups.storage.s3_errors import Asked, Refusal, meaning

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pydantic import SecretStr

    from chrono_backups.storage.settings import AwsS3Settings

Refused = sdk_errors.ClientError
"""The server answered, and its answer is an error."""

_PIECE = 256 * 1024
_POOLED = 32
"""Connections kept open: more than threads of one process ever use at once, so none is made anew."""
_NO_CREDENTIALS_HINT = (
    "Set BACKUP_AWS_ACCESS_KEY_ID and BACKUP_AWS_SECRET_ACCESS_KEY, or give this machine a role or a profile."
)
_CERTIFICATE_HINT = "AWS_CA_BUNDLE names the file of an authority of your own."
_UNKNOWN_ACCOUNT = (
    sdk_errors.NoCredentialsError,
    sdk_errors.PartialCredentialsError,
    sdk_errors.CredentialRetrievalError,
    sdk_errors.TokenRetrievalError,
    sdk_errors.UnauthorizedSSOTokenError,
    sdk_errors.NoAuthTokenError,
)
_BROKEN_OFF = (
    sdk_errors.HTTPClientError,
    sdk_errors.ConnectionError,
    sdk_errors.IncompleteReadError,
    sdk_errors.ChecksumError,
    sdk_errors.FlexibleChecksumError,
    ResponseParserError,
)


def new_client(settings: AwsS3Settings, name: str, connect_timeout: float, read_timeout: float) -> S3Client:
    """A client for the settings' account and server. Opens no connection."""
    endpoint = settings.endpoint_url
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=_POOLED,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Anything else breaks many of the compatible servers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if endpoint else "auto",
            # Of AWS, over TLS, the checksum is proof enough; one hash less.
            "payload_signing_enabled": endpoint is not None,
        },
    )
    try:
        sdk = botocore.session.get_session()
        sdk.register_component("data_loader", _loader())
        sdk.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
        session = boto3.session.Session(
            botocore_session=sdk,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=_revealed(settings.secret_access_key),
            aws_session_token=_revealed(settings.session_token),
        )
        region = settings.region or ("us-east-1" if endpoint else None)
        client: S3Client = session.client("s3", region_name=region, endpoint_url=endpoint, config=config)
    except (sdk_errors.BotoCoreError, ValueError) as error:
        raise StorageError(f"{name}: {error}", storage=name, operation="open", hint=_NO_CREDENTIALS_HINT) from error
    return client


@cache
def _loader() -> botocore.loaders.Loader:
    """What the SDK knows of its services: read once a process instead of once a client, which takes 0.1 seconds."""
    return botocore.loaders.create_loader()


def _moment(text: Any) -> datetime:
    """A time as S3 writes it. The SDK's own way takes half of the time of a listing."""
    with suppress(TypeError, ValueError):
        read = datetime.fromisoformat(text)
        if read.tzinfo is not None:
            return read
    return parse_timestamp(text)


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def send_at_once(client: S3Client) -> None:
    """Have puts not wait for the server's leave to send their body: a round trip each."""
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register("before-send.s3", _note_sending, unique_id="chrono-backups-pace")


def _note_sending(request: Any, **_: Any) -> None:
    if isinstance(request.body, Body):
        request.body.sending = True


@contextmanager
def translated(asked: Asked, clock: Clock) -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except Refused as error:
        raise meaning(refusal_of(error), asked, clock.now()) from error
    except _UNKNOWN_ACCOUNT as error:
        raise asked.error(StorageDenied, str(error), _NO_CREDENTIALS_HINT) from error
    except sdk_errors.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise asked.error(StorageUnavailable, innermost_reason(error)) from error
        message = f"the server's certificate is not to be trusted: {error}"
        raise asked.error(StorageDenied, message, _CERTIFICATE_HINT) from error
    except _BROKEN_OFF as error:
        raise asked.error(StorageUnavailable, innermost_reason(error)) from error
    except sdk_errors.BotoCoreError as error:
        raise asked.error(StorageError, str(error)) from error


def refusal_of(error: sdk_errors.ClientError) -> Refusal:
    """What the server answered."""
    told = error.response.get("Error", {})
    answer = error.response.get("ResponseMetadata", {})
    headers = answer.get("HTTPHeaders", {})
    return Refusal(told.get("Code", ""), answer.get("HTTPStatusCode", 0), told.get("Message", ""), headers)


class Body:
    """A request's body out of a buffer that is not copied, piece by piece.

    Python counts a socket's timeout for the whole of one ``sendall``: a large body in one piece would have to be
    through in the seconds that are meant for a server that takes nothing at all. ``close`` lets go of the buffer,
    whatever traceback still holds a piece of it.
    """

    def __init__(self, view: memoryview) -> None:
        self.sending = False
        """Whether it is read to be sent; before that it is read to be signed."""
        self._view = view[:]
        self._piece = self._view[:0]
        self._position = 0

    def __len__(self) -> int:
        return self._view.nbytes

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int) -> int:
        """To that place of it, as when it is sent a second time."""
        self._position = offset
        return offset

    def read(self, _: int | None = None) -> memoryview:
        """The next piece, however much is asked for."""
        self._piece.release()
        self._piece = self._view[self._position : self._position + piece(_PIECE)]
        self._position += self._piece.nbytes
        if self.sending:
            leave(self._piece.nbytes)
        return self._piece

    def close(self) -> None:
        """Release the buffer; the body can't be sent any more."""
        self._piece.release()
        self._view.release()
