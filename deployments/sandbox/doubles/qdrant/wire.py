"""Requests and answers as bytes: keys, JSON, multipart uploads, files."""

from __future__ import annotations

import json
import shutil
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deployments.sandbox.doubles.qdrant.errors import Refused
from deployments.sandbox.doubles.qdrant.peer import Peer

CHUNK = 1 << 20
READS = ("count", "scroll", "query", "search", "retrieve")
OPEN = ("/", "/readyz", "/livez", "/healthz")


class Raw(Exception):
    """An answer that is no JSON: text, or a file."""

    def __init__(self, body: str | Path) -> None:
        super().__init__()
        self.body = body


class Wire(BaseHTTPRequestHandler):
    """One request of the public API, without its routes."""

    protocol_version = "HTTP/1.1"
    server_version = "qdrant-double"

    def __init__(self, peer: Peer, keys: tuple[str, str], *args: Any) -> None:
        self.peer = peer
        self.key, self.read_key = keys
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: their keys are in the headers."""

    def handle_request(self) -> None:
        """Answer, in the server's envelope."""
        started = time.monotonic()
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self._left = int(self.headers.get("content-length") or 0)
        try:
            self._authorise(url.path)
            result = self.route(url.path)
            body: dict[str, Any] = {"result": result, "status": "ok"}
            status = 200
        except Raw as raw:
            self._drain()
            return self.send_file(raw.body)
        except Refused as refused:
            if refused.plain:
                self._drain()
                return self._send(refused.status, str(refused).encode(), "text/plain")
            body, status = {"status": {"error": str(refused)}}, refused.status
        self._drain()
        if url.path == "/" and status == 200:
            body = body["result"]  # the one answer without an envelope
        else:
            body["time"] = time.monotonic() - started
        return self._send(status, json.dumps(body).encode(), "application/json")

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_request  # noqa: N815

    def route(self, path: str) -> Any:
        """Find what answers a path, and let it."""
        raise NotImplementedError

    def _authorise(self, path: str) -> None:
        given = self.headers.get("api-key") or str(
            self.headers.get("authorization") or ""
        ).removeprefix("Bearer ")
        if path in OPEN or not self.key or given == self.key:
            return
        if not given:
            raise Refused(
                401, "Must provide an API key or an Authorization bearer token", plain=True
            )
        if given != self.read_key:
            raise Refused(401, "Invalid API key or JWT", plain=True)
        reads = (
            self.command == "GET" or path.rpartition("/")[2] in READS or path.endswith("/points")
        )
        if not reads:
            raise Refused(403, "Forbidden: Global manage access is required", plain=True)

    def json_body(self) -> dict[str, Any]:
        """The request's body."""
        text = self.rfile.read(self._left)
        self._left = 0
        try:
            return dict(json.loads(text or b"{}"))
        except ValueError as exc:
            raise Refused(400, f"Format error in JSON body: {exc}") from exc

    def receive(self, target: Path) -> None:
        """Take the file out of a multipart body with one part, without holding it in memory."""
        boundary = (
            str(self.headers.get("content-type") or "")
            .partition("boundary=")[2]
            .strip('"')
            .encode()
        )
        if not boundary:
            raise Refused(400, "Multipart error: no boundary")
        while True:  # headers of the part
            line = self.rfile.readline()
            self._left -= len(line)
            if line in (b"\r\n", b""):
                break
        rest = self._left - len(b"\r\n--" + boundary + b"--\r\n")
        with target.open("wb") as file:
            while rest > 0 and (chunk := self.rfile.read(min(CHUNK, rest))):
                file.write(chunk)
                rest -= len(chunk)
                self._left -= len(chunk)

    def _drain(self) -> None:
        while self._left > 0 and (chunk := self.rfile.read(min(CHUNK, self._left))):
            self._left -= len(chunk)

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, body: str | Path) -> None:
        """Answer with text, or with a file piece by piece."""
        if body == "":
            return
        if isinstance(body, str):
            self._send(200, body.encode(), "text/plain; charset=utf-8")
            return
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(body.stat().st_size))
        self.send_header("content-disposition", f'attachment; filename="{body.name}"')
        self.end_headers()
        with body.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, CHUNK)
