"""JetStream of three servers as the gate asks for it: streams of one account, and the monitoring port.

The server answers as nats-server does: its codes are those of server/errors.json, its documents those of
server/monitor.go (`JSInfo`).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
from nats.errors import TimeoutError as NatsTimeoutError

from components.access import Endpoint

MEMBERS = ("nats-0", "nats-1", "nats-2")
OLD, YOUNG = "2026-01-01T00:00:00.5Z", "2026-01-01T00:10:00.5Z"


class JetStream:
    """Streams of one account, as the gate asks for them.

    Args:
        streams: there already: name → when it was made.
        refuses: requests to make a stream that are refused: number of replicas → code and words.
        silent: how many requests to make a stream get no answer.
        violation: what the user is told that he may not do.
    """

    connected_url = urlsplit("nats://app@10.0.0.1:4222")

    def __init__(
        self,
        streams: dict[str, str] | None = None,
        refuses: dict[int, tuple[int, str]] | None = None,
        silent: int = 0,
        violation: str = "",
    ) -> None:
        self.streams, self.refuses = dict(streams or {}), refuses or {}
        self.silent, self.violation = silent, violation
        self.made: list[dict[str, Any]] = []
        self.message = b""
        self.connected: list[str] = []
        self.closed = 0
        self.hear: Callable[[str], None] = lambda words: None

    async def request(self, subject: str, data: bytes, timeout: float) -> Any:
        verb, _, name = subject.removeprefix("$JS.API.STREAM.").partition(".")
        body = json.loads(data) if data else {}
        answer = getattr(self, f"_{verb.lower()}")(name, body)
        return SimpleNamespace(data=json.dumps(answer).encode())

    def _names(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"streams": list(self.streams), "total": len(self.streams)}

    def _info(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"created": self.streams[name], "ts": YOUNG}

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.made.append(body)
        if self.violation:
            self.hear(self.violation)
            raise NatsTimeoutError
        if self.silent:
            self.silent -= 1
            self.streams[name] = YOUNG
            raise NatsTimeoutError
        if code := self.refuses.get(body["num_replicas"]):
            return {"error": {"code": 400, "err_code": code[0], "description": code[1]}}
        self.streams[name] = YOUNG
        return {}

    def _delete(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.streams.pop(name, None)
        return {}

    def _msg(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"message": {"seq": body["seq"], "data": b64encode(self.message).decode()}}

    def jetstream(self, timeout: float) -> Any:
        async def publish(subject: str, token: bytes) -> Any:
            self.message = token
            return SimpleNamespace(seq=1)

        return SimpleNamespace(publish=publish)

    async def close(self) -> None:
        self.closed += 1

    async def connect(self, access: Any, servers: list[Endpoint], **given: Any) -> JetStream:
        """As `components.nats.client.connect`."""
        self.hear = given.get("forbidden", self.hear)
        self.connected.append(servers[0].url)
        return self


class Access:
    """Three servers, of which some answer.

    Attributes:
        up: those that answer.
        said: server → its `/jsz`; another than a healthy one's.
        paths: that were asked for.
    """

    def __init__(self, up: tuple[str, ...] = MEMBERS) -> None:
        self.timeout_seconds = 4.0
        nats = SimpleNamespace(members=len(MEMBERS))
        self.settings = SimpleNamespace(components=SimpleNamespace(nats=nats))
        self.up = up
        self.said: dict[str, dict[str, Any]] = {}
        self.paths: list[str] = []
        self.http = SimpleNamespace(get=self.get)

    def endpoints(self, workload: str, members: int, port: int) -> list[Endpoint]:
        return [
            Endpoint(f"{workload}-{n}", f"{workload}-{n}", port, "", "") for n in range(members)
        ]

    def get(self, url: str) -> httpx.Response:
        server, _, path = url.removeprefix("http://").partition("/")
        name = server.partition(":")[0]
        self.paths.append(f"{server.partition(':')[2]}/{path}")
        if name not in self.up:
            raise httpx.ConnectError("refused")
        answer = self.said.get(name, {"meta_cluster": meta()})
        return httpx.Response(200, json=answer, request=httpx.Request("GET", url))


def meta(leader: str = MEMBERS[0], **peers: dict[str, Any]) -> dict[str, Any]:
    """The meta group as a server tells of it.

    Args:
        leader: name.
        peers: what is other than usual of one, by number: `n1={"current": False, "lag": 20}`.
    """
    replicas = [
        {"name": name, "current": True, "lag": 0, **peers.get(f"n{name[-1]}", {})}
        for name in MEMBERS
        if name != leader
    ]
    return {"leader": leader, "replicas": replicas}
