"""A Prefect server's API on a socket: answers by path, from what a test put there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from prefect.settings import PREFECT_API_URL, temporary_settings

Answer = Callable[[Any], Any]


class PrefectApi:
    """What it answers.

    Attributes:
        answers: method and path, `POST /flow_runs/filter`, → what is answered, or a function of the request's body.
            Other paths are answered with 404.
        requests: method and path of each request.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[str] = []

    def answer(self, request: str, body: Any) -> tuple[int, Any]:
        """Status and body of an answer."""
        self.requests.append(request)
        if request not in self.answers:
            return 404, {"detail": "Not Found"}
        found = self.answers[request]
        return 200, found(body) if callable(found) else found


@contextmanager
def serve(api: PrefectApi) -> Iterator[None]:
    """Serve it, as the configured server, inside the `with` block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def _respond(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or "null")
            status, found = api.answer(f"{self.command} {self.path.removeprefix('/api')}", body)
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Not in the output of the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
