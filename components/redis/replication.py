"""Takes a member's data as a new replica would: the RDB that the server makes for it, straight from the socket.

`REPLCONF rdb-only` (Redis 7.0) has the server close the connection behind the RDB instead of going on with the
commands that follow it; older servers do not know it, and it does no harm. The reply is a length, or a mark that ends
the stream: redis/redis src/replication.c, src/redis-cli.c (`getRDB`).

Valkey writes RDB version 11 for a replica that has not told its version, and breaks off where a hash has fields that
expire: "Can't store key in RDB version 11" (seen on 9.1.2). So we tell one, newer than any: a backup is restored into
the version of the server that wrote it.
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
        access: the way in.
        member: where it comes from.
        stall: seconds without a byte after which it is given up.
        history: replication id and offset of the moment, as `id:offset`; "" before the first piece.
    """

    access: Access
    member: Endpoint
    stall: float
    history: str = ""

    def __iter__(self) -> Iterator[bytes]:
        """The RDB's bytes.

        Raises:
            TemporaryError: the member broke off, or has no data to give at the moment.
            PermanentError: it refuses.
        """
        try:
            with socket.create_connection(
                (self.member.host, self.member.port), self.access.timeout_seconds
            ) as connection:
                connection.settimeout(self.stall)
                # until the RDB is created only newlines come, which are not counted
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
        for words in (
            ("AUTH", password),
            ("REPLCONF", "version", NEWEST_VERSION),
            ("REPLCONF", "rdb-only", "1"),
            ("REPLCONF", "capa", "eof"),
        ):
            connection.sendall(command(*words))
            said = _line(lines, self.member)
            if words[0] == "AUTH" and not said.startswith("+"):
                raise PermanentError(f"{self.member.member} refused the credentials: {said[:80]}")
        connection.sendall(command("PSYNC", "?", "-1"))
        said = _line(lines, self.member)
        if not said.startswith("+FULLRESYNC"):
            kind = TemporaryError if said[1:].startswith(KINDS) else PermanentError
            raise kind(f"{self.member.member} sent no data: {said[:200]}")
        self.history = ":".join(said.split()[1:3])
        head = _line(lines, self.member)
        if head.startswith("$EOF:"):
            yield from _until(lines, head[5:].encode(), self.member)
        elif head.startswith("$"):
            yield from _exactly(lines, int(head[1:]), self.member)
        else:
            raise TemporaryError(f"{self.member.member} sent no data: {head[:200]}")


def command(*words: str | bytes) -> bytes:
    """A command as it is sent: https://redis.io/docs/latest/develop/reference/protocol-spec/"""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _line(file: BufferedReader[Any], member: Endpoint) -> str:
    while True:
        line = file.readline()
        if not line:
            raise TemporaryError(f"{member.member} closed the connection")
        if line != b"\n":  # it is busy making the RDB, and says so once a second
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
    """Everything up to the mark; the last bytes are held back, since they may be the mark's."""
    held = b""
    while True:
        piece = file.read1(PIECE_BYTES)
        if not piece:
            if held.endswith(mark):
                return
            raise TemporaryError(f"{member.member} ended the transfer before the end of its data")
        held += piece
        if held.endswith(mark):
            yield held[: -len(mark)]
            return
        if len(held) > MARK_BYTES:
            yield held[:-MARK_BYTES]
            held = held[-MARK_BYTES:]
