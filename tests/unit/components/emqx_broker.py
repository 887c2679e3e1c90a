"""An EMQX for tests: lists of its API, retained messages, data files, and answers that a test lays over them.

Answers are those of v5.8.9: apps/emqx_management/src/emqx_mgmt_api_data_backup.erl and emqx_mgmt_data_backup.erl
(files, import), apps/emqx_retainer/src/emqx_retainer_api.erl, apps/emqx_auth_mnesia/src/emqx_authz_api_mnesia.erl (404
without a source).
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import httpx

from components.emqx.client import Api

PREFIX = "/api/v5"


class Broker:
    """One cluster.

    Attributes:
        lists: path → rows; a path that is not there answers 404.
        retained: topic → payload.
        answers: path → status and text that it answers with instead.
        files: what lies on its one node, name → bytes.
        made: name → time of day at which it came.
        imported: names, in order.
        export: what an export has.
        asked: method and path of every request.
    """

    def __init__(self, lists: dict[str, Any] | None = None) -> None:
        self.lists: dict[str, Any] = {
            "/nodes": [{"node": "emqx@a", "node_status": "running", "version": "5.8.9", "edition": "Opensource"}],
            "/mqtt/retainer": {"enable": True, "backend": {"type": "built_in_database"}},
            **(lists or {}),
        }  # fmt: skip
        self.retained: dict[str, bytes] = {}
        self.answers: dict[str, tuple[int, str]] = {}
        self.files: dict[str, bytes] = {}
        self.made: dict[str, float] = {}
        self.imported: list[str] = []
        self.export = b""
        self.asked: list[tuple[str, str]] = []
        transport = httpx.MockTransport(self._answer)
        self.http = httpx.Client(transport=transport)
        self.api = Api(self.http, f"http://emqx{PREFIX}", {})

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0].removeprefix(PREFIX)
        self.asked.append((request.method, path))
        if path in self.answers:
            status, text = self.answers[path]
            return httpx.Response(status, text=text)
        if path == "/login":
            return httpx.Response(200, json={"token": "t"})
        if path.startswith("/data/"):
            return self._data(request, path)
        if path.startswith("/mqtt/retainer/message"):
            return self._messages(unquote(path.rpartition("/")[2]))
        if request.method == "POST" and path == "/authorization/sources":
            kind = json.loads(request.content)["type"]
            self.lists[f"/authorization/sources/{kind}"] = {}
            return httpx.Response(204)
        if path not in self.lists:
            return httpx.Response(404, json={"code": "NOT_FOUND"})
        return httpx.Response(200, json=self.lists[path])

    def _messages(self, topic: str) -> httpx.Response:
        if topic == "messages":
            rows = [{"topic": topic, "qos": 1} for topic in self.retained]
            return httpx.Response(200, json={"data": rows, "meta": {}})
        if topic not in self.retained:
            return httpx.Response(404, json={"code": "NOT_FOUND"})
        shown = {"topic": topic, "payload": base64.b64encode(self.retained[topic]).decode()}
        return httpx.Response(200, json=shown)

    def _data(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == "/data/export":
            self.put("emqx-export-now.tar.gz", self.export)
            described = {
                "filename": "emqx-export-now.tar.gz",
                "node": "emqx@a",
                "size": len(self.export),
            }
            return httpx.Response(200, json=described)
        if path == "/data/import":
            self.imported.append(json.loads(request.content)["filename"])
            return httpx.Response(204)
        if path == "/data/files" and request.method == "POST":
            head, _, rest = request.content.partition(b"\r\n\r\n")
            name = cast(Any, re.search(rb'filename="([^"]+)"', head))[1].decode()
            if name in self.files:
                said = f'Backup file "{name}" already exists'
                return httpx.Response(400, json={"code": "BAD_REQUEST", "message": said})
            self.put(name, rest[: rest.rindex(b"\r\n--")])
            return httpx.Response(204)
        if path == "/data/files":
            rows = [
                {"filename": name, "node": "emqx@a", "created_at_sec": int(self.made[name])}
                for name in self.files
            ]
            return httpx.Response(200, json={"data": rows, "meta": {}})
        name = unquote(path.rpartition("/")[2])
        if request.method == "DELETE":
            del self.files[name]
            return httpx.Response(204)
        return httpx.Response(200, stream=httpx.ByteStream(self.files[name]))

    @property
    def access(self) -> Any:
        """The way in, as components get it."""
        node = SimpleNamespace(host="emqx", url="emqx", member="emqx-0")
        backup = SimpleNamespace(
            stall_seconds=9.0, spool=Path(tempfile.gettempdir()) / "isa-test-spool"
        )
        emqx = SimpleNamespace(members=1)
        settings = SimpleNamespace(backup=backup, components=SimpleNamespace(emqx=emqx))
        return SimpleNamespace(
            http=self.http,
            settings=settings,
            endpoints=lambda *_: [node],
            secret=lambda *_: "password",
        )

    def put(self, name: str, content: bytes, age: float = 0.0) -> None:
        """Lay a file on the node, as if it had come so many seconds ago."""
        self.files[name], self.made[name] = content, time.time() - age
