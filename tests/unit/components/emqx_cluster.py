"""Nodes of EMQX as the gate asks them: the API of each, users of the built-in database, and MQTT clients.

It stands where clients connect (`paho.mqtt.client.Client`, httpx), so that everything above it is the product's own.
Answers are those of EMQX 5.8: apps/emqx_management/src/emqx_mgmt_api_nodes.erl, apps/emqx_auth/src/emqx_authn/
emqx_authn_user_import_api.erl (404 without an authenticator), apps/emqx/src/emqx_channel.erl (`deny_action`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs

import httpx
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from components.access import Access, Endpoint

LET_IN = ReasonCode(PacketTypes.CONNACK, "Success")
REFUSED = ReasonCode(PacketTypes.CONNACK, "Not authorized")
GRANTED = ReasonCode(PacketTypes.SUBACK, "Granted QoS 0")
NOT_GRANTED = ReasonCode(PacketTypes.SUBACK, "Not authorized")


@dataclass
class Cluster:
    """Some nodes.

    Attributes:
        members: their pods.
        views: pod → nodes that it sees → their states; those that are not here see all running.
        away: pods that take no connection.
        users: name → password; None without the built-in database's authenticator.
        authenticators: that EMQX tells of.
        anonymous: whether clients without a password are let in.
        late: how many times a user is refused before its node has heard of it.
        silent: whether a CONNECT gets no answer.
        subscribes: `granted`, `refused`, `disconnected` or `silent`.
        deny_action: of the settings; "" where they cannot be read.
        drops: how many published messages get lost.
        publishes: whether publications of clients arrive; those of the API do.
        changes: what becomes of a message on its way.
        asked: method and path of each request.
        sessions: node and user of each client.
        left: clients that have not said goodbye.
    """

    members: tuple[str, ...] = ("emqx-0", "emqx-1", "emqx-2")
    views: dict[str, dict[str, str]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    users: dict[str, str] | None = field(default_factory=dict)
    authenticators: list[dict[str, Any]] = field(default_factory=list)
    anonymous: bool = False
    late: int = 0
    silent: bool = False
    subscribes: str = "granted"
    deny_action: str = "ignore"
    drops: int = 0
    publishes: bool = True
    changes: Callable[[bytes], bytes] = lambda payload: payload
    asked: list[str] = field(default_factory=list)
    sessions: list[tuple[str, str]] = field(default_factory=list)
    subscribers: dict[str, Client] = field(default_factory=dict)
    left: set[Client] = field(default_factory=set)

    def access(self, seconds: float = 4.0) -> Access:
        """The way in, as components get it."""
        emqx = SimpleNamespace(members=len(self.members))
        made = SimpleNamespace(
            timeout_seconds=seconds,
            settings=SimpleNamespace(components=SimpleNamespace(emqx=emqx)),
            endpoints=lambda workload, members, port: [
                Endpoint(pod, pod, port, "", "") for pod in self.members[:members]
            ],
            endpoint=lambda pod, port: Endpoint(pod, pod, port, "", ""),
            secret=lambda *_: "password",
            http=httpx.Client(transport=httpx.MockTransport(self._answer)),
        )
        return cast(Access, made)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        pod, path = request.url.host, request.url.path.removeprefix("/api/v5")
        self.asked.append(f"{pod} {request.method} {path}")
        if pod in self.away:
            raise httpx.ConnectError("connection refused")
        if path == "/login":
            return httpx.Response(200, json={"token": "t"})
        assert request.headers["authorization"] == "Bearer t"
        if path == "/nodes":
            seen = self.views.get(pod, dict.fromkeys(self.members, "running"))
            nodes = [
                {"node": f"emqx@{name}.emqx-headless.svc", "node_status": state}
                for name, state in seen.items()
            ]
            return httpx.Response(200, json=nodes)
        if path == "/authentication":
            return httpx.Response(200, json=self.authenticators)
        if path == "/authorization/settings":
            known = {"deny_action": self.deny_action} if self.deny_action else {}
            return httpx.Response(200 if self.deny_action else 500, json=known)
        if path == "/publish":
            message = json.loads(request.content)
            self.deliver(message["topic"], message["payload"])
            return httpx.Response(200, json={})
        return self._users(request, path.rpartition("/users")[2].removeprefix("/"))

    def _users(self, request: httpx.Request, name: str) -> httpx.Response:
        if self.users is None:
            return httpx.Response(404, json={"code": "NOT_FOUND"})
        if request.method == "POST":
            made = json.loads(request.content)
            self.users[made["user_id"]] = made["password"]
            return httpx.Response(201, json={})
        if request.method == "DELETE":
            gone = self.users.pop(name, None)
            return httpx.Response(404 if gone is None else 204)
        like = parse_qs(request.url.query.decode())["like_user_id"][0]
        rows = [{"user_id": user} for user in self.users if like in user]
        return httpx.Response(200, json={"data": rows})

    def client(self, *_: Any, client_id: str) -> Client:
        """As `paho.mqtt.client.Client`."""
        return Client(self, client_id)

    def deliver(self, topic: str, payload: str) -> None:
        if self.drops:
            self.drops -= 1
        elif topic in self.subscribers:
            message = SimpleNamespace(payload=self.changes(payload.encode()))
            self.subscribers[topic].on_message(None, None, message)


class Client:
    """An MQTT client of one node."""

    def __init__(self, cluster: Cluster, client_id: str) -> None:
        self._cluster, self.client_id = cluster, client_id
        self._login: tuple[str, str] | None = None
        self._node = ""
        self.on_connect: Any = None
        self.on_message: Any = None
        self.on_subscribe: Any = None
        self.on_disconnect: Any = None

    def username_pw_set(self, user: str, password: str) -> None:
        self._login = (user, password)

    def connect(self, host: str, port: int) -> None:
        assert port == 1883
        if host in self._cluster.away:
            raise ConnectionRefusedError(111, "Connection refused")
        self._node = host
        self._cluster.left.add(self)

    def loop_start(self) -> None:
        cluster = self._cluster
        cluster.sessions.append((self._node, self._login[0] if self._login else ""))
        if cluster.silent:
            return
        if self._login is None:
            self._connected(cluster.anonymous)
            return
        user, password = self._login
        known = cluster.users is None or cluster.users.get(user) == password
        while cluster.late and known:  # paho tries again each second
            cluster.late -= 1
            self._connected(False)
        self._connected(known)

    def _connected(self, let_in: bool) -> None:
        self.on_connect(self, None, {}, LET_IN if let_in else REFUSED, None)

    def subscribe(self, topic: str, qos: int) -> tuple[int, int]:
        assert qos == 0
        if self._cluster.subscribes == "disconnected":
            self.on_disconnect(self, None, {}, REFUSED, None)
        elif self._cluster.subscribes == "refused":
            self.on_subscribe(self, None, 1, [NOT_GRANTED], None)
        elif self._cluster.subscribes == "granted":
            self._cluster.subscribers[topic] = self
            self.on_subscribe(self, None, 1, [GRANTED], None)
        return (0, 1)

    def publish(self, topic: str, payload: str, qos: int) -> None:
        assert qos == 1
        if self._cluster.publishes:
            self._cluster.deliver(topic, payload)

    def disconnect(self) -> None:
        self._cluster.left.discard(self)

    def loop_stop(self) -> None:
        pass
