"""HTTP client for engines: each request has a limit for the whole answer, in seconds and in bytes.

httpx limits each read of a socket. A member that sends a byte now and then would block a run forever, one that sends
without an end would use up its memory, and a compressed answer would do so with a thousandth of the bytes. A download
(`Client.stream`) has no known size: it fails after a silence, and its reader counts the bytes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import httpcore
import httpx

from calls import call

# Of an answer that is read as a whole; JSON takes several times as much once it is parsed.
ANSWER_BYTES = 64 << 20
UNPACKED = "identity"


class TooLarge(httpx.RemoteProtocolError):
    """An answer is too large, or is compressed although that was not requested."""


class NoProgress(httpx.RemoteProtocolError):
    """A list's pages do not end."""


class HttpClient(httpx.Client):
    """A client without a proxy (its addresses are pods, or loopback), with limited requests.

    Args:
        seconds: of one request, from its last byte to the last byte of its answer.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            transport=Transport(),
            timeout=seconds,
            trust_env=False,
            headers={"accept-encoding": UNPACKED},
        )

    def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """As `httpx.Client.send`.

        Raises:
            TooLarge: an answer that is not a download has too many bytes.
            httpx.ReadTimeout: an answer is not complete in time.
        """
        if not stream:
            request.extensions = {"answer_bytes": ANSWER_BYTES, **request.extensions}
        response = super().send(request, stream=stream, **options)
        sending = response.extensions.get("network_stream")
        if stream and isinstance(sending, LimitedStream):
            sending.lift()
        return response


class Transport(httpx.HTTPTransport):
    """Sends requests; each is an open call of this process (`calls`)."""

    def __init__(self) -> None:
        trusted = _trusted()
        super().__init__(verify=trusted)
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
        self._pool = httpcore.ConnectionPool(
            ssl_context=trusted,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=LimitedBackend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.BaseTransport.handle_request`; the query stays out of the log, it may hold a token."""
        url = request.url.copy_with(query=None)
        with call(f"{request.method} {url}"):
            response = super().handle_request(request)
        limit = request.extensions.get("answer_bytes")
        if limit is not None:
            packed = response.headers.get("content-encoding", UNPACKED)
            if packed != UNPACKED:
                response.close()
                raise TooLarge(f"{url} is compressed with {packed!r}, which was not requested")
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = LimitedAnswer(response.stream, int(limit), str(url))
        return response


class LimitedAnswer(httpx.SyncByteStream):
    """An answer's bytes up to a limit."""

    def __init__(self, stream: httpx.SyncByteStream, limit: int, where: str) -> None:
        self._stream, self._limit, self._where = stream, limit, where

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > self._limit:
                raise TooLarge(f"{self._where} sent more than {self._limit >> 20} MiB")
            yield piece

    def close(self) -> None:
        """As its own."""
        self._stream.close()


class LimitedStream(httpcore.NetworkStream):
    """A connection whose reads share one limit, starting at the last write.

    Args:
        stream: the connection.
        clock: monotonic seconds.
    """

    def __init__(
        self, stream: httpcore.NetworkStream, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream, clock
        self._until: float | None = None
        self._lifted = False

    def lift(self) -> None:
        """Give each read the whole limit, until the next request."""
        self._lifted = True

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """As its own; the first read starts the time."""
        if timeout is None or self._lifted:
            return self._stream.read(max_bytes, timeout)
        if self._until is None:
            self._until = self._clock() + timeout
        remaining = self._until - self._clock()
        if remaining <= 0:
            raise httpcore.ReadTimeout(f"the answer was not complete after {timeout:g} s")
        return self._stream.read(max_bytes, min(remaining, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """As its own; a new request begins."""
        self._until, self._lifted = None, False
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """As its own."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """As its own."""
        return LimitedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """As its own."""
        return self._stream.get_extra_info(info)


class LimitedBackend(httpcore.SyncBackend):
    """Opens connections with that limit."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """As its own."""
        return LimitedStream(
            super().connect_tcp(host, port, timeout, local_address, socket_options)
        )


@cache
def _trusted() -> ssl.SSLContext:
    """The system's certificates, read once: it takes 20 ms, and a gate connects twice a second."""
    return ssl.create_default_context()
