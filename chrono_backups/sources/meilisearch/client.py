"""A Meilisearch server's HTTP API: one place for addresses, keys, errors, patience and tasks.

What is asked again after a lost connection changes nothing the second time: reading, adding documents (which replace
themselves) and settings. Everything else is the caller's to look after (``once=True``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from chrono_backups.clock import Clock
from chrono_backups.errors import AnswerTooLarge, SourceBusy, SourceError, SourceRefused, SourceUnavailable
from chrono_backups.sources.settings import MeilisearchSettings

if TYPE_CHECKING:
    import requests

_PORT = 7700
_CONNECT_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 120.0
_ATTEMPTS = 5
_LONGEST_WAIT = 10.0
"""Seconds before another try, at most; a busy server asks for ten."""
_PASSING = frozenset({408, 429, 502, 503, 504})
_PAGE = 200
_SHOWN = 300

_REMEDIES = {
    "missing_authorization_header": "Set BACKUP_MEILISEARCH_MASTER_KEY.",
    "invalid_api_key": "Correct BACKUP_MEILISEARCH_MASTER_KEY: it is another key, has expired, or may not do this.",
    "missing_master_key": "Start the server with MEILI_MASTER_KEY: without one it has no keys.",
    "no_space_left_on_device": "Make room on the server, or delete finished tasks there.",
}


@dataclass(frozen=True)
class Server:
    """Where a server is, and the key for it."""

    url: str
    key: str | None

    @classmethod
    def of(cls, settings: MeilisearchSettings) -> Server:
        """The server of the settings."""
        assert settings.host is not None
        key = settings.master_key.get_secret_value() if settings.master_key is not None else None
        return cls(base_url(settings.host), key)

    def __repr__(self) -> str:
        return f"Server({self.url})"


def base_url(host: str) -> str:
    """The address that paths are put behind: HTTP and Meilisearch's own port where none is named."""
    if "://" in host:
        return host.rstrip("/")
    named = host.rpartition("]")[2] if host.startswith("[") else host
    return f"http://{host}" if ":" in named else f"http://{host}:{_PORT}"


class Meilisearch:
    """A connection; a context. Raises ``SourceUnavailable`` where there is no answer, else ``SourceRefused``."""

    def __init__(self, server: Server, clock: Clock, *, attempts: int = _ATTEMPTS) -> None:
        self.server = server
        self._clock = clock
        self._attempts = attempts
        self._session: requests.Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    # What is asked.

    def get(self, path: str, **query: Any) -> Any:
        """A path's document."""
        return _json(self.ask("GET", path, query=query))

    def send(self, method: str, path: str, document: Any = None, *, once: bool = False) -> Any:
        """Send a document, and have the answer's."""
        body = None if document is None else json.dumps(document).encode()
        return _json(self.ask(method, path, body=body, once=once))

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """All results of a path that answers by offset and limit."""
        offset = 0
        while True:
            page = self.get(path, offset=offset, limit=_PAGE)
            yield from page["results"]
            offset += _PAGE
            if offset >= page.get("total", 0):
                return

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        once: bool = False,
        most: int | None = None,
    ) -> bytes:
        """The answer's body. Tried again while the server is busy, and, unless ``once``, after a lost connection.

        Raises ``AnswerTooLarge`` for an answer of more than ``most`` bytes, before it is read.
        """
        waited = 0.5
        for attempt in range(1, self._attempts + 1):
            try:
                return self._ask(method, path, query, body, content_type, most)
            except SourceUnavailable as error:
                last = attempt == self._attempts
                if last or (once and not isinstance(error, SourceBusy)):
                    raise
                told = error.retry_after if isinstance(error, SourceBusy) else None
                self._clock.sleep(min(told or waited, _LONGEST_WAIT))
                waited = min(waited * 2, _LONGEST_WAIT)
        raise AssertionError("the last attempt raises")

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: bytes | None,
        kind: str,
        most: int | None,
    ) -> bytes:
        import requests  # noqa: PLC0415 - what starts often does without

        if self._session is None:
            self._session = requests.Session()
            # As an object: a header alone gives way to a .netrc. Uncompressed: packing costs the server more than
            # the way does.
            self._session.auth = _bearer(self.server.key)
            self._session.headers["Accept-Encoding"] = "identity"
        try:
            answer = self._session.request(
                method,
                self.server.url + path,
                params=query,
                data=body,
                headers={"Content-Type": kind} if body is not None else None,
                timeout=(_CONNECT_TIMEOUT, _ANSWER_TIMEOUT),
                allow_redirects=False,
                stream=most is not None,
            )
            if most is not None and int(answer.headers.get("Content-Length", 0)) > most:
                answer.close()
                raise AnswerTooLarge(f"an answer of more than {most} bytes", source="meilisearch")
            content = answer.content
        except requests.exceptions.SSLError as error:
            raise SourceError(
                f"the certificate of {self.server.url} is not accepted: {_reason(error)}",
                source="meilisearch",
                hint="Name the certificates to trust in REQUESTS_CA_BUNDLE.",
            ) from error
        except (requests.RequestException, OSError) as error:
            raise SourceUnavailable(
                f"Meilisearch at {self.server.url} does not answer: {_reason(error)}",
                source="meilisearch",
                hint="See that it runs and can be reached from here, and that BACKUP_MEILISEARCH_HOST is right.",
            ) from error
        if answer.ok and not answer.is_redirect:
            return content
        raise self._refusal(method, path, answer.status_code, answer.headers.get("Retry-After"), content)

    def _refusal(self, method: str, path: str, status: int, retry_after: str | None, content: bytes) -> SourceError:
        try:
            told = json.loads(content)
            code, message = str(told["code"]), str(told["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "", content[:_SHOWN].decode(errors="replace").strip() or "nothing more"
        if status in _PASSING:
            seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
            return _busy(f"Meilisearch at {self.server.url} is busy ({status}): {message}", seconds)
        if status >= 500 and not code:
            return _busy(f"Meilisearch at {self.server.url} answers {status}: {message}", None)
        return SourceRefused(
            f"Meilisearch at {self.server.url} refuses {method} {path} ({code or status}): {message}",
            source="meilisearch",
            code=code,
            status=status,
            hint=_REMEDIES.get(code, ""),
        )


def of_index(uid: str, rest: str = "") -> str:
    """The path of an index, or of what belongs to it."""
    return f"/indexes/{quote(uid, safe='')}{rest}"


def missing(error: SourceRefused) -> bool:
    """Whether the server has no such thing: it is too old for it, or a feature is off."""
    return error.status in {404, 405} or error.code == "feature_not_enabled"


def denied(error: SourceRefused) -> bool:
    """Whether the key may not do it."""
    return error.status in {401, 403}


def _busy(message: str, retry_after: float | None) -> SourceBusy:
    hint = "It may be overloaded: try again later."
    return SourceBusy(message, source="meilisearch", retry_after=retry_after, hint=hint)


def _bearer(key: str | None) -> Any:
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key is not None:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    return sign


def _json(content: bytes) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError as error:
        raise SourceError("what answers is no Meilisearch: it gives no JSON", source="meilisearch") from error


def _reason(error: BaseException) -> str:
    """The innermost reason, in short: the outer ones repeat the address and name classes."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return (getattr(inner, "strerror", None) or str(inner) or type(inner).__name__)[:_SHOWN]
