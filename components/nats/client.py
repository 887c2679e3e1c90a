"""Client for NATS: connections to one server, and requests to JetStream's JSON API."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

import calls
from cluster.polling import retry
from components.access import Access, Endpoint
from components.questions import PROBE
from config.sections.backups import NatsAccount
from config.text.printable import first_of
from errors import IsaError, PermanentError, TemporaryError

log = logging.getLogger(__name__)

STATEFULSET = "nats"
CLIENT_PORT, MONITOR_PORT = 4222, 8222
UNAVAILABLE = 503  # as in HTTP: the refusal is temporary
NO_STREAM, OVERLAP = 10059, 10065
PLACEMENT_SECONDS = 60.0
SHOWN = 10  # names in a message: a stream may have thousands of consumers
FORBIDDEN = "permissions violation"
# Key for a header block that cannot be parsed. No header can have this name: ADR-4 forbids `:`.
UNREADABLE = "unreadable headers:"
SECRET, USER, KEY = "nats-auth", "app", "app-password"

T = TypeVar("T")


@dataclass(frozen=True)
class Account:
    """One account's connection.

    Attributes:
        user: the user that connects; it also names the account.
        client: the connected client.
        loop: the client's event loop; it runs only during a request.
    """

    user: str
    client: Client
    loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop."""
        return self.loop.run_until_complete(coroutine)


@contextmanager
def account(
    access: Access, servers: Sequence[Endpoint], declared: NatsAccount
) -> Iterator[Account]:
    """Connect to an account.

    Args:
        access: addresses and credentials.
        servers: tried in this order.
        declared: one user of the account, with its Secret.

    Raises:
        AccountRefused: the user has no password, or it is refused.
        TemporaryError: no server answers.
    """
    loop = asyncio.new_event_loop()
    try:
        reachable = [server for server in servers if server.host]
        try:
            client = loop.run_until_complete(
                connect(access, reachable, declared.user, declared.secret, declared.key)
            )
        except PermanentError as exc:  # there is no such Secret
            raise AccountRefused(f"user {declared.user}: {exc}") from exc
        except IsaError:
            raise
        except Exception as exc:
            kind = AccountRefused if "uthoriz" in str(exc) else TemporaryError
            raise kind(f"user {declared.user} cannot connect to NATS: {exc}") from exc
        try:
            yield Account(declared.user, client, loop)
        finally:
            loop.run_until_complete(client.close())
    finally:
        loop.close()


class AnyMessage(Client):
    """A client that survives every message.

    NATS accepts any bytes as subject and headers. The library's reader ends at bytes that it cannot parse.
    """

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        readable = subject.decode(errors="backslashreplace").encode()
        message: Msg = super()._build_message(sid, readable, reply, data, headers)
        return message

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Headers as the library parses them.

        If it cannot, the result has the readable lines, and all bytes under the key `UNREADABLE`. A server stores any
        block: 2.15.1 checks only its length.
        """
        try:
            parsed: dict[str, str] | None = await super()._process_headers(headers)
            return parsed
        except Exception as exc:
            log.debug("headers of %d bytes cannot be read: %s", len(headers), type(exc).__name__)
        lines = bytes(headers).partition(b"\r\n")[2]
        readable = await super()._process_headers(b"NATS/1.0\r\n" + lines) if lines else None
        return {**(readable or {}), UNREADABLE: bytes(headers).decode("latin-1")}

    async def _read_loop(self) -> None:
        """The library's read loop. When it ends, the connection is closed.

        Otherwise every later request would wait for its timeout.
        """
        await super()._read_loop()
        await self._process_op_err(NatsError("the reader ended"))


async def connect(
    access: Access,
    servers: Sequence[Endpoint],
    user: str = USER,
    secret: str = SECRET,
    key: str = KEY,
    *,
    forbidden: Callable[[str], None] = lambda words: None,
) -> Client:
    """Connect to the first of some servers that answers.

    Args:
        access: addresses and credentials.
        servers: tried in this order.
        user: the user to connect as.
        secret: name of the Secret with the password.
        key: key in the Secret.
        forbidden: called with NATS' message when the user lacks a permission; the request itself gets no answer then.
    """

    async def hear(exc: Exception) -> None:
        # without a callback the client prints a traceback; all other exceptions are raised by the request
        if FORBIDDEN in str(exc).lower():
            forbidden(str(exc))

    client = AnyMessage()
    await client.connect(
        [f"nats://{server.url}" for server in servers],
        name=PROBE,
        user=user,
        password=access.secret(secret, key),
        connect_timeout=max(1, round(access.timeout_seconds)),
        allow_reconnect=False,
        dont_randomize=True,
        error_cb=hear,
    )
    return client


async def call(client: Client, subject: str, body: Any = None, *, timeout: float) -> dict[str, Any]:
    """Send a request to JetStream's API (https://docs.nats.io/reference/reference-protocols/nats_api_reference).

    Args:
        client: the connected client.
        subject: the subject after `$JS.API.`.
        body: the request's body.
        timeout: seconds.

    Raises:
        Refused: JetStream refuses the request.
        Unanswered: no server answers.
    """
    request = json.dumps(body).encode() if body is not None else b""
    try:
        with calls.call(f"NATS {_server(client)}: {subject}"):
            answer = await client.request(f"$JS.API.{subject}", request, timeout=timeout)
    except (NatsTimeoutError, NoRespondersError) as exc:
        raise Unanswered(f"JetStream does not answer {subject}: no leader, or too slow") from exc
    except NatsError as exc:
        raise Unanswered(f"JetStream, {subject}: {exc}") from exc
    reply: dict[str, Any] = json.loads(answer.data)
    if "error" in reply:
        error = reply["error"]
        raise Refused(
            subject,
            int(error.get("err_code", 0)),
            str(error.get("description")),
            unavailable=error.get("code") == UNAVAILABLE,
        )
    return reply


def call_when_placed(
    connected: Account,
    subject: str,
    body: Any = None,
    *,
    timeout: float,
    passing: int = UNAVAILABLE,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Send a request to JetStream, and repeat it while JetStream finds no servers for it.

    The leader uses only servers that it has heard from recently. On a busy machine it may refuse a request and accept
    it a second later (10023, "insufficient resources").

    Args:
        connected: the account.
        subject: the subject after `$JS.API.`.
        body: the request's body.
        timeout: seconds for one answer.
        passing: the code of another temporary refusal.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        Refused: JetStream refuses the request, or finds no servers for `PLACEMENT_SECONDS`.
        TemporaryError: no server answers.
    """
    return retry(
        lambda: connected.run(call(connected.client, subject, body, timeout=timeout)),
        lambda exc: isinstance(exc, Refused) and (exc.unavailable or exc.code == passing),
        PLACEMENT_SECONDS,
        pause=0.5,
        clock=clock,
        sleep=sleep,
    )


