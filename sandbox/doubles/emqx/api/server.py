"""The routes of the management API on 18083, and the two HTTP servers of a node."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from sandbox.doubles.emqx import export
from sandbox.doubles.emqx.api.seen import Seen
from sandbox.doubles.emqx.api.subjects import AUTHN, Subjects
from sandbox.doubles.emqx.api.wire import (
    Json,
    Node,
    Raw,
    Refused,
    an_object,
)
from sandbox.doubles.emqx.broker import MQTT_PORT, Message
from sandbox.doubles.emqx.internal import Internal
from sandbox.doubles.emqx.retainer import Kept
from sandbox.doubles.emqx.state import INTERNAL_PORT

API_PORT = 18083
SHOWN_BYTES = 1 << 20  # MAX_PAYLOAD_SIZE in apps/emqx_retainer/src/emqx_retainer_api.erl


class Handler(Subjects, Seen):
    """One request of the management API."""

    def route(self, path: str) -> tuple[int, Any]:
        """Call the route of a path. Returns status and body."""
        if path in ("/status", "/api/v5/status"):
            name = self.node.node_name(self.node.state.name)
            raise Raw(f"Node {name} is started\nemqx is running".encode(), "text/plain")
        if path != "/api/v5/login":
            self.authorise(path)
        known = False
        for method, pattern, status, action in ROUTES:
            match = re.fullmatch(f"/api/v5{pattern}", path)
            known = known or bool(match)
            if match and method == self.command:
                return status, action(self, *(unquote(part) for part in match.groups()))
        if known:
            raise Refused(405, "METHOD_NOT_ALLOWED", "Method Not Allowed")
        raise Refused(404, "NOT_FOUND", "Request Path Not Found")

    # ------------------------------------------------------------------ nodes
    def nodes(self) -> list[Json]:
        return [self._node(pod) for pod in sorted(self.node.state.peers)]

    def one_node(self, name: str) -> Json:
        for pod in self.node.state.peers:
            if self.node.node_name(pod) == name:
                return self._node(pod)
        raise Refused(404, "NOT_FOUND", f"Node not found: {name}")

    def cluster(self) -> Json:
        running = [self.node.node_name(pod) for pod in self.node.running()]
        return {
            "name": "emqxcl",
            "nodes": running,
            "self": self.node.node_name(self.node.state.name),
        }

    def _node(self, pod: str) -> Json:
        name = self.node.node_name(pod)
        if pod in self.node.state.away:  # a node that does not answer has these fields only
            return {"node": name, "node_status": "stopped", "role": "core"}
        return {
            "node": name,
            "node_status": "running",
            "version": export.VERSION,
            "edition": "Opensource",
            "role": "core",
            "uptime": 0,
            "connections": 0,
            "live_connections": 0,
        }

    # ------------------------------------------------------------------ configuration
    def listeners(self) -> list[Json]:
        status = {"running": True, "current_connections": 0, "max_connections": "infinity"}
        nodes = [self.node.node_name(pod) for pod in self.node.running()]
        return [
            {
                "id": "tcp:default",
                "type": "tcp",
                "name": "default",
                "enable": True,
                "bind": f"0.0.0.0:{MQTT_PORT}",
                "status": status,
                "node_status": [{"node": node, "status": status} for node in nodes],
            }
        ]

    def configs(self) -> Json:
        return {
            "authentication": self.authenticators(),
            "authorization": self.authorizers(),
            "listeners": {"tcp": {"default": {"bind": f"0.0.0.0:{MQTT_PORT}", "enable": True}}},
            "node": {"name": self.node.node_name(self.node.state.name)},
        }

    def alarms(self) -> Json:
        return self.page([])

    def clear_alarms(self) -> None:
        return None

    # ------------------------------------------------------------------ messages
    def publish(self) -> Json:
        given = self.json_body("topic")
        self.node.retainer.publish([(_message(given), _expiry(given))])
        return _published()

    def publish_bulk(self) -> list[Json]:
        given = self.any_body()
        if not isinstance(given, list) or not given:
            raise Refused(400, "BAD_REQUEST", "empty_batch")
        messages = [(_message(an_object(one, "topic")), _expiry(one)) for one in given]
        self.node.retainer.publish(messages)
        return [_published() for _ in messages]

    def retainer(self) -> Json:
        return self.node.retainer.config

    def put_retainer(self) -> Json:
        self.node.retainer.configure(self.json_body())
        return self.node.retainer.config

    def retained(self) -> Json:
        return self.page([{"topic": t, "qos": one.qos} for t, one in sorted(self._kept().items())])

    def drop_all_retained(self) -> None:
        topics = self.node.broker.retained()
        self.node.broker.publish([(topic, b"", 0, True) for topic in topics])

    def retained_message(self, topic: str) -> Json:
        found = self._kept().get(topic)
        if found is None:
            raise Refused(404, "NOT_FOUND", "Viewed message doesn't exist")
        shown = {"topic": topic, "qos": found.qos}
        if len(found.payload) <= SHOWN_BYTES:
            shown["payload"] = base64.b64encode(found.payload).decode()
        return shown

    def drop_retained(self, topic: str) -> None:
        self.retained_message(topic)
        self.node.broker.publish([(topic, b"", 0, True)])

    def _kept(self) -> dict[str, Kept]:
        """Retained messages: refused with an external store (check_backend/3), empty if disabled (page_read/4)."""
        if not self.node.retainer.built_in:
            raise Refused(400, "BAD_REQUEST", "This API only support built in database")
        return self.node.retainer.all() if self.node.retainer.enabled else {}

    # ------------------------------------------------------------------ data
    def export(self) -> Json:
        node = self.node
        name = export.write(node.state, node.retainer, node.backups, self.administrator)
        return node.backups.described(node.backups.directory / name)

    def files(self) -> Json:
        return self.page(self.node.backups.everywhere())

    def file(self, name: str) -> Json:
        pod = self._pod(self.query.get("node"))
        try:
            raise Raw(self.node.backups.read(_archive_name(name), pod), "application/octet-stream")
        except FileNotFoundError:
            raise NO_BACKUP from None

    def drop_file(self, name: str) -> None:
        pod = self._pod(self.query.get("node"))
        try:
            self.node.backups.delete(_archive_name(name), pod)
        except FileNotFoundError:
            raise NO_BACKUP from None

    def upload(self) -> None:
        boundary = (
            str(self.headers.get("content-type")).partition("boundary=")[2].strip('"').encode()
        )
        head, _, rest = self.content.partition(b"\r\n\r\n")
        given = re.search(rb'filename="([^"/]+)"', head)
        if not boundary or given is None:
            raise Refused(400, "BAD_REQUEST", "Missing required parameter: filename")
        name, content = given[1].decode(), rest.rpartition(b"\r\n--" + boundary)[0]
        try:
            export.check(name, content)
        except ValueError as exc:
            raise Refused(400, "BAD_REQUEST", str(exc)) from exc
        if (self.node.backups.directory / name).exists():
            raise Refused(400, "BAD_REQUEST", f'Backup file "{name}" already exists')
        self.node.backups.write(name, content)

    def import_data(self) -> None:
        given = self.json_body("filename")
        name, node = str(given["filename"]), self.node
        try:
            found = export.check(name, node.backups.read(name, self._pod(given.get("node"))))
        except FileNotFoundError:
            raise Refused(400, "BAD_REQUEST", "backup file not found") from None
        except ValueError as exc:
            raise Refused(400, "BAD_REQUEST", str(exc)) from exc
        if export.has_administrators(found) and not self.administrator:
            raise Refused(403, "UNAUTHORIZED_ROLE", "dashboard users and API keys need a token")
        export.restore(found, node.state, node.retainer)

    # ------------------------------------------------------------------ inside
    def _pod(self, name: str | None) -> str:
        """The pod of a running node; by default this node's."""
        if name is None:
            return self.node.state.name
        for pod in self.node.running():
            if self.node.node_name(pod) == name:
                return pod
        raise Refused(400, "BAD_REQUEST", f"Unknown node: {name}")


