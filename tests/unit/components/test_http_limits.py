"""A member holds no question for longer than its limit, and fills no memory with its answer."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from components import http
from components.http import HttpClient, TooLarge

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def member(answer: Answer) -> Iterator[str]:
    """A server that answers every question in one way; its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with suppress(OSError):  # the client is gone
                answer(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Four bytes, one in each tenth of a second."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(4):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    for number in range(4):
        handler.wfile.write(b"a: %d\r\n" % number)
        time.sleep(0.1)
    handler.wfile.write(b"\r\n")


@pytest.mark.parametrize("answer", [drip, drip_headers])
def test_an_answer_byte_by_byte_ends_at_the_limit(answer: Answer) -> None:
    with member(answer) as address, HttpClient(0.25) as client, pytest.raises(httpx.ReadTimeout):
        client.get(address)


def test_a_download_byte_by_byte_goes_on() -> None:
    with (
        member(drip) as address,
        HttpClient(0.25) as client,
        client.stream("GET", address) as answer,
    ):
        assert b"".join(answer.iter_raw()) == b"    "


def test_an_answer_has_a_limit_and_a_download_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_BYTES", 1000)

    def large(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(1001))

    with member(large) as address, HttpClient(10) as client:
        with pytest.raises(TooLarge, match=r"127\.0\.0\.1.* more than"):
            client.get(address)
        with client.stream("GET", address) as answer:
            assert len(b"".join(answer.iter_raw())) == 1001


def test_an_answer_is_asked_for_as_it_is_and_a_packed_one_is_refused() -> None:
    asked = []

    def packed(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["accept-encoding"])
        handler.send_response(200)
        handler.send_header("content-encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(gzip.compress(bytes(1000)))

    with member(packed) as address, HttpClient(10) as client, pytest.raises(TooLarge):
        client.get(address)
    assert asked == ["identity"]


def test_a_connection_that_is_used_again_has_the_whole_limit_again() -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        handler.close_connection = False

    with member(slow) as address, HttpClient(0.5) as client:
        assert [client.get(address).status_code for _ in range(3)] == [200, 200, 200]
