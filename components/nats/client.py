"""How NATS is asked: connections to one server, and JetStream's API as JSON."""

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
from config.backups import NatsAccount
from config.printable import first_of
from errors import IsaError, PermanentError, TemporaryError

log = logging.getLogger(__name__)

STATEFULSET = "nats"
CLIENT_PORT, MONITOR_PORT = 4222, 8222
UNAVAILABLE = 503  # as in HTTP: it may pass
NO_STREAM, OVERLAP = 10059, 10065
PLACEMENT_SECONDS = 60.0
SHOWN = 10  # names in a message: a stream may have thousands of consumers
FORBIDDEN = "permissions violation"
# No name that a header may have (ADR-4: printable characters but `:`): the bytes of a block that is no header.
UNREADABLE = "unreadable headers:"
SECRET, USER, KEY = "nats-auth", "app", "app-password"

T = TypeVar("T")


@dataclass(frozen=True)
class Account:
    """One account's connection.

    Attributes:
        user: by whom it is reached, and named.
        client: connected.
        loop: of it; runs only while something is asked.
    """

    user: str
    client: Client
    loop: asyncio.AbstractEventLoop

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop."""
        return self.loop.run_until_complete(what)


@contextmanager
def account(
    access: Access, servers: Sequence[Endpoint], declared: NatsAccount
) -> Iterator[Account]:
    """Connect to an account.

    Args:
        access: the way in.
        servers: to try in order.
        declared: the account, by one of its users.

    Raises:
        AccountRefused: there is no password for the user, or it is refused.
        TemporaryError: no server answers.
    """
    loop = asyncio.new_event_loop()
    try:
        there = [server for server in servers if server.host]
        try:
            client = loop.run_until_complete(
                connect(access, there, declared.user, declared.secret, declared.key)
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
    """A client that lives through every message: NATS takes any bytes as subject and headers, and one that the library
    cannot read ends its reader.
    """

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        readable = subject.decode(errors="backslashreplace").encode()
        message: Msg = super()._build_message(sid, readable, reply, data, headers)
        return message

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """As the library reads them; where it cannot, all bytes of the block under one name, and its lines as far as
        they are readable.

        A server stores a block of a single byte, too: 2.15.1 checks nothing but its length.
        """
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
            return found
        except Exception as exc:
            log.debug("headers of %d bytes cannot be read: %s", len(headers), type(exc).__name__)
        lines = bytes(headers).partition(b"\r\n")[2]
        readable = await super()._process_headers(b"NATS/1.0\r\n" + lines) if lines else None
        return {**(readable or {}), UNREADABLE: bytes(headers).decode("latin-1")}

    async def _read_loop(self) -> None:
        """As the library's, whose reader may end without a word: then the connection ends, too.

        Otherwise every later question would wait for its limit, as of a server that is silent.
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
        access: the way in.
        servers: to try in order.
        user: whose account is meant.
        secret: name of the Secret with the password.
        key: in it.
        forbidden: gets NATS' words where the user may not do something; the request itself gets no answer then.
    """

    async def hear(exc: Exception) -> None:
        # the client would print a traceback; any other exception comes anyway
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
    """Ask JetStream's API (https://docs.nats.io/reference/reference-protocols/nats_api_reference).

    Args:
        client: connected.
        subject: behind `$JS.API.`.
        body: of the request.
        timeout: seconds.

    Raises:
        Refused: JetStream says no.
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
    found: dict[str, Any] = json.loads(answer.data)
    if "error" in found:
        error = found["error"]
        raise Refused(
            subject,
            int(error.get("err_code", 0)),
            str(error.get("description")),
            unavailable=error.get("code") == UNAVAILABLE,
        )
    return found


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
    """Ask JetStream to make or change something, and again while it finds no servers for it.

    The leader places on servers that it has heard of lately: on a busy machine it refuses what it takes a second later
    (10023, "insufficient resources", for a consumer of a stream that has its servers).

    Args:
        connected: the account.
        subject: behind `$JS.API.`.
        body: of the request.
        timeout: seconds of one answer.
        passing: another refusal, by its code, that may pass.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        Refused: JetStream says no, or finds no servers for a minute.
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
    """All entries of a list that comes in pages.

    Args:
        client: connected.
        subject: behind `$JS.API.`.
        key: of the entries in the answer.
        timeout: seconds of one page.
        matching: a subject that streams must share with it; "" for all.

    Raises:
        Incomplete: some that there are have no leader to describe them.
        Refused, Unanswered: as `call`; the pages do not end.
    """
    limited = {"subject": matching} if matching else {}
    found: list[Any] = []
    missing: list[str] = []
    names: set[str] = set()
    while True:
        offset = len(found) + len(missing)
        page = await call(client, subject, {"offset": offset, **limited}, timeout=timeout)
        entries, silent = page.get(key) or [], page.get("missing") or []
        # one whose servers are all away is among both: a consumer without its name, a stream with it
        found += [entry for entry in entries if _name(entry) not in ("", *silent)]
        missing += silent
        told = {_name(entry) for entry in entries}.union(silent)
        if not told or len(found) + len(missing) >= int(page.get("total", 0)):
            break
        if told <= names:
            raise Unanswered(
                f"JetStream, {subject}: {_server(client)} returned the same page again"
            )
        names |= told
    if missing:
        raise Incomplete(subject, found, missing)
    return found


def some(names: Sequence[str]) -> str:
    """Names for a message: the first ten, and how many there are more."""
    return ", ".join(first_of(names, SHOWN))


def _name(entry: Any) -> str:
    """An entry that is a name, or that has it: a stream's is in its configuration."""
    if not isinstance(entry, dict):
        return str(entry)
    return str(entry.get("name") or entry.get("config", {}).get("name") or "")


class Unanswered(TemporaryError):
    """JetStream does not answer for something, or no further: it has no leader, or its server went away."""


class AccountRefused(PermanentError):
    """An account cannot be used: its user is refused, or it has no JetStream."""


class Incomplete(Unanswered):
    """JetStream lists less than there is.

    Attributes:
        found: what it lists.
        missing: names of what it does not.
    """

    def __init__(self, subject: str, found: list[dict[str, Any]], missing: list[str]) -> None:
        super().__init__(f"JetStream, {subject}: no leader answers for {some(missing)}")
        self.found, self.missing = found, missing


class Refused(PermanentError):
    """JetStream said no.

    Attributes:
        code: its own number for the reason.
        words: its own words for it, with that number.
        unavailable: whether the reason may pass.
    """

    def __init__(self, subject: str, code: int, words: str, *, unavailable: bool = False) -> None:
        self.code, self.words, self.unavailable = code, f"{words} ({code})", unavailable
        super().__init__(f"JetStream refused {subject}: {self.words}")


def _server(client: Client) -> str:
    """Host and port that a client is connected to, without its user."""
    url = client.connected_url
    return f"{url.hostname}:{url.port}" if url else "not connected"