NO_BACKUP = Refused(404, "NOT_FOUND", "backup file not found")


def _archive_name(name: str) -> str:
    if not name.endswith(export.SUFFIX):
        said = f"invalid backup name: file name must have {export.SUFFIX} extension"
        raise Refused(400, "BAD_REQUEST", said)
    return name


def _message(given: Json) -> Message:
    topic, payload = str(given["topic"]), str(given.get("payload", ""))
    if set(topic) & {"#", "+"}:
        raise Refused(400, "BAD_REQUEST", "topic_name_invalid")
    try:
        encoded = given.get("payload_encoding") == "base64"
        data = base64.b64decode(payload, validate=True) if encoded else payload.encode()
        qos = int(given.get("qos", 0))
    except (TypeError, ValueError) as exc:
        raise Refused(400, "BAD_REQUEST", f"bad payload or qos: {exc}") from exc
    if qos not in (0, 1, 2):
        raise Refused(400, "BAD_REQUEST", "qos must be 0, 1 or 2")
    return topic, data, qos, bool(given.get("retain"))


def _expiry(given: Json) -> int:
    properties = given.get("properties") or {}
    return int(properties.get("message_expiry_interval", 0))


def _published() -> Json:
    return {"id": secrets.token_hex(16).upper()}


def servers(node: Node, cookie: str) -> tuple[ThreadingHTTPServer, ThreadingHTTPServer]:
    """The two HTTP servers of a node, bound."""
    at = node.broker.address
    internal = partial(Internal, node.state, node.backups, cookie)
    return (
        ThreadingHTTPServer((at, API_PORT), partial(Handler, node)),
        ThreadingHTTPServer((at, INTERNAL_PORT), internal),
    )