async def listed(
    client: Client, subject: str, key: str, *, timeout: float, matching: str = ""
) -> list[Any]:
    """All entries of a paged list.

    Args:
        client: the connected client.
        subject: the subject after `$JS.API.`.
        key: key of the entries in the answer.
        timeout: seconds for one page.
        matching: list only streams with this subject; "" for all.

    Raises:
        Incomplete: some entries have no leader to describe them.
        Refused, Unanswered: as `call`. Also Unanswered: a page was returned twice.
    """
    criteria = {"subject": matching} if matching else {}
    results: list[Any] = []
    missing: list[str] = []
    names: set[str] = set()
    while True:
        offset = len(results) + len(missing)
        page = await call(client, subject, {"offset": offset, **criteria}, timeout=timeout)
        entries, leaderless = page.get(key) or [], page.get("missing") or []
        # an entry without any server is in both lists: a consumer without its name, a stream with it
        results += [entry for entry in entries if _name(entry) not in ("", *leaderless)]
        missing += leaderless
        page_names = {_name(entry) for entry in entries}.union(leaderless)
        if not page_names or len(results) + len(missing) >= int(page.get("total", 0)):
            break
        if page_names <= names:
            raise Unanswered(
                f"JetStream, {subject}: {_server(client)} returned the same page again"
            )
        names |= page_names
    if missing:
        raise Incomplete(subject, results, missing)
    return results


def some(names: Sequence[str]) -> str:
    """Names for a message: the first ten, and the number of the others."""
    return ", ".join(first_of(names, SHOWN))


def _name(entry: Any) -> str:
    """The name of an entry: the entry itself, its `name`, or the name in a stream's configuration."""
    if not isinstance(entry, dict):
        return str(entry)
    return str(entry.get("name") or entry.get("config", {}).get("name") or "")


class Unanswered(TemporaryError):
    """JetStream does not answer, or stopped answering: no leader, or the server went away."""


class AccountRefused(PermanentError):
    """An account cannot be used: its user is refused, or it has no JetStream."""


class Incomplete(Unanswered):
    """JetStream's list is incomplete.

    Attributes:
        found: the listed entries.
        missing: names of the missing entries.
    """

    def __init__(self, subject: str, found: list[dict[str, Any]], missing: list[str]) -> None:
        super().__init__(f"JetStream, {subject}: no leader answers for {some(missing)}")
        self.found, self.missing = found, missing


class Refused(PermanentError):
    """JetStream refused a request.

    Attributes:
        code: JetStream's error code.
        reason: JetStream's description, with the code.
        unavailable: the refusal is temporary.
    """

    def __init__(self, subject: str, code: int, reason: str, *, unavailable: bool = False) -> None:
        self.code, self.reason, self.unavailable = code, f"{reason} ({code})", unavailable
        super().__init__(f"JetStream refused {subject}: {self.reason}")


def _server(client: Client) -> str:
    """Host and port that a client is connected to, without its user."""
    url = client.connected_url
    return f"{url.hostname}:{url.port}" if url else "not connected"
