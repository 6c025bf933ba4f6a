"""A server of the tests' own that speaks as much of Google Cloud Storage's JSON API as a driver needs.

No emulator at hand keeps to the preconditions, so this one is held to the documented contract: one generation a
write, ``ifGenerationMatch`` and ``ifMetagenerationMatch`` decided under one lock, uploads of the kinds media, multipart
and resumable whose CRC32C and MD5 are compared before the object exists, ranges, pages, and object retention. Errors
have the service's JSON shape, reasons and wording. What is not in here answers 501.

::

    with GcsServer() as server:
        bucket = server.make_bucket("backups", retention=True)
        …
        assert server.count("POST") == 1

With ``token`` every request needs it as its bearer token, and ``/token`` gives it out for a signed login.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

PAGE_MOST = 1000
_PART = 256 * 1024


@dataclass
class StoredObject:
    """A live object."""

    name: str
    content: bytes
    generation: int
    storage_class: str
    content_type: str
    metageneration: int = 1
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    retention: dict[str, str] | None = None

    def resource(self, bucket: str) -> dict[str, Any]:
        """As the API shows it."""
        shown: dict[str, Any] = {
            "kind": "storage#object",
            "bucket": bucket,
            "name": self.name,
            "size": str(len(self.content)),
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": self.storage_class,
            "contentType": self.content_type,
            "timeCreated": self.created.isoformat().replace("+00:00", "Z"),
            **hashes(self.content),
        }
        return shown if self.retention is None else {**shown, "retention": self.retention}


@dataclass
class Bucket:
    """A bucket; ``objects`` is open to tests that damage what is stored."""

    name: str
    retention: bool = False
    objects: dict[str, StoredObject] = field(default_factory=dict)


@dataclass
class _Session:
    """A resumable upload under way."""

    bucket: str
    query: dict[str, str]
    description: dict[str, Any]
    received: bytearray = field(default_factory=bytearray)


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def body(self) -> bytes:
        """In the service's shape."""
        one = {"message": self.message, "domain": "global", "reason": self.reason}
        return json.dumps({"error": {"code": self.status, "message": self.message, "errors": [one]}}).encode()


