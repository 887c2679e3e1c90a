"""Copies keys from one server to others, and holds at most one piece of a value in memory.

A value is copied in the server's serialised form (DUMP, RESTORE: https://redis.io/docs/latest/commands/restore/).
It may be larger than this process's memory, so its bytes go from socket to socket as they arrive. The protocol is
RESP 2, the default without HELLO: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from components.access import Endpoint
from components.redis.keys.replication import PIECE_BYTES, command
from errors import PermanentError, TemporaryError

BATCH_KEYS = 500
# Limit of the replies to one batch: the server keeps them in memory until they are read.
BATCH_BYTES = 16 << 20
TEMPORARY = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")


class Line:
    """A connection to one server.

    Args:
        endpoint: the server.
        connection: the socket.
    """

    def __init__(self, endpoint: Endpoint, connection: socket.socket) -> None:
        self.member = endpoint.member
        self._answers = cast(BinaryIO, connection.makefile("rb", PIECE_BYTES))
        self._commands = cast(BinaryIO, connection.makefile("wb", PIECE_BYTES))

    def write(self, data: bytes) -> None:
        """Write bytes. They are sent with the next `flush` at the latest."""
        self._commands.write(data)

    def flush(self) -> None:
        """Send all written bytes."""
        self._commands.flush()

    def answer(self) -> bytes:
        """The first line of the next reply.

        Raises:
            PermanentError, TemporaryError: the reply is an error, or there is no reply.
        """
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise TemporaryError(f"Redis: {self.member} closed the connection")
        text = line[:-2].decode(errors="replace")
        if text.startswith("-"):
            kind = TemporaryError if text[1:].startswith(TEMPORARY) else PermanentError
            raise kind(f"Redis: {self.member} refuses", said=text[1:])
        return line[:-2]

    def number(self) -> int:
        """A reply that is a number, or the length of the following string."""
        return int(self.answer()[1:])

    def pieces(self, size: int) -> Iterator[bytes]:
        """The bytes of a string, after its length was read."""
        remaining = size
        while remaining:
            piece = self._answers.read(min(remaining, PIECE_BYTES))
            if not piece:
                raise TemporaryError(
                    f"Redis: {self.member} ended the transfer in the middle of a key"
                )
            remaining -= len(piece)
            yield piece
        self._answers.read(2)  # CR and LF


@contextmanager
def line(endpoint: Endpoint, user: str, password: str, stall: float) -> Iterator[Line]:
    """Connect to a server.

    Args:
        endpoint: the server.
        user: the user to connect as.
        password: that user's password.
        stall: seconds without a byte until the connection fails.

    Raises:
        TemporaryError: the server does not answer.
        PermanentError: the server refuses the credentials.
    """
    with (
        _explained(),
        socket.create_connection((endpoint.host, endpoint.port), stall) as connection,
    ):
        target = Line(endpoint, connection)
        target.write(command("AUTH", user, password))
        target.flush()
        target.answer()
        yield target


def copy_keys(source: Line, sizes: Mapping[bytes, int], owners: Mapping[bytes, Line]) -> None:
    """Copy keys with their expiry. Keys that no longer exist are skipped.

    Args:
        source: the server that has them.
        sizes: key → approximate bytes in memory.
        owners: key → the server to copy it to.

    Raises:
        PermanentError, TemporaryError: a server refuses, or went away.
    """
    for names in _batches(sizes):
        for name in names:
            source.write(command("PEXPIRETIME", name) + command("DUMP", name))
        source.flush()
        commands: dict[Line, int] = {}
        for name in names:
            target = owners[name]
            expires, size = source.number(), source.number()
            if size >= 0:
                _restore(target, name, expires, source.pieces(size), size)
                commands[target] = commands.get(target, 0) + 1
        for target in commands:
            target.flush()
        for target, count in commands.items():
            for _ in range(count):
                target.answer()


def _restore(target: Line, name: bytes, expires: int, pieces: Iterable[bytes], size: int) -> None:
    """Send RESTORE with a value that is still arriving."""
    arguments: tuple[Any, ...] = ("RESTORE", name, str(max(0, expires)))
    head = command(*arguments).partition(b"\r\n")[2]
    target.write(b"*6\r\n" + head + b"$%d\r\n" % size)
    for piece in pieces:
        target.write(piece)
    target.write(b"\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n")


def _batches(sizes: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    total = 0
    for name, size in sizes.items():
        if batch and (len(batch) == BATCH_KEYS or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += size
    if batch:
        yield batch


@contextmanager
def _explained() -> Iterator[None]:
    """Turn a socket's exceptions into the project's errors."""
    try:
        yield
    except OSError as exc:
        raise TemporaryError(f"Redis: a connection was lost while keys were copied: {exc}") from exc
