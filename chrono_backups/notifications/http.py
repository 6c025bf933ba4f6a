"""Posting to a receiver. Its address may be a secret: errors name the host alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from chrono_backups import __version__
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, MessageRejected
from chrono_backups.redaction import redacted

SECONDS = 15.0
"""To connect, and between two parts of an answer."""
_ANSWER_MOST = 2000
_WRONG_ADDRESS = frozenset({401, 403, 404, 405, 410})
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Answer:
    """What a receiver said."""

    status: int
    text: str
    """Its beginning."""


def post(
    channel: str,
    url: str,
    body: bytes,
    *,
    variable: str,
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
    hide: Sequence[str] = (),
) -> Answer:
    """Post JSON. Raises what ``Notifier.send`` may; ``variable`` is the setting to look at.

    ``hide``: secrets of the body, which a receiver may repeat in its answer.
    """
    return _request("POST", channel, url, body, variable, headers or {}, seconds, hide)


def get(channel: str, url: str, *, variable: str, seconds: float = SECONDS) -> Answer:
    """Ask for an address. Raises what ``Notifier.send`` may."""
    return _request("GET", channel, url, None, variable, {}, seconds, ())


def _request(
    method: str,
    channel: str,
    url: str,
    body: bytes | None,
    variable: str,
    headers: Mapping[str, str],
    seconds: float,
    hide: Sequence[str],
) -> Answer:
    import requests  # noqa: PLC0415 - for those who send something only

    hush()
    where = place(url)
    kind = {"Content-Type": "application/json"} if body is not None else {}
    try:
        with requests.request(
            method,
            url,
            data=body,
            headers={"User-Agent": f"chrono-backups/{__version__}", **kind, **headers},
            timeout=(min(seconds, SECONDS), seconds),
            allow_redirects=False,
            stream=True,
        ) as response:
            text = redacted(_beginning(response), [url, *_parts(url), *hide])
            answer = Answer(response.status_code, text)
            retry_after = _retry_after(response.headers.get("Retry-After"))
    except (requests.RequestException, ValueError, OSError) as error:
        failure = _unreachable(channel, where, error, variable, seconds)
    else:
        return _judged(channel, where, answer, retry_after, variable)
    # Outside of the except block: the library's error quotes the address, and that may be a secret.
    raise failure


def _parts(url: str) -> list[str]:
    """What of an address may be secret: its path, its query, a login."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    return [part for part in (parts.path, parts.path.lstrip("/"), parts.query, parts.password or "") if len(part) > 3]


def hush() -> None:
    """Have the library below log no addresses, at whatever level somebody's logging is."""
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def place(url: str) -> str:
    """Scheme, host and port of an address, without anything that may be secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else "the address"


def _beginning(response: object) -> str:
    """The start of the answer; the rest is of no use, and may be long."""
    content = next(response.iter_content(_ANSWER_MOST), b"")  # type: ignore[attr-defined]
    return bytes(content).decode("utf-8", "replace").strip()


def _unreachable(
    channel: str, where: str, error: Exception, variable: str, seconds: float
) -> ChannelUnavailable | ChannelRefused:
    import requests  # noqa: PLC0415 - as above

    kinds = requests.exceptions
    hint = f"Is {variable} right, and may this machine connect there?"
    if isinstance(error, kinds.SSLError):
        hint = f"Its certificate is not trusted; is {variable} right? REQUESTS_CA_BUNDLE names a company's authorities."
        return ChannelUnavailable(f"{where} could not prove who it is (TLS)", channel=channel, hint=hint)
    if isinstance(error, kinds.Timeout):
        return ChannelUnavailable(f"{where} did not answer within {seconds:.0f} s", channel=channel, hint=hint)
    if isinstance(error, kinds.InvalidURL | kinds.MissingSchema | kinds.InvalidSchema | ValueError):
        return ChannelRefused(f"the address in {variable} can't be used", channel=channel, hint=f"Correct {variable}.")
    reason = _reason(error)
    return ChannelUnavailable(f"{where} can't be reached: {reason}", channel=channel, hint=hint)


def _reason(error: BaseException | None) -> str:
    """The system's own word for it, which quotes no address."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, OSError) and error.strerror and error.errno is not None:
            return error.strerror.lower()
        inner = getattr(error, "reason", None)
        candidates = [one for one in (inner, *error.args) if isinstance(one, BaseException)]
        error = candidates[0] if candidates else error.__cause__ or error.__context__
        seen += 1
    return "no connection"


def _retry_after(text: str | None) -> float | None:
    """Seconds, or a date, as RFC 9110 has it."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _judged(channel: str, where: str, answer: Answer, retry_after: float | None, variable: str) -> Answer:
    said = f"{where} answered {answer.status}"
    if 200 <= answer.status < 300:
        return answer
    if answer.status in _BUSY or answer.status >= 500:
        error = ChannelUnavailable(said, channel=channel, hint="It is tried again by itself.", retry_after=retry_after)
        raise error
    if answer.status in _WRONG_ADDRESS:
        raise ChannelRefused(said, channel=channel, hint=f"Was it revoked? Make a new one and set {variable}.")
    if 300 <= answer.status < 400:
        raise ChannelRefused(f"{said}, a redirect", channel=channel, hint=f"Set {variable} to the final address.")
    raise MessageRejected(f"{said}: {answer.text[:200]}", channel=channel, hint=f"Is {variable} right?")
