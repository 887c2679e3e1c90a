"""The port of the stream's process: `/health` for kubelet, `/metrics` for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from errors import PermanentError

PORT = 8080  # that of `isa worker --with-healthcheck`, too
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def serving(
    alive: Callable[[], bool], metrics: Callable[[], str], port: int = PORT
) -> Iterator[int]:
    """Serve while a block runs; gives the port.

    Args:
        alive: `/health` answers 200 while it is true, 503 otherwise.
        metrics: the answer of `/metrics`.
        port: TCP port; 0 for a free one.

    Raises:
        PermanentError: the port is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                good = alive()
                self._answer(200 if good else 503, "alive\n" if good else "stuck\n")
            elif self.path == "/metrics":
                self._answer(200, metrics())
            else:
                self._answer(404, "/health and /metrics\n")

        def _answer(self, code: int, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", TEXT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A probe every few seconds is no news."""

    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except OSError as exc:
        raise PermanentError(f"port {port} cannot be served: {exc.strerror}") from exc
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="probe", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
