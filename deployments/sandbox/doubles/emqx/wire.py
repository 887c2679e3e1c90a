"""Requests and answers as bytes: sign-on, API keys, JSON, errors as EMQX words them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deployments.sandbox.doubles.emqx.broker import Broker, is_password
from deployments.sandbox.doubles.emqx.state import State

TOKEN_SECONDS = 3600
Json = dict[str, Any]


class Refused(Exception):
    """An answer that is not a success, with EMQX's code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Raw(Exception):
    """An answer that is no JSON."""

    def __init__(self, body: bytes, kind: str) -> None:
        super().__init__()
        self.body, self.kind = body, kind


class Node:
    """What the routes need.

    Attributes:
        state: shared tables.
        broker: the MQTT server.
        data: directory of this node.
        host: DNS suffix of node names.
    """

    def __init__(
        self, state: State, broker: Broker, data: Path, host: str, cookie: str, anonymous: bool
    ) -> None:
        self.state, self.broker, self.data = state, broker, data
        self.anonymous = anonymous
        self._host = host
        self._key = hashlib.sha256(cookie.encode()).digest()  # a token is good on every node

    def node_name(self, pod: str) -> str:
        """`emqx@POD.HOST`."""
        return f"emqx@{pod}.{self._host}"

    def sign(self, user: str) -> str:
        """A token for a signed-on user."""
        text = f"{user}|{int(time.time()) + TOKEN_SECONDS}"
        mark = hmac.new(self._key, text.encode(), "sha256").hexdigest()
        return base64.urlsafe_b64encode(f"{text}|{mark}".encode()).decode()

    def signed(self, token: str) -> str:
        """The user of a token, "" if it is not good."""
        try:
            user, until, mark = base64.urlsafe_b64decode(token).decode().split("|")
        except ValueError:
            return ""
        good = hmac.compare_digest(
            mark, hmac.new(self._key, f"{user}|{until}".encode(), "sha256").hexdigest()
        )
        return user if good and int(until) > time.time() else ""


class Wire(BaseHTTPRequestHandler):
    """One request of the management API, without its routes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, node: Node, *args: Any) -> None:
        self.node = node
        self.administrator = False
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: their credentials are in the headers."""

    def handle_request(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.content = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            status, body = self.route(url.path)
            self._send(
                status, b"" if body is None else json.dumps(body).encode(), "application/json"
            )
        except Raw as raw:
            self._send(200, raw.body, raw.kind)
        except Refused as refused:
            said = {"code": refused.code, "message": str(refused)}
            self._send(refused.status, json.dumps(said).encode(), "application/json")

    do_GET = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815

    def route(self, path: str) -> tuple[int, Any]:
        """Find what answers a path, and let it; returns status and body."""
        raise NotImplementedError

    def json_body(self) -> Json:
        """The request's body."""
        try:
            return dict(json.loads(self.content or b"{}"))
        except ValueError as exc:
            raise Refused(400, "BAD_REQUEST", f"invalid JSON: {exc}") from exc

    def authorise(self) -> None:
        """Check token or API key; what neither may do is refused."""
        kind, _, value = str(self.headers.get("authorization") or "").partition(" ")
        if kind == "Bearer":
            if not self.node.signed(value):
                raise Refused(401, "BAD_TOKEN", "Get a token by POST /login")
            self.administrator = True
        elif kind == "Basic":
            key, _, secret = base64.b64decode(value).decode().partition(":")
            found = next(
                (k for k in self.node.state.tables["api_keys"].values() if k["api_key"] == key),
                None,
            )
            if (
                found is None
                or not found["enable"]
                or not is_password(secret, found["secret_hash"])
            ):
                raise Refused(401, "BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
            if found["role"] == "viewer" and self.command != "GET":
                raise Refused(403, "UNAUTHORIZED_ROLE", "Insufficient permission")
        else:
            raise Refused(401, "AUTHORIZATION_HEADER_ERROR", "Support authorization: basic/bearer")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
