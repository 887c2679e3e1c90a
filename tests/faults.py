"""An S3 client with one call that goes wrong, and the ways in which it may; a network that breaks in mid-transfer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from botocore.exceptions import ClientError

SLOW_SECONDS = 0.05
Call = Callable[[], Any]
Trouble = Callable[[Call], Any]


def reset(call: Call) -> Any:
    raise ConnectionResetError(104, "Connection reset by peer")


def lost_reply(call: Call) -> Any:
    call()
    raise ConnectionResetError(104, "Connection reset by peer")


def busy(call: Call) -> Any:
    raise _refusal("SlowDown", 503)


def denied(call: Call) -> Any:
    raise _refusal("AccessDenied", 403)


def slow(call: Call) -> Any:
    time.sleep(SLOW_SECONDS)
    return call()


def _refusal(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


@dataclass
class Troubled:
    """A boto3 client with a fault.

    Attributes:
        client: the real one.
        position: which call goes wrong, from 0; none if negative.
        trouble: how.
        calls: names of those made so far.
    """

    client: Any
    position: int = -1
    trouble: Trouble = reset
    calls: list[str] = field(default_factory=list)

    @property
    def meta(self) -> Any:
        return self.client.meta

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)

        def call(**arguments: Any) -> Any:
            hit = len(self.calls) == self.position
            self.calls.append(name)
            return self.trouble(lambda: real(**arguments)) if hit else real(**arguments)

        return call


Way = Literal["up", "down"]


@dataclass
class Cable:
    """The way to a server, on a port of its own, that breaks once in the midst of a transfer.

    Attributes:
        server: host and port behind it.
        way: of the bytes that count: up to the server, or down from it.
        after: how many of one connection.
        cut: whether it has happened.
    """

    server: tuple[str, int]
    way: Way
    after: int
    cut: bool = False

    @contextmanager
    def plugged(self) -> Iterator[str]:
        """Gives the URL to connect to."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # unplugged
            while True:
                client, _ = listener.accept()
                ends = client, socket.create_connection(self.server)
                for source, target, way in ((*ends, "up"), (*reversed(ends), "down")):
                    arguments = source, target, way == self.way
                    threading.Thread(target=self._carry, args=arguments, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        carried = 0
        with suppress(OSError), source:
            while data := source.recv(1 << 16):
                carried += len(data)
                if counted and carried > self.after and not self.cut:
                    self.cut = True
                    for end in (source, target):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
