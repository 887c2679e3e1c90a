"""Who is told: an HTTP server and a mail server of the test's own, which keep what they get."""

from __future__ import annotations

import asyncio
import email
import email.policy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

PASSWORD = "sesame"


@dataclass
class Receivers:
    """Both, on loopback.

    Attributes:
        web: `host:port` of the HTTP server; a path that says `refuse` is answered 404.
        mail: `host:port` of the mail server; it wants the password.
        got: what came, as (path or recipient, text).
    """

    web: str = ""
    mail: str = ""
    got: list[tuple[str, str]] = field(default_factory=list)

    def told(self, words: str) -> list[str]:
        """Where messages with these words went."""
        return sorted(where for where, text in self.got if words in text)


@contextmanager
def receiving() -> Iterator[Receivers]:
    """Both servers, while the block lasts."""
    receivers = Receivers()

    class Web(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            refused = "refuse" in self.path
            self.send_response(404 if refused else 200)
            self.end_headers()
            if not refused:
                receivers.got.append((self.path, body))

        def log_message(self, *words: Any) -> None:
            """Nothing: the test's output is for the test."""

    class Mail:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            text = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
            receivers.got.append((envelope.rcpt_tos[0], f"{message['subject']}\n{text}"))
            return "250 OK"

    def post_office() -> SMTP:
        def knows(*words: Any) -> AuthResult:
            return AuthResult(success=words[-1].password.decode() == PASSWORD)

        return SMTP(Mail(), authenticator=knows, auth_require_tls=False)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(post_office, "127.0.0.1", 0))
    receivers.mail = "{}:{}".format(*server.sockets[0].getsockname())
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as web:
        receivers.web = f"127.0.0.1:{web.server_port}"
        threads = [
            threading.Thread(target=target) for target in (web.serve_forever, loop.run_forever)
        ]
        for thread in threads:
            thread.start()
        try:
            yield receivers
        finally:
            web.shutdown()
            loop.call_soon_threadsafe(loop.stop)
            for thread in threads:
                thread.join()
    server.close()
    loop.close()
