"""Requests between nodes, on port 5369: shared tables, the lock, exports. They need the cookie."""

from __future__ import annotations

import hmac
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from sandbox.doubles.emqx.backups import Backups
from sandbox.doubles.emqx.state import State


class Internal(BaseHTTPRequestHandler):
    """One request of another node."""

    protocol_version = "HTTP/1.1"

    def __init__(self, state: State, backups: Backups, cookie: str, *args: Any) -> None:
        self.state, self.backups, self.cookie = state, backups, cookie
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

    def handle_request(self) -> None:
        """Answer one request."""
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        given = self.headers.get("x-cookie") or ""
        if not hmac.compare_digest(given.encode(), self.cookie.encode()):
            return self._answer(403, b"")
        self._answer(*self._act(self.command, self.path, json.loads(content or b"null")))

    do_GET = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815

    def _act(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        name = unquote(path.removeprefix("/files/"))
        if path == "/state":
            if method == "PUT":
                self.state.take(body)
            return 200, json.dumps(self.state.tables).encode()
        if path == "/lock" and method == "POST":
            if self.state.lend(body["ticket"]):
                return 200, json.dumps(self.state.tables).encode()
            return 409, b""
        if path == "/lock":
            self.state.give_back(body["ticket"])
            return 200, b""
        if path == "/files":
            return 200, json.dumps(self.backups.own()).encode()
        try:
            if method == "DELETE":
                self.backups.delete(name)
                return 200, b""
            return 200, self.backups.read(name)
        except FileNotFoundError:
            return 404, b""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
