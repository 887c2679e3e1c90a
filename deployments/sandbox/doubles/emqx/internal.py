"""What nodes ask one another, on 5369: the shared tables, for whoever knows the cookie."""

from __future__ import annotations

import hmac
import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from deployments.sandbox.doubles.emqx.state import State


class Internal(BaseHTTPRequestHandler):
    """One request of another node."""

    protocol_version = "HTTP/1.1"

    def __init__(self, state: State, cookie: str, *args: Any) -> None:
        self.state, self.cookie = state, cookie
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        """The tables."""
        self._answer()

    def do_PUT(self) -> None:
        """Newer tables."""
        tables = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self._knows():
            self.state.take(tables)
        self._answer()

    def _knows(self) -> bool:
        return hmac.compare_digest(self.headers.get("x-cookie") or "", self.cookie)

    def _answer(self) -> None:
        body = json.dumps(self.state.tables).encode() if self._knows() else b""
        self.send_response(200 if body else 403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
