"""Moves keys from one server to others, without keeping more of a value here than one piece of it.

A value goes in the server's own serialised form (DUMP, RESTORE: https://redis.io/docs/latest/commands/restore/) and may
be larger than what this process may hold, so its bytes are handed from socket to socket while they come. The protocol
is RESP 2, which a connection speaks until it says HELLO: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from components.access import Endpoint
from components.redis.replication import PIECE_BYTES, command
from errors import PermanentError, TemporaryError

BATCH_KEYS = 500
# Of the replies of one batch: the server keeps them in memory until they are read.
BATCH_BYTES = 16 << 20
TEMPORARY = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")


class Line:
    """A connection to one server.

    Args:
        endpoint: of the server.
        connection: to it.
    """

    def __init__(self, endpoint: Endpoint, connection: socket.socket) -> None:
        self.member = endpoint.member
        self._answers = cast(BinaryIO, connection.makefile("rb", PIECE_BYTES))
        self._commands = cast(BinaryIO, connection.makefile("wb", PIECE_BYTES))

    def write(self, data: bytes) -> None:
        """Say something, at the latest with the next `flush`."""
        self._commands.write(data)

    def flush(self) -> None:
        """Send what was written."""
        self._commands.flush()

    def answer(self) -> bytes:
        """The first line of the next reply.

        Raises:
            PermanentError, TemporaryError: it is an error, or there is none.
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
        """A reply that is a number, or the length of the string that comes."""
        return int(self.answer()[1:])

    def pieces(self, size: int) -> Iterator[bytes]:
        """The bytes of a string whose length was read."""
        left = size
        while left:
            piece = self._answers.read(min(left, PIECE_BYTES))
            if not piece:
                raise TemporaryError(
                    f"Redis: {self.member} ended the transfer in the middle of a key"
                )
            left -= len(piece)
            yield piece
        self._answers.read(2)  # CR and LF


@contextmanager
def line(endpoint: Endpoint, user: str, password: str, stall: float) -> Iterator[Line]:
    """Connect to a server.

    Args:
        endpoint: where it listens.
        user: who.
        password: of that user.
        stall: seconds without a byte after which the server is given up.

    Raises:
        TemporaryError: it does not answer.
        PermanentError: it refuses the credentials.
    """
    with (
        _explained(),
        socket.create_connection((endpoint.host, endpoint.port), stall) as made,
    ):
        opened = Line(endpoint, made)
        opened.write(command("AUTH", user, password))
        opened.flush()
        opened.answer()
        yield opened


def copy_keys(source: Line, sizes: Mapping[bytes, int], owners: Mapping[bytes, Line]) -> None:
    """Copy keys with their expiry; those that are gone are left out.

    Args:
        source: whose they are.
        sizes: bytes that each takes in memory there, about.
        owners: to whom each goes.

    Raises:
        PermanentError, TemporaryError: a server refuses, or went away.
    """
    for names in _batches(sizes):
        for name in names:
            source.write(command("PEXPIRETIME", name) + command("DUMP", name))
        source.flush()
        told: dict[Line, int] = {}
        for name in names:
            target = owners[name]
            expires, size = source.number(), source.number()
            if size >= 0:
                _restore(target, name, expires, source.pieces(size), size)
                told[target] = told.get(target, 0) + 1
        for target in told:
            target.flush()
        for target, count in told.items():
            for _ in range(count):
                target.answer()


def _restore(target: Line, name: bytes, expires: int, pieces: Iterable[bytes], size: int) -> None:
    """RESTORE with a value that is still to come."""
    words: tuple[Any, ...] = ("RESTORE", name, str(max(0, expires)))
    head = command(*words).partition(b"\r\n")[2]
    target.write(b"*6\r\n" + head + b"$%d\r\n" % size)
    for piece in pieces:
        target.write(piece)
    target.write(b"\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n")


def _batches(sizes: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    held = 0
    for name, size in sizes.items():
        if batch and (len(batch) == BATCH_KEYS or held + size > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += size
    if batch:
        yield batch


@contextmanager
def _explained() -> Iterator[None]:
    """What a socket raises, in the project's own terms."""
    try:
        yield
    except OSError as exc:
        raise TemporaryError(f"Redis: a connection was lost while keys were copied: {exc}") from exc
