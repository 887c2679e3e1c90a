"""Servers of MinIO as threads: health, drives, and as much of S3 as a round of the gate speaks.

Answers are those of minio/minio: cmd/healthcheck-handler.go (200 or 503), cmd/admin-handlers.go (`ServerInfoHandler`),
cmd/api-errors.go (`BucketAlreadyOwnedByYou`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx

from components.access import Access, Endpoint

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
XML = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass
class Cluster:
    """Some servers with one drive each.

    Attributes:
        members: how many there are.
        dead: numbers of servers that answer 503 to everything.
        health: path behind `/minio/health/` → status, where it is not 200.
        drives: server as it calls itself → what it says of itself.
        buckets: name → key → content and time of the last change.
        raced: whether a bucket that is made is there by then.
        refuses: method → code of the error that S3 requests of it get.
        returns: content that every read gets instead; None for the true one.
        asked: server and path of each request.
    """

    members: int = 4
    dead: set[int] = field(default_factory=set)
    health: dict[str, int] = field(default_factory=dict)
    drives: dict[str, dict[str, Any]] = field(default_factory=dict)
    buckets: dict[str, dict[str, tuple[bytes, datetime]]] = field(default_factory=dict)
    raced: str = ""
    refuses: dict[str, str] = field(default_factory=dict)
    returns: bytes | None = None
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drives = self.drives or {
            f"10.0.0.{n}:9000": {"drives": [{"state": "ok"}]} for n in range(self.members)
        }

    def answer(self, server: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        parts = urlsplit(path)
        self.asked.append(f"{server} {method} {parts.path}")
        if server in self.dead:
            return 503, b""
        if parts.path.startswith("/minio/health/"):
            return self.health.get(parts.path.removeprefix("/minio/health/"), 200), b""
        if parts.path == "/minio/admin/v3/info":
            servers = [{"endpoint": name, **said} for name, said in self.drives.items()]
            return 200, json.dumps({"servers": servers}).encode()
        if code := self.refuses.get(method):
            return _error(403, code)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        return self._s3(method, bucket, key, parse_qs(parts.query), body)

    def _s3(
        self, method: str, bucket: str, key: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, bytes]:
        if not bucket:
            names = "".join(f"<Bucket><Name>{name}</Name></Bucket>" for name in self.buckets)
            text = (
                f"{XML}<ListAllMyBucketsResult><Buckets>{names}</Buckets></ListAllMyBucketsResult>"
            )
            return 200, text.encode()
        if method == "PUT" and not key:
            if self.raced:
                self.buckets[bucket] = {}
                return _error(409, self.raced)
            self.buckets[bucket] = {}
            return 200, b""
        if method == "GET" and not key:
            prefix = query.get("prefix", [""])[0]
            rows = "".join(
                f"<Contents><Key>{name}</Key><LastModified>{at:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
                for name, (_, at) in self.buckets[bucket].items()
                if name.startswith(prefix)
            )
            return 200, f"{XML}<ListBucketResult>{rows}</ListBucketResult>".encode()
        if bucket not in self.buckets:
            return _error(404, "NoSuchBucket")
        if method == "PUT":
            self.buckets[bucket][key] = (body, NOW)
        elif method == "DELETE":
            self.buckets[bucket].pop(key, None)
            return 204, b""
        elif key not in self.buckets[bucket]:
            return _error(404, "NoSuchKey")
        elif method == "GET":
            return 200, self.returns or self.buckets[bucket][key][0]
        return 200, b""


@contextmanager
def servers(number: int = 4) -> Iterator[Callable[[Cluster], Access]]:
    """Servers that are those of one cluster after another, so that their clients are made once.

    Yields:
        Gives the way into a cluster, which they are from then on.
    """
    running = []
    for at in range(number):
        made = _Listener(("127.0.0.1", 0), _Handler)
        made.number = at
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        running.append(made)
    endpoints = [
        Endpoint(f"minio-{at}", "127.0.0.1", made.server_port, f"10.0.0.{at}", "")
        for at, made in enumerate(running)
    ]

    def serve(cluster: Cluster) -> Access:
        for made in running:
            made.cluster = cluster
        minio = SimpleNamespace(members=cluster.members)
        access = SimpleNamespace(
            settings=SimpleNamespace(components=SimpleNamespace(minio=minio)),
            timeout_seconds=4.0,
            endpoints=lambda workload, members, port: endpoints[:members],
            secret=lambda name, key: f"{name}-{key}",
            http=http,
        )
        return cast(Access, access)

    with httpx.Client(trust_env=False) as http:
        try:
            yield serve
        finally:
            for made in running:
                made.shutdown()
                made.server_close()


def _error(status: int, code: str) -> tuple[int, bytes]:
    return status, f"{XML}<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    cluster: Cluster
    number: int


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, text = self.server.cluster.answer(self.server.number, self.command, self.path, body)
        self.send_response_only(status)
        self.send_header("Date", format_datetime(NOW, usegmt=True))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