ONE = "([^/]+)"
USERS = f"/authentication/{AUTHN}/users"
ACL = "/authorization/sources/built_in_database/rules"
KEPT = "(connectors|actions|sources|bridges)"
WHOM = f"{ACL}/(users|clients)"
ROUTES: tuple[tuple[str, str, int, Callable[..., Any]], ...] = (
    ("POST", "/login", 200, Handler.login),
    ("POST", "/logout", 204, Handler.logout),
    ("GET", "/nodes", 200, Handler.nodes),
    ("GET", f"/nodes/{ONE}", 200, Handler.one_node),
    ("GET", "/cluster", 200, Handler.cluster),
    ("GET", "/stats", 200, Handler.stats),
    ("GET", "/metrics", 200, Handler.metrics),
    ("GET", "/clients", 200, Handler.clients),
    ("GET", f"/clients/{ONE}", 200, Handler.client),
    ("GET", f"/clients/{ONE}/subscriptions", 200, Handler.client_subscriptions),
    ("GET", "/subscriptions", 200, Handler.subscriptions),
    ("GET", "/topics", 200, Handler.topics),
    ("GET", "/listeners", 200, Handler.listeners),
    ("GET", "/configs", 200, Handler.configs),
    ("GET", "/alarms", 200, Handler.alarms),
    ("DELETE", "/alarms", 204, Handler.clear_alarms),
    ("GET", "/authentication", 200, Handler.authenticators),
    ("GET", USERS, 200, Handler.mqtt_users),
    ("POST", USERS, 201, Handler.add_mqtt_user),
    ("GET", f"{USERS}/{ONE}", 200, Handler.mqtt_user),
    ("PUT", f"{USERS}/{ONE}", 200, Handler.put_mqtt_user),
    ("DELETE", f"{USERS}/{ONE}", 204, Handler.drop_mqtt_user),
    ("GET", "/authorization/settings", 200, Handler.authorization),
    ("PUT", "/authorization/settings", 200, Handler.put_authorization),
    ("GET", "/authorization/sources", 200, Handler.authorizers),
    ("POST", "/authorization/sources", 204, Handler.add_authorizer),
    ("GET", f"/authorization/sources/{ONE}", 200, Handler.authorizer),
    ("DELETE", f"/authorization/sources/{ONE}", 204, Handler.drop_authorizer),
    ("DELETE", ACL, 204, Handler.drop_all_acl),
    ("GET", f"{ACL}/all", 200, Handler.acl_of_all),
    ("POST", f"{ACL}/all", 204, Handler.put_acl_of_all),
    ("DELETE", f"{ACL}/all", 204, Handler.drop_acl_of_all),
    ("GET", WHOM, 200, Handler.acl),
    ("POST", WHOM, 204, Handler.add_acl),
    ("GET", f"{WHOM}/{ONE}", 200, Handler.one_acl),
    ("PUT", f"{WHOM}/{ONE}", 204, Handler.put_acl),
    ("DELETE", f"{WHOM}/{ONE}", 204, Handler.drop_acl),
    ("GET", "/users", 200, Handler.dashboard_users),
    ("POST", "/users", 200, Handler.add_dashboard_user),
    ("PUT", f"/users/{ONE}", 200, Handler.put_dashboard_user),
    ("DELETE", f"/users/{ONE}", 204, Handler.drop_dashboard_user),
    ("POST", f"/users/{ONE}/change_pwd", 204, Handler.change_password),
    ("GET", "/api_key", 200, Handler.api_keys),
    ("POST", "/api_key", 200, Handler.add_api_key),
    ("GET", f"/api_key/{ONE}", 200, Handler.api_key),
    ("PUT", f"/api_key/{ONE}", 200, Handler.put_api_key),
    ("DELETE", f"/api_key/{ONE}", 204, Handler.drop_api_key),
    ("GET", "/rules", 200, Handler.rules),
    ("POST", "/rules", 201, Handler.add_rule),
    ("GET", f"/rules/{ONE}", 200, Handler.rule),
    ("PUT", f"/rules/{ONE}", 200, Handler.put_rule),
    ("DELETE", f"/rules/{ONE}", 204, Handler.drop_rule),
    ("GET", f"/{KEPT}", 200, Handler.configured),
    ("POST", f"/{KEPT}", 201, Handler.add_configured),
    ("GET", f"/{KEPT}/{ONE}", 200, Handler.one_configured),
    ("PUT", f"/{KEPT}/{ONE}", 200, Handler.put_configured),
    ("DELETE", f"/{KEPT}/{ONE}", 204, Handler.drop_configured),
    ("GET", "/banned", 200, Handler.banned),
    ("POST", "/banned", 200, Handler.ban),
    ("DELETE", "/banned", 204, Handler.unban_all),
    ("DELETE", f"/banned/{ONE}/{ONE}", 204, Handler.unban),
    ("POST", "/publish", 200, Handler.publish),
    ("POST", "/publish/bulk", 200, Handler.publish_bulk),
    ("GET", "/mqtt/retainer", 200, Handler.retainer),
    ("PUT", "/mqtt/retainer", 200, Handler.put_retainer),
    ("GET", "/mqtt/retainer/messages", 200, Handler.retained),
    ("DELETE", "/mqtt/retainer/messages", 204, Handler.drop_all_retained),
    ("GET", f"/mqtt/retainer/message/{ONE}", 200, Handler.retained_message),
    ("DELETE", f"/mqtt/retainer/message/{ONE}", 204, Handler.drop_retained),
    ("POST", "/data/export", 200, Handler.export),
    ("GET", "/data/files", 200, Handler.files),
    ("POST", "/data/files", 204, Handler.upload),
    ("GET", f"/data/files/{ONE}", 200, Handler.file),
    ("DELETE", f"/data/files/{ONE}", 204, Handler.drop_file),
    ("POST", "/data/import", 204, Handler.import_data),
)
