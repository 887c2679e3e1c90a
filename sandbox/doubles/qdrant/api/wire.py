"""Requests and answers as bytes: keys, JSON in the server's envelope, text, files."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
import traceback
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sandbox.doubles.qdrant.api.body import Body
from sandbox.doubles.qdrant.errors import Refused, malformed
from sandbox.doubles.qdrant.peers.questions import read
from sandbox.doubles.qdrant.peers.replication import Replication

CHUNK = 1 << 20
READS = ("count", "scroll", "query")
GZIP = {"content-encoding": "gzip"}
OPEN = ("/", "/readyz", "/livez", "/healthz")


class Raw(Exception):
    """An answer that is not JSON: text or a file."""

    def __init__(self, body: str | Path) -> None:
        super().__init__()
        self.body = body


class Wire(BaseHTTPRequestHandler):
    """One request of the public API, without its routes."""

    protocol_version = "HTTP/1.1"
    server_version = "qdrant-double"
    disable_nagle_algorithm = True  # head and body are two writes: 40 ms otherwise

    def __init__(self, replication: Replication, keys: tuple[str, str], *args: Any) -> None:
        self.replication = replication
        self.peer = replication.peer
        self.key, self.read_key = keys
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: their keys are in the headers."""

    def handle_request(self) -> None:
        """Answer every request in the server's envelope, also after an error."""
        started = time.monotonic()
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.body = Body(self.rfile, self.headers)  # type: ignore[arg-type]
        self.headed = False
        status, kind = 200, "application/json"
        headers: dict[str, str] = {}
        try:
            self._authorise(url.path)
            if self.body.broken:
                raise Refused(400, "Bad request: content-length is no number")
            body: Any = {"result": self.route(url.path), "status": "ok"}
            if url.path == "/":
                body = body["result"]  # the one answer without an envelope
        except Raw as raw:
            body, kind = raw.body, "text/plain; charset=utf-8"
        except Refused as refused:
            status = refused.status
            body = {"status": {"error": str(refused)}}
            if refused.retry_after:
                headers = {"retry-after": str(refused.retry_after)}
            if refused.plain:
                body, kind = str(refused), "text/plain"
        except ConnectionError:
            self.close_connection = True
            return
        except BaseException as exc:  # the engine's panics are no `Exception`
            traceback.print_exc(file=sys.stderr)
            status, body = 500, {"status": {"error": f"Service internal error: {exc!r}"}}
        if self.headed:
            # part of a file was sent already, so only the connection can be closed
            self.close_connection = self.close_connection or status != 200
            return
        if isinstance(body, dict) and "status" in body:
            body["time"] = time.monotonic() - started
        self._answer(status, body, kind, headers)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_request  # noqa: N815

    def route(self, path: str) -> Any:
        """Call the route of a path."""
        raise NotImplementedError

    def read(
        self, found: dict[str, Any], question: dict[str, Any], shards: list[int] | None = None
    ) -> list[Any]:
        """Ask one replica of each shard of a collection."""
        return read(self.replication, found, question, shards)

    def _authorise(self, path: str) -> None:
        given = self.headers.get("api-key") or str(
            self.headers.get("authorization") or ""
        ).removeprefix("Bearer ")
        if path in OPEN or not self.key or given == self.key:
            return
        if not given:
            raise Refused(
                401, "Must provide an API key or an Authorization bearer token", plain=True
            )
        if not self.read_key or given != self.read_key:
            raise Refused(401, "Invalid API key or JWT", plain=True)
        reads = (
            self.command == "GET" or path.rpartition("/")[2] in READS or path.endswith("/points")
        )
        if self.command in ("PUT", "DELETE", "PATCH") or not reads:
            raise Refused(403, "Forbidden: Global manage access is required", plain=True)

    def json_body(self) -> dict[str, Any]:
        """The request's body, which must be an object."""
        text = self.body.read()
        try:
            found = json.loads(text or b"{}")
            # Python accepts NaN, 1e999 and lone surrogates, which cannot be sent to another peer
            json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as exc:
            raise malformed(str(exc)) from exc
        if not isinstance(found, dict):
            raise malformed(f"invalid type: {type(found).__name__}, expected a struct")
        return found

    def send_file(self, file: Path) -> None:
        """Answer with a file in pieces. If the client accepts it, compressed and without a length."""
        self.body.drain()
        self.headed = True
        headers = {
            "content-type": "application/octet-stream",
            "content-disposition": f'attachment; filename="{_in_header(file.name)}"',
        }
        with file.open("rb") as stream:
            if not self._compresses():
                self._head(200, file.stat().st_size, headers)
                shutil.copyfileobj(stream, self.wfile, CHUNK)
                return
            self._head(200, None, {**headers, **GZIP, "transfer-encoding": "chunked"})
            gzip = _gzip()
            for piece in iter(lambda: stream.read(CHUNK), b""):
                self._chunk(gzip.compress(piece))
            self._chunk(gzip.flush())
            self.wfile.write(b"0\r\n\r\n")

    def _compresses(self) -> bool:
        """Whether the client accepts compressed answers. The real server then compresses every answer (`Compress` in
        src/actix/mod.rs).
        """
        return "gzip" in str(self.headers.get("accept-encoding") or "")

    def _chunk(self, piece: bytes) -> None:
        if piece:  # an empty chunk would end the answer
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _answer(self, status: int, body: Any, kind: str, more: dict[str, str]) -> None:
        with contextlib.suppress(Refused):
            self.body.drain()
        self.close_connection = self.close_connection or self.body.broken
        try:
            if isinstance(body, Path):
                return self.send_file(body)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            headers = {"content-type": kind, **more}
            if data and self._compresses():
                gzip = _gzip()
                data, headers = gzip.compress(data) + gzip.flush(), {**headers, **GZIP}
            self._head(status, len(data), headers)
            self.wfile.write(data)
        except OSError:  # the client disconnected, or the file was deleted
            self.close_connection = True

    def _head(self, status: int, length: int | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        lengths = {} if length is None else {"content-length": str(length)}
        for name, value in {**headers, **lengths}.items():
            self.send_header(name, value)
        self.end_headers()


def _gzip() -> Any:
    """Compress at the real server's level, the fastest."""
    return zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


def _in_header(name: str) -> str:
    """A file's name as actix writes it into a header: UTF-8, quotes escaped, line breaks encoded.

    Sources: actix-files, named.rs; actix-web, content_disposition.rs.
    """
    for sign in "\n\v\f\r":
        name = name.replace(sign, f"%{ord(sign):02X}")
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return escaped.encode().decode("latin-1")