class GcsServer:
    """The server, on a free port of the loopback interface; a context."""

    def __init__(self, *, token: str | None = None, pretends: bool = False) -> None:
        """``pretends``: preconditions are taken and not kept to."""
        self.pretends = pretends
        self.buckets: dict[str, Bucket] = {}
        self.token = token
        self.requests: list[tuple[str, str]] = []
        self.forbidden: set[str] = set()
        """HTTP methods that the account has no right to."""
        self.login_failure = ""
        """What ``/token`` answers as the description of ``invalid_grant``, instead of a token."""
        self.lock = threading.RLock()
        self.sessions: dict[str, _Session] = {}
        self.connections = 0
        self._generation = 1_700_000_000_000_000
        self._server = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_state": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> GcsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def make_bucket(self, name: str, *, retention: bool = False) -> Bucket:
        """A new bucket; with ``retention`` its objects can have one."""
        bucket = self.buckets[name] = Bucket(name, retention)
        return bucket

    def count(self, method: str = "", path: str = "") -> int:
        """How many such requests came."""
        with self.lock:
            return sum(method in ("", one) and re.search(path, target) is not None for one, target in self.requests)

    def next_generation(self) -> int:
        with self.lock:
            self._generation += 1
            return self._generation

    def bucket(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise ApiError(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def object(self, bucket: str, name: str) -> StoredObject:
        found = self.bucket(bucket).objects.get(name)
        if found is None:
            raise ApiError(404, "notFound", f"No such object: {bucket}/{name}")
        return found

    # What the API does, each under the lock

    def insert(self, bucket: str, query: dict[str, str], description: dict[str, Any], content: bytes) -> StoredObject:
        name = description.get("name") or query.get("name") or ""
        if not name:
            raise ApiError(400, "required", "Required parameter: name")
        for kind, value in hashes(content).items():
            if description.get(kind, value) != value:
                said = (
                    f'Provided {kind.upper()} "{description[kind]}" doesn\'t match calculated {kind.upper()} "{value}".'
                )
                raise ApiError(400, "invalid", said)
        with self.lock:
            holder = self.bucket(bucket)
            present = holder.objects.get(name)
            if not self.pretends:
                check_conditions(query, present)
            if present is not None:
                self.check_retention(bucket, present)
            stored = StoredObject(
                name,
                content,
                self.next_generation(),
                description.get("storageClass", "STANDARD"),
                description.get("contentType", "application/octet-stream"),
                retention=self._checked_retention(holder, description.get("retention")),
            )
            holder.objects[name] = stored
            return stored

    @staticmethod
    def _checked_retention(holder: Bucket, retention: dict[str, str] | None) -> dict[str, str] | None:
        if retention is None:
            return None
        if not holder.retention:
            raise ApiError(400, "invalid", "Object retention is not enabled on the bucket.")
        if retention.get("mode") not in ("Locked", "Unlocked") or moment(retention["retainUntilTime"]) < datetime.now(
            UTC
        ):
            raise ApiError(400, "invalid", "Invalid value for retention.")
        return {"mode": retention["mode"], "retainUntilTime": retention["retainUntilTime"]}

    def check_retention(self, bucket: str, present: StoredObject) -> None:
        if present.retention is not None and moment(present.retention["retainUntilTime"]) > datetime.now(UTC):
            until = present.retention["retainUntilTime"]
            raise ApiError(
                403,
                "retentionPolicyNotMet",
                f"Object '{bucket}/{present.name}' is under active Object Retention and cannot be deleted or "
                f"overwritten until {until}.",
            )

    def delete(self, bucket: str, name: str, query: dict[str, str]) -> None:
        with self.lock:
            present = self.object(bucket, name)
            check_conditions(query, present)
            self.check_retention(bucket, present)
            del self.bucket(bucket).objects[name]

    def patch(self, bucket: str, name: str, query: dict[str, str], change: dict[str, Any]) -> StoredObject:
        with self.lock:
            present = self.object(bucket, name)
            check_conditions(query, present)
            if "retention" in change:
                asked = self._checked_retention(self.bucket(bucket), change["retention"])
                self._check_change(present.retention, asked, override=query.get("overrideUnlockedRetention") == "true")
                present.retention = asked
            present.metageneration += 1
            return present

    @staticmethod
    def _check_change(present: dict[str, str] | None, asked: dict[str, str] | None, *, override: bool) -> None:
        if present is None:
            return
        shorter = asked is None or moment(asked["retainUntilTime"]) < moment(present["retainUntilTime"])
        other_mode = asked is not None and asked["mode"] != present["mode"]
        if not shorter and not other_mode:
            return
        if present["mode"] == "Locked":
            raise ApiError(403, "forbidden", "A Locked object retention can't be shortened, removed or unlocked.")
        if not override:
            raise ApiError(403, "forbidden", "overrideUnlockedRetention must be true for this change.")

    def page(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        with self.lock:
            names = sorted(self.bucket(bucket).objects)
            prefix, start = query.get("prefix", ""), query.get("startOffset", "")
            after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
            left = [name for name in names if name.startswith(prefix) and name >= start and name > after]
            shown = left[: min(int(query.get("maxResults", PAGE_MOST)), PAGE_MOST)]
            found: dict[str, Any] = {"kind": "storage#objects"}
            if shown:
                found["items"] = [self.buckets[bucket].objects[name].resource(bucket) for name in shown]
            if len(left) > len(shown):
                found["nextPageToken"] = base64.urlsafe_b64encode(shown[-1].encode()).decode()
            return found


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only clients that went away are no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server_state: GcsServer

    def setup(self) -> None:
        super().setup()
        with self.server_state.lock:
            self.server_state.connections += 1

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the tests' output is theirs."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, shown: dict[str, Any], status: int = 200) -> None:
        self._answer(status, json.dumps(shown).encode(), Content_Type="application/json; charset=UTF-8")

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state = self.server_state
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with state.lock:
            state.requests.append((self.command, self.path))
        try:
            if parts.path == "/token":
                self._login()
                return
            if state.token is not None and self.headers.get("Authorization") != f"Bearer {state.token}":
                raise ApiError(401, "authError", "Invalid Credentials")
            if self.command in state.forbidden:
                raise ApiError(403, "forbidden", "backup@example.com does not have storage.objects access.")
            self._route(parts.path, query, content)
        except ApiError as error:
            self._answer(error.status, error.body(), Content_Type="application/json; charset=UTF-8")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _login(self) -> None:
        state = self.server_state
        if state.login_failure:
            self._json({"error": "invalid_grant", "error_description": state.login_failure}, 400)
        else:
            self._json({"access_token": state.token or "any", "expires_in": 3600, "token_type": "Bearer"})

    def _route(self, path: str, query: dict[str, str], content: bytes) -> None:
        state = self.server_state
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+))?)?", path)
        if found is None:
            raise ApiError(501, "notImplemented", f"{self.command} {path}")
        kind, bucket, name = found[1], unquote(found[2]), unquote(found[3] or "")
        match self.command, kind, bool(name), "/o" in path:
            case "POST" | "PUT", "/upload", False, True:
                self._upload(bucket, query, content)
            case "GET", None, False, False:
                mode = {"objectRetention": {"mode": "Enabled"}} if state.bucket(bucket).retention else {}
                self._json({"kind": "storage#bucket", "name": bucket, **mode})
            case "GET", None, False, True:
                self._json(state.page(bucket, query))
            case "GET", _, True, True if query.get("alt") == "media":
                self._download(bucket, name, query)
            case "GET", None, True, True:
                present = state.object(bucket, name)
                check_conditions(query, present)
                self._json(present.resource(bucket))
            case "PATCH", None, True, True:
                self._json(state.patch(bucket, name, query, json.loads(content)).resource(bucket))
            case "DELETE", None, True, True:
                state.delete(bucket, name, query)
                self._answer(204)
            case _:
                raise ApiError(501, "notImplemented", f"{self.command} {path}")

    # Uploads

    def _upload(self, bucket: str, query: dict[str, str], content: bytes) -> None:
        state = self.server_state
        if "upload_id" in query:
            self._resume(query["upload_id"], content)
        elif query.get("uploadType") == "media":
            self._json(state.insert(bucket, query, {}, content).resource(bucket))
        elif query.get("uploadType") == "multipart":
            described, data = split_related(self.headers["Content-Type"], content)
            self._json(state.insert(bucket, query, described, data).resource(bucket))
        elif query.get("uploadType") == "resumable":
            described = json.loads(content or b"{}")
            name = described.get("name") or query.get("name", "")
            with state.lock:
                if not state.pretends:
                    check_conditions(query, state.bucket(bucket).objects.get(name))
                session = f"s{state.next_generation()}"
                state.sessions[session] = _Session(bucket, query, described)
            self._answer(200, Location=f"{state.url}/upload/storage/v1/b/{bucket}/o?upload_id={session}")
        else:
            raise ApiError(400, "invalid", "uploadType")

    def _resume(self, session_id: str, content: bytes) -> None:
        state = self.server_state
        session = state.sessions.get(session_id)
        if session is None:
            raise ApiError(410, "gone", "The upload session is over.")
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers.get("Content-Range", ""))
        if found is None:
            raise ApiError(400, "invalid", "Content-Range")
        if found[1] is not None:
            if int(found[1]) != len(session.received) or int(found[2]) + 1 - int(found[1]) != len(content):
                raise ApiError(400, "invalid", "the part does not follow the one before")
            session.received += content
        if found[3] == "*" or len(session.received) < int(found[3]):
            if len(session.received) % _PART:
                raise ApiError(400, "invalid", "parts but the last are multiples of 256 KiB")
            self._answer(308, b"", **({"Range": f"bytes=0-{len(session.received) - 1}"} if session.received else {}))
            return
        del state.sessions[session_id]
        stored = state.insert(session.bucket, session.query, session.description, bytes(session.received))
        self._json(stored.resource(session.bucket))

    # Downloads

    def _download(self, bucket: str, name: str, query: dict[str, str]) -> None:
        present = self.server_state.object(bucket, name)
        check_conditions(query, present)
        kept = hashes(present.content)
        headers = {
            "X-Goog-Hash": f"crc32c={kept['crc32c']},md5={kept['md5Hash']}",
            "X-Goog-Generation": str(present.generation),
            "X-Goog-Stored-Content-Length": str(len(present.content)),
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, present.content, Content_Type=present.content_type, **headers)
            return
        begin, size = int(asked[1]), len(present.content)
        end = min(int(asked[2]) + 1 if asked[2] else size, size)
        if begin >= size:
            raise ApiError(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        self._answer(206, present.content[begin:end], Content_Type=present.content_type, **headers)


def hashes(content: bytes) -> dict[str, str]:
    """As the service keeps them: base64 of the big-endian CRC32C and of the MD5."""
    crc32c = int(google_crc32c.value(content)).to_bytes(4, "big")
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return {"crc32c": base64.b64encode(crc32c).decode(), "md5Hash": base64.b64encode(md5).decode()}


def check_conditions(query: dict[str, str], present: StoredObject | None) -> None:
    """The preconditions, as documented: generation 0 is "no live object"."""
    generation = 0 if present is None else present.generation
    metageneration = 0 if present is None else present.metageneration
    for name, value in (("Generation", generation), ("Metageneration", metageneration)):
        if int(query.get(f"if{name}Match", value)) != value or int(query.get(f"if{name}NotMatch", -1)) == value:
            raise ApiError(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


def split_related(content_type: str, content: bytes) -> tuple[dict[str, Any], bytes]:
    """The description and the data of a ``multipart/related`` body (RFC 2387)."""
    boundary = b"--" + BytesParser().parsebytes(f"Content-Type: {content_type}\n\n".encode()).get_boundary("").encode()
    begin = content.index(boundary) + len(boundary)
    between = content.index(b"\r\n" + boundary, begin)
    end = content.rindex(b"\r\n" + boundary + b"--")
    first = content[begin:between]
    described = json.loads(first[first.index(b"\r\n\r\n") + 4 :])
    data_at = content.index(b"\r\n\r\n", between) + 4
    return described, content[data_at:end]


def moment(text: str) -> datetime:
    """RFC 3339."""
    return datetime.fromisoformat(text)
