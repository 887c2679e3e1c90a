"""An object is read with as much of its client's own metadata as MinIO takes."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

from components.access import Access, Endpoint
from components.minio.client import connect

METADATA = {f"m{number}": "v" for number in range(160)}  # 2 KiB, names with `x-amz-meta-`


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(200)
        for name, value in {
            **{f"x-amz-meta-{k}": v for k, v in METADATA.items()},
            "content-length": "0",
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def test_an_object_may_have_more_headers_than_python_reads_by_itself() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        access = cast(Access, SimpleNamespace(secret=lambda *_: "of-nobody", timeout_seconds=10.0))
        endpoint = Endpoint("minio-0", "127.0.0.1", server.server_port, "127.0.0.1", "")
        found = connect(access, endpoint).head_object(Bucket="bucket", Key="key")
        assert found["Metadata"] == METADATA
    finally:
        server.shutdown()
        server.server_close()
