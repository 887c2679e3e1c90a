"""Requests between peers, on port 6335: the cluster's state, operations, queries, archives."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import traceback
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sandbox.doubles.qdrant.errors import Refused
from sandbox.doubles.qdrant.peers import operations
from sandbox.doubles.qdrant.peers.network import SENDER, TOKEN, VERSION
from sandbox.doubles.qdrant.peers.replication import Replication


class Internal(BaseHTTPRequestHandler):
    """One request of another peer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: 40 ms otherwise

    def __init__(self, replication: Replication, *args: Any) -> None:
        self.replication = replication
        self.peer = replication.peer
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

    def handle_request(self) -> None:
        """Answer every request, also after an error: a closed connection looks like a dead peer."""
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
            answer = self._answer(self.path.strip("/").split("/"), body)
        except Refused as refused:
            return self._send(refused.status, {"error": str(refused)})
        except ConnectionError:
            self.close_connection = True
            return None
        except BaseException as exc:  # the engine's panics are no `Exception`
            traceback.print_exc()
            return self._send(500, {"error": f"Service internal error: {exc}"})
        return None if answer is ... else self._send(200, answer)

    do_GET = do_PUT = do_POST = handle_request  # noqa: N815

    def _answer(self, parts: list[str], body: Any) -> Any:
        match parts:
            case ["meta"] if self.command == "GET":
                return self.peer.meta
            case ["meta"]:
                return self.peer.take(body)
            case ["prepare"]:
                return self.peer.acceptor.prepare(body["ballot"])
            case ["accept"]:
                return self.peer.acceptor.accept(body["ballot"], body["state"])
            case [kind, uid, shard]:
                sender = self.headers[SENDER]
                version = int(self.headers.get(VERSION, 0))
                self.peer.catch_up(self.peer.network.peers[sender], version)
                return self._of_shard(kind, unquote(uid), int(shard), body, sender)
        raise Refused(404, "Not found")

    def _of_shard(self, kind: str, uid: str, shard: int, body: Any, sender: str) -> Any:
        match kind:
            case "ask":
                return operations.ask(self.peer.local(uid, shard), body)
            case "apply":
                return self.replication.apply(uid, shard, body, sender)
            case "lead":
                return self.replication.lead(uid, shard, body)
            case "joined":
                return self.replication.joined(uid, shard, sender, body["token"])
            case "join":
                with tempfile.TemporaryDirectory(dir=self.peer.data) as scratch:
                    archive = Path(scratch) / "archive"
                    token = self.replication.join(uid, shard, sender, archive)
                    return self._send_file(archive, token)
        raise Refused(404, "Not found")

    def _send(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self._head(status, len(body), {VERSION: str(self.peer.meta["version"])})
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def _send_file(self, file: Path, token: str) -> Any:
        self._head(200, file.stat().st_size, {TOKEN: token})
        with file.open("rb") as stream:
            shutil.copyfileobj(stream, self.wfile, 1 << 20)
        return ...

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(length)}.items():
            self.send_header(name, value)
        with contextlib.suppress(OSError):
            self.end_headers()
