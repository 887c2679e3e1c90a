"""Requests and answers as bytes: sign-on, API keys, JSON, errors as EMQX words them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sandbox.doubles.emqx.backups import Backups
from sandbox.doubles.emqx.broker import Broker, is_password
from sandbox.doubles.emqx.retainer import Retainer
from sandbox.doubles.emqx.state import State

TOKEN_SECONDS = 3600
Json = dict[str, Any]


class Refused(Exception):
    """An answer that is not a success, with EMQX's code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Raw(Exception):
    """An answer that is not JSON."""

    def __init__(self, body: bytes, kind: str) -> None:
        super().__init__()
        self.body, self.kind = body, kind


class Node:
    """Everything that the routes need.

    Attributes:
        state: shared tables.
        broker: the MQTT server.
        backups: archives of data.
        retainer: retained messages.
        anonymous: MQTT clients without a user name may connect.
    """

    def __init__(
        self, state: State, broker: Broker, data: Path, host: str, cookie: str, anonymous: bool
    ) -> None:
        self.state, self.broker = state, broker
        self.backups = Backups(state, data / "backup", host)
        self.retainer = Retainer(state, broker, f"emqx@{state.name}.{host}")
        self.anonymous = anonymous
        self._host = host
        self._key = hashlib.sha256(cookie.encode()).digest()  # a token is valid on every node

    def node_name(self, pod: str) -> str:
        """`emqx@POD.HOST`."""
        return f"emqx@{pod}.{self._host}"

    def running(self) -> list[str]:
        """Pods of the nodes that answer."""
        return [pod for pod in sorted(self.state.peers) if pod not in self.state.away]

    def sign(self, user: str) -> str:
        """A token for a logged-in user."""
        # the salt distinguishes two tokens of one second: one may log out and the other stay valid
        text = f"{secrets.token_hex(4)}|{int(time.time()) + TOKEN_SECONDS}|{user}"
        return base64.urlsafe_b64encode(f"{self._mark(text)}|{text}".encode()).decode()

    def signed(self, token: str) -> tuple[str, str]:
        """User and salt of a token.

        Raises:
            Refused: it is not valid, or no longer valid.
        """
        try:
            mark, _, text = base64.urlsafe_b64decode(token).decode().partition("|")
            _, until, user = text.split("|", 2)
        except ValueError:
            raise BAD_TOKEN from None
        tables = self.state.tables
        good = hmac.compare_digest(mark.encode(), self._mark(text).encode())
        if not good or mark in tables["revoked"] or user not in tables["dashboard_users"]:
            raise BAD_TOKEN
        if int(until) <= time.time():
            raise Refused(401, "TOKEN_TIME_OUT", "Token expired, get new token by POST /login")
        return user, mark

    def _mark(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


BAD_TOKEN = Refused(401, "BAD_TOKEN", "Get a token by POST /login")
# Where EMQX takes no API key, whatever its role (apps/emqx_management/src/emqx_mgmt_auth.erl, authorize/4).
NO_API_KEY = ("users", "api_key", "logout")


class Wire(BaseHTTPRequestHandler):
    """One request of the management API, without its routes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, node: Node, *args: Any) -> None:
        self.node = node
        self.user = self.token_mark = ""
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
        except (TimeoutError, ConnectionError) as exc:  # the broker or the lock
            said = {"code": "SERVICE_UNAVAILABLE", "message": str(exc)}
            self._send(503, json.dumps(said).encode(), "application/json")

    do_GET = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815

    def route(self, path: str) -> tuple[int, Any]:
        """Find what answers a path, and let it; returns status and body."""
        raise NotImplementedError

    @property
    def administrator(self) -> bool:
        """Whether the request comes from a dashboard user, not an API key."""
        return bool(self.user)

    @property
    def tables(self) -> Json:
        """The shared tables."""
        return self.node.state.tables

    def any_body(self) -> Any:
        """The request's body, of any type."""
        try:
            return json.loads(self.content or b"{}")
        except ValueError as exc:
            raise Refused(400, "BAD_REQUEST", f"invalid JSON: {exc}") from exc

    def json_body(self, *required: str) -> Json:
        """The request's body, an object that has these fields."""
        return an_object(self.any_body(), *required)

    def page(self, rows: list[Json]) -> Json:
        """The requested page of a list."""
        try:
            page, limit = int(self.query.get("page", 1)), int(self.query.get("limit", 100))
        except ValueError:
            page = limit = 0
        if page < 1 or not 1 <= limit <= 10000:
            raise Refused(400, "BAD_REQUEST", "page_limit_invalid")
        shown = rows[(page - 1) * limit : page * limit]
        meta = {
            "page": page,
            "limit": limit,
            "count": len(rows),
            "hasnext": page * limit < len(rows),
        }
        return {"data": shown, "meta": meta}

    def authorise(self, path: str) -> None:
        """Check the token or API key, and refuse requests that it does not allow."""
        kind, _, value = str(self.headers.get("authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            self.user, self.token_mark = self.node.signed(value)
        elif kind.lower() == "basic":
            self._check_key(path.removeprefix("/api/v5/"), value)
        else:
            raise Refused(401, "AUTHORIZATION_HEADER_ERROR", "Support authorization: basic/bearer ")

    def _check_key(self, path: str, value: str) -> None:
        """Check an API key and its role; what each role may do is emqx_dashboard_rbac.erl's."""
        resource = path.partition("/")[0]
        if resource in NO_API_KEY:
            said = f"Please use bearer Token instead, using API key/secret in {resource} path is not permitted"
            raise Refused(401, "API_KEY_NOT_ALLOW", said)
        try:
            name, _, secret = base64.b64decode(value).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            name = secret = ""
        key = next((k for k in self.tables["api_keys"].values() if k["api_key"] == name), None)
        if key is None or not key["enable"] or not is_password(secret, key["secret_hash"]):
            raise Refused(401, "BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
        reads = self.command == "GET" and key["role"] == "viewer"
        publishes = self.command == "POST" and resource == "publish" and key["role"] == "publisher"
        if not (reads or publishes or key["role"] == "administrator"):
            said = "This API Key don't have permission to access this resource"
            raise Refused(403, "UNAUTHORIZED_ROLE", said)

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if status == 401:
            self.send_header("www-authenticate", 'Basic Realm="emqx-dashboard"')
        self.end_headers()
        self.wfile.write(body)


def an_object(given: Any, *required: str) -> Json:
    """The value, if it is an object with these fields."""
    if not isinstance(given, dict):
        raise Refused(400, "BAD_REQUEST", "an object is required")
    for field in required:
        if given.get(field) in (None, ""):
            raise Refused(400, "BAD_REQUEST", f"missing required field: {field}")
    return given
