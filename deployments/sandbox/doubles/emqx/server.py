"""The routes of the management API on 18083, and the two HTTP servers of a node."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deployments.sandbox.doubles.emqx import export
from deployments.sandbox.doubles.emqx.broker import is_password, password_hash
from deployments.sandbox.doubles.emqx.internal import Internal
from deployments.sandbox.doubles.emqx.state import INTERNAL_PORT
from deployments.sandbox.doubles.emqx.wire import Json, Node, Raw, Refused, Wire

API_PORT = 18083
AUTHN = "password_based:built_in_database"


class Handler(Wire):
    """One request of the management API."""

    def route(self, path: str) -> tuple[int, Any]:
        """Find what answers a path, and let it; returns status and body."""
        if path == "/status":
            name = self.node.node_name(self.node.state.name)
            raise Raw(f"Node {name} is started\nemqx is running".encode(), "text/plain")
        if path != "/api/v5/login":
            self.authorise()
        for method, pattern, status, action in ROUTES:
            match = re.fullmatch(f"/api/v5{pattern}", path)
            if match and method == self.command:
                return status, action(self, *(unquote(part) for part in match.groups()))
        raise Refused(404, "NOT_FOUND", "Request Path Not Found")

    def login(self) -> Json:
        given = self.json_body()
        user = self._tables["dashboard_users"].get(given.get("username"))
        if user is None or not is_password(str(given.get("password")), user["password_hash"]):
            raise Refused(401, "BAD_USERNAME_OR_PWD", "Auth failed")
        token = self.node.sign(given["username"])
        return {
            "token": token,
            "version": export.VERSION,
            "license": {"edition": "opensource"},
            "role": "administrator",
        }

    def nodes(self) -> list[Json]:
        state = self.node.state
        return [
            {
                "node": self.node.node_name(pod),
                "node_status": "stopped" if pod in state.away else "running",
                "version": export.VERSION,
                "edition": "Opensource",
                "role": "core",
                "uptime": 0,
                "connections": 0,
                "live_connections": 0,
            }
            for pod in sorted(state.peers)
        ]

    def stats(self) -> list[Json]:
        counts = {
            "retained.count": len(self.node.broker.retained()),
            "rules.count": len(self._tables["rules"]),
        }
        return [{"node": self.node.node_name(self.node.state.name), **counts}]

    def authenticators(self) -> list[Json]:
        if self.node.anonymous:
            return []
        return [{"id": AUTHN, "mechanism": "password_based", "backend": "built_in_database", "enable": True,
                 "user_id_type": "username", "password_hash_algorithm": {"name": "bcrypt"}}]  # fmt: skip

    def mqtt_users(self) -> Json:
        self._needs_authenticator()
        users = self._tables["mqtt_users"]
        shown = [
            {"user_id": name, "is_superuser": u["is_superuser"]}
            for name, u in sorted(users.items())
        ]
        return self._page(shown)

    def add_mqtt_user(self) -> Json:
        self._needs_authenticator()
        given = self.json_body()
        made = {
            "password_hash": password_hash(given["password"]),
            "is_superuser": bool(given.get("is_superuser")),
        }
        self._insert("mqtt_users", given["user_id"], made)
        return {"user_id": given["user_id"], "is_superuser": made["is_superuser"]}

    def drop_mqtt_user(self, name: str) -> None:
        self._remove("mqtt_users", name)

    def dashboard_users(self) -> list[Json]:
        users = self._tables["dashboard_users"]
        return [
            {"username": n, "description": u["description"], "role": "administrator"}
            for n, u in sorted(users.items())
        ]

    def add_dashboard_user(self) -> Json:
        given = self.json_body()
        made = {
            "password_hash": password_hash(given["password"]),
            "description": given.get("description", ""),
        }
        self._insert("dashboard_users", given["username"], made)
        return {
            "username": given["username"],
            "description": made["description"],
            "role": "administrator",
        }

    def drop_dashboard_user(self, name: str) -> None:
        self._remove("dashboard_users", name)

    def api_keys(self) -> list[Json]:
        return [
            self._shown_key(name, key) for name, key in sorted(self._tables["api_keys"].items())
        ]

    def add_api_key(self) -> Json:
        given, secret = self.json_body(), secrets.token_urlsafe(32)
        made = {
            "api_key": secrets.token_hex(8),
            "secret_hash": password_hash(secret),
            "role": given.get("role", "administrator"),
            "enable": given.get("enable", True),
            "description": given.get("description", ""),
        }
        self._insert("api_keys", given["name"], made)
        return self._shown_key(given["name"], made) | {"api_secret": secret}

    def drop_api_key(self, name: str) -> None:
        self._remove("api_keys", name)

    def rules(self) -> Json:
        return self._page([{"id": i, **rule} for i, rule in sorted(self._tables["rules"].items())])

    def add_rule(self) -> Json:
        given = self.json_body()
        if "sql" not in given:
            raise Refused(400, "BAD_REQUEST", "missing required field: sql")
        identity = given.pop("id", None) or f"rule_{secrets.token_hex(2)}"
        made = {"enable": True, "actions": [], "name": "", "description": "", **given}
        self._insert("rules", identity, made)
        return {"id": identity, **made}

    def drop_rule(self, identity: str) -> None:
        self._remove("rules", identity)

    def publish(self) -> Json:
        given = self.json_body()
        payload = str(given.get("payload", ""))
        data = (
            base64.b64decode(payload)
            if given.get("payload_encoding") == "base64"
            else payload.encode()
        )
        self.node.broker.publish(
            given["topic"], data, int(given.get("qos", 0)), bool(given.get("retain"))
        )
        return {"id": secrets.token_hex(16).upper()}

    def retained(self) -> Json:
        found = self.node.broker.retained()
        return self._page(
            [{"topic": t, "qos": q, "payload_size": len(p)} for t, (p, q) in sorted(found.items())]
        )

    def retained_message(self, topic: str) -> Json:
        found = self.node.broker.retained().get(topic)
        if found is None:
            raise Refused(404, "NOT_FOUND", "Viewed message doesn't exist")
        return {"topic": topic, "qos": found[1], "payload": base64.b64encode(found[0]).decode()}

    def drop_retained(self, topic: str) -> None:
        self.node.broker.publish(topic, b"", 0, True)

    # ------------------------------------------------------------------ data
    def export(self) -> Json:
        file = export.write(self.node.state, self.node.broker, self._backups, self.administrator)
        return self._described(file)

    def files(self) -> Json:
        return self._page(
            [self._described(file) for file in sorted(self._backups.glob("*.tar.gz"))]
        )

    def file(self, name: str) -> Json:
        raise Raw(self._file(name).read_bytes(), "application/octet-stream")

    def drop_file(self, name: str) -> None:
        self._file(name).unlink()

    def upload(self) -> None:
        boundary = (
            str(self.headers.get("content-type")).partition("boundary=")[2].strip('"').encode()
        )
        head, _, rest = self.content.partition(b"\r\n\r\n")
        name = re.search(rb'filename="([^"/]+)"', head)
        if not boundary or name is None:
            raise Refused(400, "BAD_REQUEST", "a file is required")
        self._backups.mkdir(parents=True, exist_ok=True)
        (self._backups / name[1].decode()).write_bytes(rest.rpartition(b"\r\n--" + boundary)[0])

    def import_data(self) -> None:
        try:
            export.read(self._file(self.json_body()["filename"]), self.node.state, self.node.broker)
        except ValueError as exc:
            raise Refused(400, "BAD_REQUEST", str(exc)) from exc

    # ------------------------------------------------------------------ inside
    @property
    def _tables(self) -> Json:
        return self.node.state.tables

    @property
    def _backups(self) -> Path:
        return self.node.data / "backup"

    def _file(self, name: str) -> Path:
        file = self._backups / Path(name).name
        if not file.is_file():
            raise Refused(404, "NOT_FOUND", "File not found")
        return file

    def _described(self, file: Path) -> Json:
        made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        return {"filename": file.name, "node": self.node.node_name(self.node.state.name), "size": file.stat().st_size,
                "created_at": made.isoformat(), "created_at_sec": int(made.timestamp())}  # fmt: skip

    def _needs_authenticator(self) -> None:
        if self.node.anonymous:
            raise Refused(404, "NOT_FOUND", f"Authenticator '{AUTHN}' does not exist")

    def _insert(self, table: str, name: str, made: Json) -> None:
        if name in self._tables[table]:
            raise Refused(409, "ALREADY_EXISTS", f"{name} already exists")
        self.node.state.change(lambda tables: tables[table].update({name: made}))

    def _remove(self, table: str, name: str) -> None:
        if name not in self._tables[table]:
            raise Refused(404, "NOT_FOUND", f"{name} not found")
        self.node.state.change(lambda tables: tables[table].pop(name))

    def _shown_key(self, name: str, key: Json) -> Json:
        return {"name": name} | {k: v for k, v in key.items() if k != "secret_hash"}

    def _page(self, rows: list[Json]) -> Json:
        page, limit = int(self.query.get("page", 1)), int(self.query.get("limit", 100))
        shown = rows[(page - 1) * limit : page * limit]
        return {
            "data": shown,
            "meta": {
                "page": page,
                "limit": limit,
                "count": len(rows),
                "hasnext": page * limit < len(rows),
            },
        }


def servers(node: Node, cookie: str) -> tuple[ThreadingHTTPServer, ThreadingHTTPServer]:
    """The two HTTP servers of a node, bound."""
    at = node.broker.address
    return (
        ThreadingHTTPServer((at, API_PORT), partial(Handler, node)),
        ThreadingHTTPServer((at, INTERNAL_PORT), partial(Internal, node.state, cookie)),
    )


USERS = f"/authentication/{AUTHN}/users"
ROUTES: tuple[tuple[str, str, int, Callable[..., Any]], ...] = (
    ("POST", "/login", 200, Handler.login),
    ("GET", "/nodes", 200, Handler.nodes),
    ("GET", "/stats", 200, Handler.stats),
    ("GET", "/authentication", 200, Handler.authenticators),
    ("GET", USERS, 200, Handler.mqtt_users),
    ("POST", USERS, 201, Handler.add_mqtt_user),
    ("DELETE", f"{USERS}/([^/]+)", 204, Handler.drop_mqtt_user),
    ("GET", "/users", 200, Handler.dashboard_users),
    ("POST", "/users", 200, Handler.add_dashboard_user),
    ("DELETE", "/users/([^/]+)", 204, Handler.drop_dashboard_user),
    ("GET", "/api_key", 200, Handler.api_keys),
    ("POST", "/api_key", 200, Handler.add_api_key),
    ("DELETE", "/api_key/([^/]+)", 204, Handler.drop_api_key),
    ("GET", "/rules", 200, Handler.rules),
    ("POST", "/rules", 201, Handler.add_rule),
    ("DELETE", "/rules/([^/]+)", 204, Handler.drop_rule),
    ("POST", "/publish", 200, Handler.publish),
    ("GET", "/mqtt/retainer/messages", 200, Handler.retained),
    ("GET", "/mqtt/retainer/message/([^/]+)", 200, Handler.retained_message),
    ("DELETE", "/mqtt/retainer/message/([^/]+)", 204, Handler.drop_retained),
    ("POST", "/data/export", 200, Handler.export),
    ("GET", "/data/files", 200, Handler.files),
    ("POST", "/data/files", 204, Handler.upload),
    ("GET", "/data/files/([^/]+)", 200, Handler.file),
    ("DELETE", "/data/files/([^/]+)", 204, Handler.drop_file),
    ("POST", "/data/import", 204, Handler.import_data),
)
