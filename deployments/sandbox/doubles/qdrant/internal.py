"""What peers ask one another, on 6335: metadata, operations, questions, archives."""

from __future__ import annotations

import contextlib
import json
import tempfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from deployments.sandbox.doubles.qdrant import operations
from deployments.sandbox.doubles.qdrant.errors import Refused
from deployments.sandbox.doubles.qdrant.peer import Peer


class Internal(BaseHTTPRequestHandler):
    """One request of another peer."""

    protocol_version = "HTTP/1.1"

    def __init__(self, peer: Peer, *args: Any) -> None:
        self.peer = peer
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        """The metadata, or a shard's archive."""
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[0] == "meta":
            return self._send(200, json.dumps(self.peer.meta).encode())
        with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
            file = Path(scratch) / "archive"
            self.peer.local(unquote(parts[1]), int(parts[2])).snapshot(file)
            return self._send(200, file.read_bytes())

    def do_PUT(self) -> None:
        """Newer metadata."""
        self.peer.take(self._json())
        self._send(200, b"{}")

    def do_POST(self) -> None:
        """An operation or a question for a replica."""
        kind, name, shard = urlsplit(self.path).path.strip("/").split("/")
        try:
            if kind == "apply":
                self.peer.apply(unquote(name), int(shard), self._json())
                return self._send(200, b"{}")
            answer = operations.ask(self.peer.local(unquote(name), int(shard)), self._json())
            return self._send(200, json.dumps(answer).encode())
        except Refused as refused:
            return self._send(refused.status, json.dumps({"error": str(refused)}).encode())

    def _json(self) -> dict[str, Any]:
        return dict(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)
