"""moto's S3 as a process of its own, each request on its own and atomic, as S3 itself promises::

    with MotoServer() as server:
        server.make_bucket("bucket")
        S3Storage.open(server.settings("bucket"))

moto checks no signature and no checksum of a body; whatever is proven with it, those are not.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrono_backups.storage.settings import AwsS3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
_HOST = "127.0.0.1"


def s3_settings(port: int, bucket: str, **more: Any) -> AwsS3Settings:
    """Settings for a server on that port."""
    given = {
        "enabled": True,
        "bucket_name": bucket,
        "endpoint_url": f"http://{_HOST}:{port}",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "region": "us-east-1",
    }
    return AwsS3Settings(**{**given, **more})


def s3_client(port: int) -> S3Client:
    """A plain client, for what a test does behind the storage's back."""
    import boto3
    from botocore.config import Config

    client: S3Client = boto3.client(
        "s3",
        endpoint_url=f"http://{_HOST}:{port}",
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    return client


class MotoServer:
    """A server on a free port of the loopback interface; a context."""

    def __init__(self, *, pretends: bool = False) -> None:
        """``pretends``: it takes ``If-None-Match`` and ignores it."""
        self._arguments = ["--pretend"] if pretends else []
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._client: S3Client | None = None

    def __enter__(self) -> MotoServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],  # the package is found there, wherever a test went
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise AssertionError("the server did not start")
        self.port = int(line)
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    @property
    def client(self) -> S3Client:
        """A plain client for this server."""
        if self._client is None:
            self._client = s3_client(self.port)
        return self._client

    def make_bucket(self, name: str, *, versions: bool = False, locks: bool = False) -> str:
        """An empty bucket; its name."""
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)
        if versions:
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def settings(self, bucket: str, **more: Any) -> AwsS3Settings:
        """Settings for a bucket of this server."""
        return s3_settings(self.port, bucket, **more)


class _OneAtATime:
    """Requests are read side by side and carried out one after the other: moto's own checks race."""

    def __init__(self, application: Callable[[dict[str, Any], Any], Iterable[bytes]], *, pretends: bool) -> None:
        self._application = application
        self._pretends = pretends
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        if len(body) < size:  # a client that went away has put nothing
            start_response("400 Bad Request", [("Content-Length", "0")])
            return []
        environ["wsgi.input"] = io.BytesIO(body)
        if self._pretends:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self._lock:
            return list(self._application(environ, start_response))


def serve(ready: Callable[[int], None], *, pretends: bool) -> None:
    """Serve until standard input ends."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 2**16

        def log(self, *_: object) -> None:
            """Say nothing."""

    application = _OneAtATime(create_backend_app("s3"), pretends=pretends)
    server = make_server(_HOST, 0, application, threaded=True, request_handler=Handler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ready(server.port)
    sys.stdin.read()


if __name__ == "__main__":
    serve(lambda port: print(port, flush=True), pretends="--pretend" in sys.argv)  # noqa: T201
