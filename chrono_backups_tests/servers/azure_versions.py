"""A stand-in for Azure Blob Storage with versions and immutability policies, which no emulator has.

It is held to the documented REST API of a container with version-level immutability, as far as a driver of whole
blobs needs it: each write makes a version; deleting a blob without naming a version only makes its current version a
previous one; a version is deleted by its id, unless it is the current one or its policy's time has not come; a policy
that is locked can be made longer only; listings show versions, the oldest of a name first. It asks for no login, and
what is not in here answers 501.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from chrono_backups.storage.settings import AzureBlobSettings

ACCOUNT = "account"
CONTAINER = "backups"


@dataclass
class Version:
    """One version of a blob. ``until`` and ``mode`` are its policy."""

    name: str
    id: str
    content: bytes
    current: bool = True
    until: datetime | None = None
    mode: str = ""
    tier: str = ""

    @property
    def locked(self) -> bool:
        return self.until is not None and self.until > datetime.now(UTC)


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class AzureVersionsServer:
    """The server, on a free port of the loopback interface; a context. ``versions`` is open to tests."""

    def __init__(self, *, immutable: bool = True, hierarchical: bool = False) -> None:
        self.immutable = immutable
        self.hierarchical = hierarchical
        self.versions: list[Version] = []
        self.lock = threading.RLock()
        self._count = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> AzureVersionsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def settings(self, **more: Any) -> AzureBlobSettings:
        """The storage's settings for its container."""
        given = {
            "enabled": True,
            "account_name": ACCOUNT,
            "account_key": base64.b64encode(b"any").decode(),
            "container_name": CONTAINER,
            "endpoint_url": f"http://127.0.0.1:{self._server.server_address[1]}/{ACCOUNT}",
        }
        return AzureBlobSettings.model_validate({**given, **more})

    def of(self, name: str) -> list[Version]:
        """The blob's versions, the oldest first."""
        return [version for version in self.versions if version.name == name]

    def write(self, name: str, content: bytes, *, until: datetime | None = None, mode: str = "") -> Version:
        """A new current version, whoever writes it."""
        with self.lock:
            for version in self.of(name):
                version.current = False
            self._count += 1
            made = Version(name, f"2026-01-01T00:00:00.{self._count:07d}Z", content, until=until, mode=mode)
            self.versions.append(made)
            return made

    def hide(self, name: str) -> None:
        """Delete without naming a version: there is no current one any more."""
        with self.lock:
            for version in self.of(name):
                version.current = False

    def find(self, name: str, version_id: str | None) -> Version:
        for version in self.of(name):
            if version.id == version_id or (version_id is None and version.current):
                return version
        raise Refused(404, "BlobNotFound")

    def remove(self, name: str, version_id: str | None) -> None:
        with self.lock:
            version = self.find(name, version_id)
            if version_id is None:
                self.hide(name)
            elif version.current:
                raise Refused(403, "OperationNotAllowedOnRootBlob")
            elif version.locked:
                raise Refused(409, "BlobImmutableDueToPolicy")
            else:
                self.versions.remove(version)

    def set_policy(self, version: Version, until: datetime, mode: str) -> None:
        with self.lock:
            if version.mode == "locked" and version.until is not None and (until < version.until or mode != "locked"):
                raise Refused(409, "BlobImmutableDueToPolicy")
            version.until, version.mode = until, mode


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    state: AzureVersionsServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the tests' output is theirs."""

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        name = unquote(parts.path).removeprefix(f"/{ACCOUNT}/{CONTAINER}").lstrip("/")
        try:
            if query.get("restype") == "account":
                self._answer(200, b"", {"x-ms-is-hns-enabled": str(self.state.hierarchical).lower()})
            elif query.get("restype") == "container":
                self._container(query)
            else:
                self._blob(name, query, content)
        except Refused as refused:
            body = f"<?xml version='1.0'?><Error><Code>{refused.code}</Code><Message>refused</Message></Error>".encode()
            self._answer(refused.status, body, {"x-ms-error-code": refused.code, "Content-Type": "application/xml"})

    do_GET = do_HEAD = do_PUT = do_DELETE = _handle

    def _container(self, query: dict[str, str]) -> None:
        if query.get("comp") == "list":
            self._answer(200, self._listing(query), {"Content-Type": "application/xml"})
            return
        enabled = str(self.state.immutable).lower()
        self._answer(200, b"", {"x-ms-immutable-storage-with-versioning-enabled": enabled})

    def _listing(self, query: dict[str, str]) -> bytes:
        with_versions = "versions" in query.get("include", "")
        with self.state.lock:
            found = sorted(self.state.versions, key=lambda version: (version.name, version.id))
        blobs = "".join(
            _element(version)
            for version in found
            if version.name.startswith(query.get("prefix", "")) and (with_versions or version.current)
        )
        start = "<?xml version='1.0' encoding='utf-8'?>"
        return f"{start}<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>".encode()

    def _blob(self, name: str, query: dict[str, str], content: bytes) -> None:
        state, version_id = self.state, query.get("versionid")
        if self.command == "PUT" and query.get("comp") == "immutabilityPolicies":
            until, mode = self._policy()
            assert until is not None
            state.set_policy(state.find(name, version_id), until, mode)
            self._answer(200)
        elif self.command == "PUT" and "comp" not in query:
            self._write(name, content)
        elif self.command in ("GET", "HEAD"):
            self._read(state.find(name, version_id))
        elif self.command == "DELETE":
            state.remove(name, version_id)
            self._answer(202)
        else:
            raise Refused(501, "NotImplemented")

    def _policy(self) -> tuple[datetime | None, str]:
        until = self.headers.get("x-ms-immutability-policy-until-date")
        mode = self.headers.get("x-ms-immutability-policy-mode", "")
        return (None if until is None else parsedate_to_datetime(until)), mode.lower()

    def _write(self, name: str, content: bytes) -> None:
        state = self.state
        until, mode = self._policy()
        if until is not None and not state.immutable:
            raise Refused(400, "VersionLevelImmutabilityNotEnabled")
        with state.lock:
            if self.headers.get("If-None-Match") == "*" and any(version.current for version in state.of(name)):
                raise Refused(409, "BlobAlreadyExists")
            made = state.write(name, content, until=until, mode=mode)
            made.tier = self.headers.get("x-ms-access-tier", "")
        self._answer(201, b"", {"ETag": f'"{made.id}"', "Last-Modified": _date(datetime.now(UTC))})

    def _read(self, version: Version) -> None:
        headers = {"ETag": f'"{version.id}"', "x-ms-blob-type": "BlockBlob", "x-ms-version-id": version.id}
        headers |= {"Last-Modified": _date(datetime.now(UTC)), "x-ms-blob-content-md5": _md5(version.content)}
        if version.until is not None:
            headers["x-ms-immutability-policy-until-date"] = _date(version.until)
            headers["x-ms-immutability-policy-mode"] = version.mode
        size = len(version.content)
        text = self.headers.get("x-ms-range") or self.headers.get("Range") or ""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
        if self.command == "HEAD" or asked is None:
            self._answer(200, version.content, headers)
            return
        begin, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else size, size)
        if begin >= size:
            raise Refused(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        self._answer(206, version.content[begin:end], headers)


def _element(version: Version) -> str:
    policy = ""
    if version.until is not None:
        policy = (
            f"<ImmutabilityPolicyUntilDate>{_date(version.until)}</ImmutabilityPolicyUntilDate>"
            f"<ImmutabilityPolicyMode>{version.mode}</ImmutabilityPolicyMode>"
        )
    current = "<IsCurrentVersion>true</IsCurrentVersion>" if version.current else ""
    return (
        f"<Blob><Name>{escape(version.name)}</Name><VersionId>{version.id}</VersionId>{current}<Properties>"
        f"<Last-Modified>{_date(datetime.now(UTC))}</Last-Modified><Etag>{version.id}</Etag>"
        f"<Content-Length>{len(version.content)}</Content-Length><BlobType>BlockBlob</BlobType>{policy}"
        "</Properties></Blob>"
    )


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True)
