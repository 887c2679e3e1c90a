"""Metrics reach Prometheus whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from errors import PermanentError, TemporaryError
from operations.report.metrics import push_metrics, write_metrics


class Gateway(BaseHTTPRequestHandler):
    """A Pushgateway that takes everything but what is no metric."""

    got: dict[str, bytes] = {}  # noqa: RUF012

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got[self.path] = body
        self.send_response(400 if body == b"nonsense" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_file_is_replaced_at_once_and_may_be_read_by_others(tmp_path: Path) -> None:
    file = tmp_path / "isa.prom"
    file.write_text("old")
    write_metrics(file, "new 1\n")
    assert file.read_text() == "new 1\n"
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(PermanentError, match="cannot be written"):
        write_metrics(tmp_path / "nowhere" / "isa.prom", "new 1\n")


def test_a_push_takes_the_place_of_what_the_environment_had(gateway: str) -> None:
    push_metrics(gateway, "new 1\n", "production")
    where = "/metrics/job/isa_cloud_backups/environment/production"
    assert Gateway.got == {where: b"new 1\n"}
    with pytest.raises(PermanentError, match="HTTP 400"):
        push_metrics(gateway, "nonsense", "production")


def test_a_gateway_that_is_away_may_come_back() -> None:
    with pytest.raises(TemporaryError, match="does not answer"):
        push_metrics("http://127.0.0.1:9", "new 1\n", "production")
