"""The body of a request as a stream, with a length or in chunks, and the file of a multipart form."""

from __future__ import annotations

from email.message import Message
from pathlib import Path
from typing import BinaryIO

from sandbox.doubles.qdrant.errors import Refused

PIECE = 1 << 20
LINE_AT_MOST = 1 << 16


class Body:
    """The unread part of a request.

    Args:
        stream: the connection's stream.
        headers: the request's headers.
    """

    def __init__(self, stream: BinaryIO, headers: Message) -> None:
        self._stream = stream
        self._chunked = "chunked" in str(headers.get("transfer-encoding") or "").lower()
        given = str(headers.get("content-length") or "0")
        self.broken = not given.isdigit()
        self._left = 0 if self._chunked or self.broken else int(given)
        self._type = str(headers.get("content-type") or "")
        self._rest = b""  # bytes that were read but not returned yet

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(iter(self.piece, b""))

    def drain(self) -> None:
        """Read the rest of the body: the next request on the connection begins after it."""
        while self.piece():
            pass

    def piece(self) -> bytes:
        """The next bytes; empty at the end."""
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        if self._chunked and not self._left:
            self._next_chunk()
        piece = self._stream.read(min(PIECE, self._left)) if self._left else b""
        if self._left and not piece:
            self.broken = True
            self._left, self._chunked = 0, False
            raise Refused(400, "Bad request: the body ends too early")
        self._left -= len(piece)
        if self._chunked and not self._left and piece:
            self._stream.readline(LINE_AT_MOST)
        return piece

    def _next_chunk(self) -> None:
        line = self._stream.readline(LINE_AT_MOST)
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError as exc:
            self.broken, self._chunked = True, False
            raise Refused(400, "Bad request: a chunk without its length") from exc
        if not self._left:
            self._chunked = False
            while self._stream.readline(LINE_AT_MOST) not in (b"\r\n", b"\n", b""):
                pass

    def save_file(self, field: str, target: Path) -> None:
        """Save the file of a form without loading it into memory.

        Args:
            field: its name in the form.
            target: the file to write.

        Raises:
            Refused: 400, as plain text with the message of the server's framework.
        """
        boundary = self._type.partition("boundary=")[2].partition(";")[0].strip('" ').encode()
        if "multipart/form-data" not in self._type:
            text = "Parsed Content-Type did not have 'multipart' top-level media type"
            raise Refused(400, text, plain=True)
        if not boundary:
            raise Refused(400, "Multipart boundary is not found", plain=True)
        held = b""
        while b"\r\n\r\n" not in held:
            piece = self.piece()
            if not piece or len(held) > LINE_AT_MOST:
                raise _incomplete()
            held += piece
        head, _, held = held.partition(b"\r\n\r\n")
        if not head.lstrip().startswith(b"--" + boundary):
            raise _incomplete()
        if f' name="{field}"'.encode() not in head:
            raise Refused(400, f"Field with name `{field}` is required", plain=True)
        end = b"\r\n--" + boundary
        with target.open("wb") as file:
            while end not in held:
                # two pieces may split the end mark
                file.write(held[: -len(end)])
                held = held[-len(end) :]
                piece = self.piece()
                if not piece:
                    raise _incomplete()
                held += piece
            file.write(held.partition(end)[0])


def _incomplete() -> Refused:
    return Refused(400, "Multipart stream is incomplete", plain=True)
