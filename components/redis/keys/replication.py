"""Reads a member's data by the replication protocol: the RDB that the server sends to a new replica.

With `REPLCONF rdb-only` (Redis 7.0) the server closes the connection after the RDB. Older servers ignore the option and
send the following commands too. The reply is a length, or a mark that ends the stream: redis/redis src/replication.c,
src/redis-cli.c (`getRDB`).

For a replica of unknown version Valkey writes RDB version 11. That fails if a hash has fields that expire: "Can't store
key in RDB version 11" (seen on 9.1.2). So a version is sent that is newer than any server: a backup is restored into
the version that wrote it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from cluster.command import CANCELLATION
from components.access import Access, Endpoint
from components.redis.client import KEY, SECRET
from errors import PermanentError, TemporaryError

PIECE_BYTES = 1 << 20
MARK_BYTES = 40
NEWEST_VERSION = "255.255.255"
KINDS = ("NOMASTERLINK", "LOADING", "MASTERDOWN", "BUSY")


@dataclass
class Replica:
    """A transfer; iterate it once.

    Attributes:
        access: credentials and time limit.
        member: the source.
        stall: seconds without a byte until the transfer fails.
        history: replication id and offset of the RDB, as `id:offset`; "" before the first piece.
    """

    access: Access
    member: Endpoint
    stall: float
    history: str = ""

    def __iter__(self) -> Iterator[bytes]:
        """The RDB's bytes.

        Raises:
            TemporaryError: the transfer was interrupted, or the member cannot send data now.
            PermanentError: the member refuses.
        """
        try:
            with socket.create_connection(
                (self.member.host, self.member.port), self.access.timeout_seconds
            ) as connection:
                connection.settimeout(self.stall)
                # a server that creates its RDB sends newlines only; a cancellation must not wait for the first byte
                with CANCELLATION.ending(lambda: connection.shutdown(socket.SHUT_RDWR)):
                    yield from self._transfer(connection)
        except TimeoutError as exc:
            raise TemporaryError(
                f"{self.member.member} sent nothing for {self.stall:.0f} s in the middle of its data"
            ) from exc
        except OSError as exc:
            raise TemporaryError(f"{self.member.member} ended the transfer: {exc}") from exc

    def _transfer(self, connection: socket.socket) -> Iterator[bytes]:
        lines = BufferedReader(connection.makefile("rb", buffering=0), PIECE_BYTES)
        password = self.access.secret(SECRET, KEY)
        for arguments in (
            ("AUTH", password),
            ("REPLCONF", "version", NEWEST_VERSION),
            ("REPLCONF", "rdb-only", "1"),
            ("REPLCONF", "capa", "eof"),
        ):
            connection.sendall(command(*arguments))
            reply = _line(lines, self.member)
            if arguments[0] == "AUTH" and not reply.startswith("+"):
                raise PermanentError(f"{self.member.member} refused the credentials: {reply[:80]}")
        connection.sendall(command("PSYNC", "?", "-1"))
        reply = _line(lines, self.member)
        if not reply.startswith("+FULLRESYNC"):
            kind = TemporaryError if reply[1:].startswith(KINDS) else PermanentError
            raise kind(f"{self.member.member} sent no data: {reply[:200]}")
        self.history = ":".join(reply.split()[1:3])
        head = _line(lines, self.member)
        if head.startswith("$EOF:"):
            yield from _until(lines, head[5:].encode(), self.member)
        elif head.startswith("$"):
            yield from _exactly(lines, int(head[1:]), self.member)
        else:
            raise TemporaryError(f"{self.member.member} sent no data: {head[:200]}")


def command(*arguments: str | bytes) -> bytes:
    """A command in wire format: https://redis.io/docs/latest/develop/reference/protocol-spec/"""
    parts = [f"*{len(arguments)}\r\n".encode()]
    for word in arguments:
        data = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _line(file: BufferedReader[Any], member: Endpoint) -> str:
    while True:
        line = file.readline()
        if not line:
            raise TemporaryError(f"{member.member} closed the connection")
        if line != b"\n":  # sent once a second while the server creates the RDB
            return line.decode(errors="replace").strip()


def _exactly(file: BufferedReader[Any], size: int, member: Endpoint) -> Iterator[bytes]:
    while size:
        piece = file.read1(min(size, PIECE_BYTES))
        if not piece:
            raise TemporaryError(
                f"{member.member} ended the transfer {size} bytes before the end of its data"
            )
        size -= len(piece)
        yield piece


def _until(file: BufferedReader[Any], mark: bytes, member: Endpoint) -> Iterator[bytes]:
    """Everything up to the mark. The last bytes are kept back, because they may be part of the mark."""
    buffer = b""
    while True:
        piece = file.read1(PIECE_BYTES)
        if not piece:
            if buffer.endswith(mark):
                return
            raise TemporaryError(f"{member.member} ended the transfer before the end of its data")
        buffer += piece
        if buffer.endswith(mark):
            yield buffer[: -len(mark)]
            return
        if len(buffer) > MARK_BYTES:
            yield buffer[:-MARK_BYTES]
            buffer = buffer[-MARK_BYTES:]
