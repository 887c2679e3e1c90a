"""Client for one member of Neo4j, over Bolt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

import neo4j
from neo4j.exceptions import AuthError, DriverError, Neo4jError

from calls import call, first_words
from cluster.command import CANCELLATION
from cluster.polling import retry
from components.access import Access, Endpoint
from errors import TemporaryError

PORT, BACKUP_PORT = 7687, 6362
DATABASE = "neo4j"
LABEL = "IsaCloudProbe"  # backups count nodes without it

Rows = list[dict[str, Any]]
T = TypeVar("T")
POLL_SECONDS = 2.0
# The server may fail to enforce a query's own time limit. Connecting and querying may take one limit each.
QUERY_TIMEOUTS = 3


def members_of(access: Access, port: int = PORT) -> list[Endpoint]:
    """All members; each is a StatefulSet of one pod."""
    members = access.settings.components.neo4j.members
    return [access.endpoint(f"neo4j-{n}-0", port) for n in range(1, members + 1)]


def query(access: Access, member: Endpoint, text: str, database: str = "system") -> Rows:
    """Run one query on a member. Returns rows by column."""
    with (
        call(f"Neo4j {member.member}, database {database}: {first_words(text)}"),
        driver_of(access, member) as driver,
        unless_silent(driver, member, QUERY_TIMEOUTS * access.timeout_seconds) as heard,
        driver.session(database=database) as session,
    ):
        rows = []
        for record in session.run(neo4j.Query(text, timeout=access.timeout_seconds)):
            heard()
            rows.append(dict(record))
        return rows


@contextmanager
def unless_silent(
    driver: neo4j.Driver, member: Endpoint, seconds: float
) -> Iterator[Callable[[], None]]:
    """Close a driver whose server sends nothing: the driver itself would wait forever.

    Args:
        driver: the driver that the block uses.
        member: its server, for the message.
        seconds: longest silence.

    Yields:
        A function to call whenever the server has answered.

    Raises:
        TemporaryError: the server sent nothing for longer than `seconds`.
    """
    heard, ended, silent = Event(), Event(), Event()

    def watch() -> None:
        while not ended.wait(seconds):
            if not heard.is_set():
                silent.set()
                driver.close()  # wakes the thread that reads from its socket
                return
            heard.clear()

    Thread(target=watch, name=f"neo4j {member.member}", daemon=True).start()
    try:
        yield heard.set
    except Exception as exc:
        if silent.is_set():
            raise TemporaryError(
                f"Neo4j {member.member} sent nothing for {seconds:.0f} s: its process hangs, or the network drops "
                "packets. Check the pod's log and restart the pod",
                delay=15,
            ) from exc
        raise
    finally:
        ended.set()


def driver_of(access: Access, member: Endpoint) -> neo4j.Driver:
    """Connect to this member directly, without routing."""
    user, _, password = access.secret("neo4j-auth", "NEO4J_AUTH").partition("/")
    return neo4j.GraphDatabase.driver(
        f"bolt://{member.url}",
        auth=(user, password),
        connection_timeout=access.timeout_seconds,
        connection_acquisition_timeout=access.timeout_seconds,
        max_transaction_retry_time=0,
        telemetry_disabled=True,
        notifications_min_severity="OFF",
    )


def until_answered(
    question: Callable[[], T],
    seconds: float,
    sleep: Callable[[float], None] = CANCELLATION.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Repeat a query until a server that has just started answers: its first queries may exceed their limits.

    Args:
        question: sends the query; raises the driver's exceptions or a TemporaryError.
        seconds: limit for all attempts together.

    Raises:
        TemporaryError: there is no answer within the limit.
        PermanentError, AuthError: from the query.
    """
    slow = (Neo4jError, DriverError, TemporaryError)
    try:
        return retry(
            question,
            lambda exc: isinstance(exc, slow) and not isinstance(exc, AuthError),
            seconds,
            pause=POLL_SECONDS,
            clock=clock,
            sleep=sleep,
        )
    except AuthError:
        raise
    except slow as exc:
        raise TemporaryError(f"Neo4j did not answer within {seconds:.0f} s: {exc}") from exc
